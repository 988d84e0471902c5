// RUN: %roundtrip

// Every op of `attn` and its type print what they parse, in the custom and in the generic form.

// CHECK-LABEL: func.func @packing(%m: tensor<2x5xi64>, %x: tensor<2x5x4xf32>, %i: tensor<2x5xi64>) {
// CHECK-NEXT:    %p = attn.packing %m : (tensor<2x5xi64>) -> !attn.packing<2, 5>
// CHECK-NEXT:    %all = attn.packing : () -> !attn.packing<8, 128>
// CHECK-NEXT:    %0 = attn.pack %x, %p : (tensor<2x5x4xf32>, !attn.packing<2, 5>) -> tensor<?x4xf32>
// CHECK-NEXT:    %1 = attn.pack %i, %p : (tensor<2x5xi64>, !attn.packing<2, 5>) -> tensor<?xi64>
// CHECK-NEXT:    %2 = attn.unpack %0, %p : (tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x5x4xf32>
// CHECK-NEXT:    %r = attn.packing %m {real = #attn.values<min : -1, 1 : max>, masked = #attn.values<0 : 0>} : (tensor<2x5xi64>) -> !attn.packing<2, 5, reads [0, 4]>
// CHECK-NEXT:    %s = attn.packing %m {real = #attn.values<0.25 : 1>, masked = #attn.values<-2 : 0>} : (tensor<2x5xi64>) -> !attn.packing<2, 5, reads all>
// CHECK-NEXT:    %3 = attn.token %0, %r {position = 4 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5, reads [0, 4]>) -> tensor<2x4xf32>
// CHECK-NEXT:    %4 = attn.unpack %0, %r {read} : (tensor<?x4xf32>, !attn.packing<2, 5, reads [0, 4]>) -> tensor<2x5x4xf32>
// CHECK-NEXT:    %5 = attn.real %p : (!attn.packing<2, 5>) -> tensor<2x5xi1>
// CHECK-NEXT:    func.return
func.func @packing(%m: tensor<2x5xi64>, %x: tensor<2x5x4xf32>, %i: tensor<2x5xi64>) {
  %p = attn.packing %m : (tensor<2x5xi64>) -> !attn.packing<2, 5>
  %all = attn.packing : () -> !attn.packing<8, 128>
  %0 = attn.pack %x, %p : (tensor<2x5x4xf32>, !attn.packing<2, 5>) -> tensor<?x4xf32>
  %1 = attn.pack %i, %p : (tensor<2x5xi64>, !attn.packing<2, 5>) -> tensor<?xi64>
  %2 = attn.unpack %0, %p : (tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x5x4xf32>
  %r = attn.packing %m {real = #attn.values<min : -1, 1 : max>, masked = #attn.values<0 : 0>} : (tensor<2x5xi64>) -> !attn.packing<2, 5, reads [0, 4]>
  %s = attn.packing %m {real = #attn.values<0.25 : 1>, masked = #attn.values<-2 : 0>} : (tensor<2x5xi64>) -> !attn.packing<2, 5, reads all>
  %3 = attn.token %0, %r {position = 4 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5, reads [0, 4]>) -> tensor<2x4xf32>
  %4 = attn.unpack %0, %r {read} : (tensor<?x4xf32>, !attn.packing<2, 5, reads [0, 4]>) -> tensor<2x5x4xf32>
  %5 = attn.real %p : (!attn.packing<2, 5>) -> tensor<2x5xi1>
  func.return
}

// CHECK-LABEL: func.func @sdpa(%x: tensor<2x5x4xf32>, %v: tensor<2x5x6xf32>, %m: tensor<2x5xi64>, %b: tensor<2x1x1x5xf32>, %y: tensor<?x4xf32>, %p: !attn.packing<2, 5>, %c: tensor<5x5xf32>) {
// CHECK-NEXT:    %0 = attn.sdpa %x, %x, %v {heads = 2 : i64, scale = 5.000000e-01 : f64, rule = #attn.rule<"ours", {finer = 1 : i64}>} : tensor<2x5x4xf32>, tensor<2x5x4xf32>, tensor<2x5x6xf32> -> tensor<2x5x6xf32>
// CHECK-NEXT:    %keys1 = nn.reshape %m : (tensor<2x5xi64>) -> tensor<2x1x1x5xi64>
// CHECK-NEXT:    %keep1 = nn.cast %keys1 : (tensor<2x1x1x5xi64>) -> tensor<2x1x1x5xi1>
// CHECK-NEXT:    %1 = attn.sdpa %x, %x, %x masks %keep1 : tensor<2x1x1x5xi1> {heads = 2 : i64, scale = 5.000000e-01 : f64, fills = [0xfff0000000000000 : f64], keyless = "zero"} : tensor<2x5x4xf32>, tensor<2x5x4xf32>, tensor<2x5x4xf32> -> tensor<2x5x4xf32>
// CHECK-NEXT:    %keys2 = nn.reshape %m : (tensor<2x5xi64>) -> tensor<2x1x1x5xi64>
// CHECK-NEXT:    %keep2 = nn.cast %keys2 : (tensor<2x1x1x5xi64>) -> tensor<2x1x1x5xi1>
// CHECK-NEXT:    %2 = attn.sdpa %x, %x, %x masks %keep2, %b : tensor<2x1x1x5xi1>, tensor<2x1x1x5xf32> {heads = 2 : i64, scale = 5.000000e-01 : f64, fills = [0xfff0000000000000 : f64, 0.000000e+00 : f64], keyless = "zero"} : tensor<2x5x4xf32>, tensor<2x5x4xf32>, tensor<2x5x4xf32> -> tensor<2x5x4xf32>
// CHECK-NEXT:    %3 = attn.sdpa %y, %y, %y packed %p : !attn.packing<2, 5> masks %c : tensor<5x5xf32> {heads = 1 : i64, scale = 5.000000e-01 : f64, keyless = "zero"} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    func.return
func.func @sdpa(%x: tensor<2x5x4xf32>, %v: tensor<2x5x6xf32>, %m: tensor<2x5xi64>, %b: tensor<2x1x1x5xf32>, %y: tensor<?x4xf32>, %p: !attn.packing<2, 5>, %c: tensor<5x5xf32>) {
  %0 = attn.sdpa %x, %x, %v {heads = 2 : i64, scale = 0.5 : f64, rule = #attn.rule<"ours", {finer = 1 : i64}>} : tensor<2x5x4xf32>, tensor<2x5x4xf32>, tensor<2x5x6xf32> -> tensor<2x5x6xf32>
  %keys1 = nn.reshape %m : (tensor<2x5xi64>) -> tensor<2x1x1x5xi64>
  %keep1 = nn.cast %keys1 : (tensor<2x1x1x5xi64>) -> tensor<2x1x1x5xi1>
  %1 = attn.sdpa %x, %x, %x masks %keep1 : tensor<2x1x1x5xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x5x4xf32>, tensor<2x5x4xf32>, tensor<2x5x4xf32> -> tensor<2x5x4xf32>
  %keys2 = nn.reshape %m : (tensor<2x5xi64>) -> tensor<2x1x1x5xi64>
  %keep2 = nn.cast %keys2 : (tensor<2x1x1x5xi64>) -> tensor<2x1x1x5xi1>
  %2 = attn.sdpa %x, %x, %x masks %keep2, %b : tensor<2x1x1x5xi1>, tensor<2x1x1x5xf32> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64, 0.0 : f64], keyless = "zero"} : tensor<2x5x4xf32>, tensor<2x5x4xf32>, tensor<2x5x4xf32> -> tensor<2x5x4xf32>
  %3 = attn.sdpa %y, %y, %y packed %p : !attn.packing<2, 5> masks %c : tensor<5x5xf32> {heads = 1 : i64, scale = 0.5 : f64, keyless = "zero"} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return
}

// CHECK-LABEL: func.func @hdp(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
// CHECK-NEXT:    %0, %1 = attn.split %x : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// CHECK-NEXT:    %2 = attn.scores %x, %x, %p {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
// CHECK-NEXT:    %3 = attn.integer_scores %0, %0, %p {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
// CHECK-NEXT:    %4 = attn.block_importance %3, %p {block = array<i64: 2, 2>, importance = "abs"} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xf32>
// CHECK-NEXT:    %5 = attn.block_mask %4, %p {rho_b = -2.500000e-01 : f64, block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xi1>
// CHECK-NEXT:    %6 = attn.head_gate %4, %p {tau_h = 1.500000e+00 : f64, importance = "abs", block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2xi1>
// CHECK-NEXT:    %7 = attn.merge_scores %3, %0, %1, %0, %1, %5, %p {heads = 2 : i64, block = array<i64: 2, 2>, pruned = "mean"} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<2x2x3x3xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
// CHECK-NEXT:    %8 = attn.softmax %7, %p {scale = 5.000000e-01 : f64} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
// CHECK-NEXT:    %9 = attn.weighted_values %8, %x, %p, %6 {heads = 2 : i64, gated = "zero"} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, !attn.packing<2, 5>, tensor<2x2xi1>) -> tensor<?x4xf32>
// CHECK-NEXT:    %10 = attn.weighted_values %8, %x, %p {heads = 2 : i64} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<?x4xf32>
// CHECK-NEXT:    func.return
func.func @hdp(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
  %0, %1 = attn.split %x : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
  %2 = attn.scores %x, %x, %p {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  %3 = attn.integer_scores %0, %0, %p {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  %4 = attn.block_importance %3, %p {block = array<i64: 2, 2>, importance = "abs"} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xf32>
  %5 = attn.block_mask %4, %p {rho_b = -0.25 : f64, block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xi1>
  %6 = attn.head_gate %4, %p {tau_h = 1.5 : f64, importance = "abs", block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2xi1>
  %7 = attn.merge_scores %3, %0, %1, %0, %1, %5, %p {heads = 2 : i64, block = array<i64: 2, 2>, pruned = "mean"} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<2x2x3x3xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  %8 = attn.softmax %7, %p {scale = 0.5 : f64} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  %9 = attn.weighted_values %8, %x, %p, %6 {heads = 2 : i64, gated = "zero"} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, !attn.packing<2, 5>, tensor<2x2xi1>) -> tensor<?x4xf32>
  %10 = attn.weighted_values %8, %x, %p {heads = 2 : i64} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<?x4xf32>
  func.return
}

// CHECK-LABEL: func.func @codes(%x: tensor<?x4x!fixed.q<16, 9>>, %p: !attn.packing<2, 5>) {
// CHECK-NEXT:    %0, %1 = attn.split %x : (tensor<?x4x!fixed.q<16, 9>>) -> (tensor<?x4x!fixed.q<16, 0>>, tensor<?x4x!fixed.q<16, 9>>)
// CHECK-NEXT:    %2 = attn.scores %x, %x, %p {heads = 2 : i64} : (tensor<?x4x!fixed.q<16, 9>>, tensor<?x4x!fixed.q<16, 9>>, !attn.packing<2, 5>) -> tensor<2x2x5x5x!fixed.q<32, 18>>
// CHECK-NEXT:    func.return
func.func @codes(%x: tensor<?x4x!fixed.q<16, 9>>, %p: !attn.packing<2, 5>) {
  %0, %1 = attn.split %x : (tensor<?x4x!fixed.q<16, 9>>) -> (tensor<?x4x!fixed.q<16, 0>>, tensor<?x4x!fixed.q<16, 9>>)
  %2 = attn.scores %x, %x, %p {heads = 2 : i64} : (tensor<?x4x!fixed.q<16, 9>>, tensor<?x4x!fixed.q<16, 9>>, !attn.packing<2, 5>) -> tensor<2x2x5x5x!fixed.q<32, 18>>
  func.return
}

// CHECK-LABEL: func.func @rules(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>, %a: tensor<2x2x5x5xf32>, %theta: tensor<2x2x3x3xf32>, %gate: tensor<2x2xi1>) {
// CHECK-NEXT:    %0 = attn.topk_mask %theta, %p {density = 5.000000e-01 : f64, block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xi1>
// CHECK-NEXT:    %1 = attn.mean_query %a, %a, %gate, %p : (tensor<2x2x5x5xf32>, tensor<2x2x5x5xf32>, tensor<2x2xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
// CHECK-NEXT:    %2, %3 = attn.low_bits %x, %p {heads = 2 : i64, bits = 4 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>) -> (tensor<?x4xi8>, tensor<2x2xi64>)
// CHECK-NEXT:    %4 = attn.integer_scores %2, %2, %p {heads = 2 : i64} : (tensor<?x4xi8>, tensor<?x4xi8>, !attn.packing<2, 5>) -> tensor<2x2x5x5xi32>
// CHECK-NEXT:    %5 = attn.scale_scores %4, %3, %3, %p : (tensor<2x2x5x5xi32>, tensor<2x2xi64>, tensor<2x2xi64>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf64>
// CHECK-NEXT:    %6 = attn.probability_mask %5, %p {threshold = 2.000000e-03 : f64} : (tensor<2x2x5x5xf64>, !attn.packing<2, 5>) -> tensor<2x2x5x5xi1>
// CHECK-NEXT:    %7 = attn.exclude_scores %a, %6, %p : (tensor<2x2x5x5xf32>, tensor<2x2x5x5xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
// CHECK-NEXT:    %8 = attn.head_importance %x, %p {heads = 2 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x2xf64>
// CHECK-NEXT:    %9 = attn.head_importance %x, %p, %8 {heads = 2 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>, tensor<2x2xf64>) -> tensor<2x2xf64>
// CHECK-NEXT:    %10 = attn.head_ranking %9, %gate {keep = 1 : i64} : (tensor<2x2xf64>, tensor<2x2xi1>) -> tensor<2x2xi1>
// CHECK-NEXT:    func.return
func.func @rules(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>, %a: tensor<2x2x5x5xf32>, %theta: tensor<2x2x3x3xf32>, %gate: tensor<2x2xi1>) {
  %0 = attn.topk_mask %theta, %p {density = 0.5 : f64, block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xi1>
  %1 = attn.mean_query %a, %a, %gate, %p : (tensor<2x2x5x5xf32>, tensor<2x2x5x5xf32>, tensor<2x2xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  %2, %3 = attn.low_bits %x, %p {heads = 2 : i64, bits = 4 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>) -> (tensor<?x4xi8>, tensor<2x2xi64>)
  %4 = attn.integer_scores %2, %2, %p {heads = 2 : i64} : (tensor<?x4xi8>, tensor<?x4xi8>, !attn.packing<2, 5>) -> tensor<2x2x5x5xi32>
  %5 = attn.scale_scores %4, %3, %3, %p : (tensor<2x2x5x5xi32>, tensor<2x2xi64>, tensor<2x2xi64>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf64>
  %6 = attn.probability_mask %5, %p {threshold = 0.002 : f64} : (tensor<2x2x5x5xf64>, !attn.packing<2, 5>) -> tensor<2x2x5x5xi1>
  %7 = attn.exclude_scores %a, %6, %p : (tensor<2x2x5x5xf32>, tensor<2x2x5x5xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  %8 = attn.head_importance %x, %p {heads = 2 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x2xf64>
  %9 = attn.head_importance %x, %p, %8 {heads = 2 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>, tensor<2x2xf64>) -> tensor<2x2xf64>
  %10 = attn.head_ranking %9, %gate {keep = 1 : i64} : (tensor<2x2xf64>, tensor<2x2xi1>) -> tensor<2x2xi1>
  func.return
}
