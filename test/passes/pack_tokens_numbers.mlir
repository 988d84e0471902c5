// RUN: heatc-opt %s -p pack-tokens --split-input-file | filecheck %s

// A reduction over the last axis of tokens is of packed rows, with what follows it.

// CHECK-LABEL: func.func @over_its_size(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> (tensor<2x3x4xf32> {heatc.padding = "zero"}, tensor<2x3xf32> {heatc.padding = "zero"}) {
// CHECK-NEXT:    %0 = attn.packing %m {real = #attn.values<min : -1, 1 : max>, masked = #attn.values<0 : 0>} : (tensor<2x3xi64>) -> !attn.packing<2, 3>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 3> {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %s = nn.mul %a, %a : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %2 = nn.reduce %s {kind = "sum", axes = array<i64: 1>} : (tensor<?x4xf32>) -> tensor<?xf32>
// CHECK-NEXT:    %t = nn.reshape %2 : (tensor<?xf32>) -> tensor<?x1xf32>
// CHECK-NEXT:    %r = nn.map %t {function = "sqrt"} : (tensor<?x1xf32>) -> tensor<?x1xf32>
// CHECK-NEXT:    %r_1 = attn.unpack %r, %0 : (tensor<?x1xf32>, !attn.packing<2, 3>) -> tensor<2x3x1xf32>
// CHECK-NEXT:    %3 = nn.reshape %r_1 : (tensor<2x3x1xf32>) -> tensor<2x3xf32>
// CHECK-NEXT:    %w = nn.expand %r : (tensor<?x1xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %d = nn.div %a, %w : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %d_1 = attn.unpack %d, %0 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    func.return %d_1, %3 : tensor<2x3x4xf32>, tensor<2x3xf32>
func.func @over_its_size(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> (tensor<2x3x4xf32>, tensor<2x3xf32>) {
  %keys = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %keep = nn.cast %keys : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %x, %x, %x masks %keep : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %s = nn.mul %a, %a : (tensor<2x3x4xf32>, tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
  %t = nn.reduce %s {kind = "sum", axes = array<i64: 2>} : (tensor<2x3x4xf32>) -> tensor<2x3xf32>
  %r = nn.map %t {function = "sqrt"} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %c = nn.reshape %r : (tensor<2x3xf32>) -> tensor<2x3x1xf32>
  %w = nn.expand %c : (tensor<2x3x1xf32>) -> tensor<2x3x4xf32>
  %d = nn.div %a, %w : (tensor<2x3x4xf32>, tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
  func.return %d, %r : tensor<2x3x4xf32>, tensor<2x3xf32>
}

// -----

// What is reduced over tokens is not, and masked positions are read for it.

// CHECK-LABEL: func.func @over_tokens(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> (tensor<2x4xf32>) {
// CHECK-NEXT:    %0 = attn.packing %m {real = #attn.values<min : -1, 1 : max>, masked = #attn.values<0 : 0>} : (tensor<2x3xi64>) -> !attn.packing<2, 3, reads all>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3, reads all>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 3, reads all> {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %a_1 = attn.unpack %a, %0 {read} : (tensor<?x4xf32>, !attn.packing<2, 3, reads all>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %t = nn.reduce %a_1 {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:    func.return %t : tensor<2x4xf32>
func.func @over_tokens(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> tensor<2x4xf32> {
  %keys = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %keep = nn.cast %keys : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %x, %x, %x masks %keep : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %t = nn.reduce %a {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
  func.return %t : tensor<2x4xf32>
}
