// RUN: heatc-opt %s -p pack-tokens --split-input-file | filecheck %s

// What hides masked tokens from a maximum is the least of all tokens; a bias that hides them is taken apart.

// CHECK-LABEL: func.func @filled(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> (tensor<2x4xf32>, tensor<2x4xf32>) {
// CHECK-NEXT:    %0 = attn.packing %m {real = #attn.values<min : -1, 1 : max>, masked = #attn.values<0 : 0>} : (tensor<2x3xi64>) -> !attn.packing<2, 3, reads all>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3, reads all>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 3, reads all> {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %a_1 = attn.unpack %a, %0 {read} : (tensor<?x4xf32>, !attn.packing<2, 3, reads all>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %k = nn.cast %m : (tensor<2x3xi64>) -> tensor<2x3xi1>
// CHECK-NEXT:    %c = nn.reshape %k : (tensor<2x3xi1>) -> tensor<2x3x1xi1>
// CHECK-NEXT:    %2 = nn.reduce %a_1 {kind = "min", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:    %3 = nn.reshape %2 : (tensor<2x4xf32>) -> tensor<2x1x4xf32>
// CHECK-NEXT:    %4 = nn.where %c, %a_1, %3 : (tensor<2x3x1xi1>, tensor<2x3x4xf32>, tensor<2x1x4xf32>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %r = nn.reduce %4 {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:    %zero = nn.full {value = 0.000000e+00 : f64} : tensor<f32>
// CHECK-NEXT:    %hide = nn.full {value = -1.000000e+09 : f64} : tensor<f32>
// CHECK-NEXT:    %b = nn.where %c, %zero, %hide : (tensor<2x3x1xi1>, tensor<f32>, tensor<f32>) -> tensor<2x3x1xf32>
// CHECK-NEXT:    %5 = nn.full {value = 0.000000e+00 : f64} : tensor<f32>
// CHECK-NEXT:    %6 = nn.compare %b, %5 {predicate = "eq"} : (tensor<2x3x1xf32>, tensor<f32>) -> tensor<2x3x1xi1>
// CHECK-NEXT:    %7 = nn.reduce %a_1 {kind = "min", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:    %8 = nn.reshape %7 : (tensor<2x4xf32>) -> tensor<2x1x4xf32>
// CHECK-NEXT:    %9 = nn.where %6, %a_1, %8 : (tensor<2x3x1xi1>, tensor<2x3x4xf32>, tensor<2x1x4xf32>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %s = nn.reduce %9 {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:    func.return %r, %s : tensor<2x4xf32>, tensor<2x4xf32>
func.func @filled(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> (tensor<2x4xf32>, tensor<2x4xf32>) {
  %keys = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %keep = nn.cast %keys : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %x, %x, %x masks %keep : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %k = nn.cast %m : (tensor<2x3xi64>) -> tensor<2x3xi1>
  %c = nn.reshape %k : (tensor<2x3xi1>) -> tensor<2x3x1xi1>
  %low = nn.full {value = 0xFFF0000000000000 : f64} : tensor<f32>
  %f = nn.where %c, %a, %low : (tensor<2x3x1xi1>, tensor<2x3x4xf32>, tensor<f32>) -> tensor<2x3x4xf32>
  %r = nn.reduce %f {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
  %zero = nn.full {value = 0.0 : f64} : tensor<f32>
  %hide = nn.full {value = -1.0e9 : f64} : tensor<f32>
  %b = nn.where %c, %zero, %hide : (tensor<2x3x1xi1>, tensor<f32>, tensor<f32>) -> tensor<2x3x1xf32>
  %g = nn.add %a, %b : (tensor<2x3x4xf32>, tensor<2x3x1xf32>) -> tensor<2x3x4xf32>
  %s = nn.reduce %g {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
  func.return %r, %s : tensor<2x4xf32>, tensor<2x4xf32>
}

// -----

// A mask that is not the padding's, a fill that may be a value, and what hides real tokens stay.

// CHECK-LABEL: func.func @others(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>, %o: tensor<2x3x1xi1>) -> (tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>) {
// CHECK-NEXT:    %0 = attn.packing %m {real = #attn.values<min : -1, 1 : max>, masked = #attn.values<0 : 0>} : (tensor<2x3xi64>) -> !attn.packing<2, 3, reads all>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3, reads all>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 3, reads all> {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %k = nn.cast %m : (tensor<2x3xi64>) -> tensor<2x3xi1>
// CHECK-NEXT:    %c = nn.reshape %k : (tensor<2x3xi1>) -> tensor<2x3x1xi1>
// CHECK-NEXT:    %low = nn.full {value = 0xfff0000000000000 : f64} : tensor<f32>
// CHECK-NEXT:    %zero = nn.full {value = 0.000000e+00 : f64} : tensor<f32>
// CHECK-NEXT:    %2 = attn.pack %o, %0 : (tensor<2x3x1xi1>, !attn.packing<2, 3, reads all>) -> tensor<?x1xi1>
// CHECK-NEXT:    %f = nn.where %2, %a, %low : (tensor<?x1xi1>, tensor<?x4xf32>, tensor<f32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %f_1 = attn.unpack %f, %0 {read} : (tensor<?x4xf32>, !attn.packing<2, 3, reads all>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %r = nn.reduce %f_1 {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:    %3 = attn.pack %c, %0 : (tensor<2x3x1xi1>, !attn.packing<2, 3, reads all>) -> tensor<?x1xi1>
// CHECK-NEXT:    %g = nn.where %3, %a, %zero : (tensor<?x1xi1>, tensor<?x4xf32>, tensor<f32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %g_1 = attn.unpack %g, %0 {read} : (tensor<?x4xf32>, !attn.packing<2, 3, reads all>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %s = nn.reduce %g_1 {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:    %h = nn.where %3, %low, %a : (tensor<?x1xi1>, tensor<f32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %h_1 = attn.unpack %h, %0 {read} : (tensor<?x4xf32>, !attn.packing<2, 3, reads all>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %t = nn.reduce %h_1 {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:    func.return %r, %s, %t : tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>
func.func @others(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>, %o: tensor<2x3x1xi1>) -> (tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>) {
  %keys = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %keep = nn.cast %keys : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %x, %x, %x masks %keep : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %k = nn.cast %m : (tensor<2x3xi64>) -> tensor<2x3xi1>
  %c = nn.reshape %k : (tensor<2x3xi1>) -> tensor<2x3x1xi1>
  %low = nn.full {value = 0xFFF0000000000000 : f64} : tensor<f32>
  %zero = nn.full {value = 0.0 : f64} : tensor<f32>
  %f = nn.where %o, %a, %low : (tensor<2x3x1xi1>, tensor<2x3x4xf32>, tensor<f32>) -> tensor<2x3x4xf32>
  %r = nn.reduce %f {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
  %g = nn.where %c, %a, %zero : (tensor<2x3x1xi1>, tensor<2x3x4xf32>, tensor<f32>) -> tensor<2x3x4xf32>
  %s = nn.reduce %g {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
  %h = nn.where %c, %low, %a : (tensor<2x3x1xi1>, tensor<f32>, tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
  %t = nn.reduce %h {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
  func.return %r, %s, %t : tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>
}

// -----

// What is 0 at masked tokens is not read there. The first position has a row nevertheless, where it is
// masked: it refuses a sequence without a real token, whose maximum would be another.

// CHECK-LABEL: func.func @vanishing(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> (tensor<2x4xf32>) {
// CHECK-NEXT:    %0 = attn.packing %m {real = #attn.values<min : -1, 1 : max>, masked = #attn.values<0 : 0>} : (tensor<2x3xi64>) -> !attn.packing<2, 3, reads [0]>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3, reads [0]>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 3, reads [0]> {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %k = nn.cast %m : (tensor<2x3xi64>) -> tensor<2x3xi1>
// CHECK-NEXT:    %c = nn.reshape %k : (tensor<2x3xi1>) -> tensor<2x3x1xi1>
// CHECK-NEXT:    %d = nn.cast %c : (tensor<2x3x1xi1>) -> tensor<2x3x1xf32>
// CHECK-NEXT:    %2 = attn.pack %d, %0 : (tensor<2x3x1xf32>, !attn.packing<2, 3, reads [0]>) -> tensor<?x1xf32>
// CHECK-NEXT:    %z = nn.mul %a, %2 : (tensor<?x4xf32>, tensor<?x1xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %z_1 = attn.unpack %z, %0 {read} : (tensor<?x4xf32>, !attn.packing<2, 3, reads [0]>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %3 = nn.reduce %z_1 {kind = "min", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:    %4 = nn.reshape %3 : (tensor<2x4xf32>) -> tensor<2x1x4xf32>
// CHECK-NEXT:    %5 = nn.where %c, %z_1, %4 : (tensor<2x3x1xi1>, tensor<2x3x4xf32>, tensor<2x1x4xf32>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %r = nn.reduce %5 {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:    func.return %r : tensor<2x4xf32>
func.func @vanishing(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> tensor<2x4xf32> {
  %keys = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %keep = nn.cast %keys : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %x, %x, %x masks %keep : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %k = nn.cast %m : (tensor<2x3xi64>) -> tensor<2x3xi1>
  %c = nn.reshape %k : (tensor<2x3xi1>) -> tensor<2x3x1xi1>
  %d = nn.cast %c : (tensor<2x3x1xi1>) -> tensor<2x3x1xf32>
  %z = nn.mul %a, %d : (tensor<2x3x4xf32>, tensor<2x3x1xf32>) -> tensor<2x3x4xf32>
  %low = nn.full {value = 0xFFF0000000000000 : f64} : tensor<f32>
  %f = nn.where %c, %z, %low : (tensor<2x3x1xi1>, tensor<2x3x4xf32>, tensor<f32>) -> tensor<2x3x4xf32>
  %r = nn.reduce %f {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
  func.return %r : tensor<2x4xf32>
}

// -----

// Attention takes every number but 0 for a real token, the maximum those above 0: others are refused.

// CHECK-LABEL: func.func @positive(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> (tensor<2x4xf32>) {
// CHECK-NEXT:    %0 = attn.packing %m {real = #attn.values<1 : max>, masked = #attn.values<0 : 0>} : (tensor<2x3xi64>) -> !attn.packing<2, 3, reads all>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3, reads all>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 3, reads all> {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %a_1 = attn.unpack %a, %0 {read} : (tensor<?x4xf32>, !attn.packing<2, 3, reads all>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %none = nn.full {value = 0.000000e+00 : f64} : tensor<i64>
// CHECK-NEXT:    %k = nn.compare %m, %none {predicate = "gt"} : (tensor<2x3xi64>, tensor<i64>) -> tensor<2x3xi1>
// CHECK-NEXT:    %c = nn.reshape %k : (tensor<2x3xi1>) -> tensor<2x3x1xi1>
// CHECK-NEXT:    %2 = nn.reduce %a_1 {kind = "min", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:    %3 = nn.reshape %2 : (tensor<2x4xf32>) -> tensor<2x1x4xf32>
// CHECK-NEXT:    %4 = nn.where %c, %a_1, %3 : (tensor<2x3x1xi1>, tensor<2x3x4xf32>, tensor<2x1x4xf32>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %r = nn.reduce %4 {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:    func.return %r : tensor<2x4xf32>
func.func @positive(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> tensor<2x4xf32> {
  %keys = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %keep = nn.cast %keys : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %x, %x, %x masks %keep : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %none = nn.full {value = 0.0 : f64} : tensor<i64>
  %k = nn.compare %m, %none {predicate = "gt"} : (tensor<2x3xi64>, tensor<i64>) -> tensor<2x3xi1>
  %c = nn.reshape %k : (tensor<2x3xi1>) -> tensor<2x3x1xi1>
  %low = nn.full {value = 0xFFF0000000000000 : f64} : tensor<f32>
  %f = nn.where %c, %a, %low : (tensor<2x3x1xi1>, tensor<2x3x4xf32>, tensor<f32>) -> tensor<2x3x4xf32>
  %r = nn.reduce %f {kind = "max", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
  func.return %r : tensor<2x4xf32>
}
