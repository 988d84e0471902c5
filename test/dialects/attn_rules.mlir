// RUN: %roundtrip

// The ops of the pruning rules beside `paper`: options by head, blocks, low bits, ranked heads.

// CHECK-LABEL: func.func @blocks(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
// CHECK-NEXT:    %i, %f = attn.split %x {finer = 2 : i64} : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// CHECK-NEXT:    %a = attn.integer_scores %i, %i, %p {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
// CHECK-NEXT:    %t = attn.block_importance %a, %p {block = array<i64: 1, 4>, importance = "positive"} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x2xf64>
// CHECK-NEXT:    %m = attn.block_mask %t, %p {rho_b = array<f64: 1.000000e-01, -2.500000e-01>, block = array<i64: 1, 4>} : (tensor<2x2x5x2xf64>, !attn.packing<2, 5>) -> tensor<2x2x5x2xi1>
// CHECK-NEXT:    %n = attn.block_mask %t, %p, %m {rho_b = 5.000000e-01 : f64, block = array<i64: 1, 4>} : (tensor<2x2x5x2xf64>, !attn.packing<2, 5>, tensor<2x2x5x2xi1>) -> tensor<2x2x5x2xi1>
// CHECK-NEXT:    %k = attn.topk_mask %t, %p {density = 2.500000e-01 : f64, block = array<i64: 1, 4>} : (tensor<2x2x5x2xf64>, !attn.packing<2, 5>) -> tensor<2x2x5x2xi1>
// CHECK-NEXT:    %g = attn.head_gate %t, %p {tau_h = array<f64: 0.000000e+00, 3.000000e-01>, importance = "positive", block = array<i64: 2, 2>} : (tensor<2x2x5x2xf64>, !attn.packing<2, 5>) -> tensor<2x2xi1>
// CHECK-NEXT:    %s = attn.merge_scores %a, %i, %f, %i, %f, %n, %p {heads = 2 : i64, block = array<i64: 1, 4>, pruned = "mean"} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<2x2x5x2xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
// CHECK-NEXT:    %q = attn.mean_query %s, %a, %g, %p : (tensor<2x2x5x5xf32>, tensor<2x2x5x5xf32>, tensor<2x2xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
// CHECK-NEXT:    %o = attn.weighted_values %q, %x, %p, %g {heads = 2 : i64, gated = "mean"} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, !attn.packing<2, 5>, tensor<2x2xi1>) -> tensor<?x4xf32>
// CHECK-NEXT:    func.return
func.func @blocks(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
  %i, %f = attn.split %x {finer = 2 : i64} : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
  %a = attn.integer_scores %i, %i, %p {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  %t = attn.block_importance %a, %p {block = array<i64: 1, 4>, importance = "positive"} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x2xf64>
  %m = attn.block_mask %t, %p {rho_b = array<f64: 0.1, -0.25>, block = array<i64: 1, 4>} : (tensor<2x2x5x2xf64>, !attn.packing<2, 5>) -> tensor<2x2x5x2xi1>
  %n = attn.block_mask %t, %p, %m {rho_b = 0.5 : f64, block = array<i64: 1, 4>} : (tensor<2x2x5x2xf64>, !attn.packing<2, 5>, tensor<2x2x5x2xi1>) -> tensor<2x2x5x2xi1>
  %k = attn.topk_mask %t, %p {density = 0.25 : f64, block = array<i64: 1, 4>} : (tensor<2x2x5x2xf64>, !attn.packing<2, 5>) -> tensor<2x2x5x2xi1>
  %g = attn.head_gate %t, %p {tau_h = array<f64: 0.0, 0.3>, importance = "positive", block = array<i64: 2, 2>} : (tensor<2x2x5x2xf64>, !attn.packing<2, 5>) -> tensor<2x2xi1>
  %s = attn.merge_scores %a, %i, %f, %i, %f, %n, %p {heads = 2 : i64, block = array<i64: 1, 4>, pruned = "mean"} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<2x2x5x2xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  %q = attn.mean_query %s, %a, %g, %p : (tensor<2x2x5x5xf32>, tensor<2x2x5x5xf32>, tensor<2x2xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  %o = attn.weighted_values %q, %x, %p, %g {heads = 2 : i64, gated = "mean"} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, !attn.packing<2, 5>, tensor<2x2xi1>) -> tensor<?x4xf32>
  func.return
}

// CHECK-LABEL: func.func @low_bits(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
// CHECK-NEXT:    %c, %e = attn.low_bits %x, %p {heads = 2 : i64, bits = 4 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>) -> (tensor<?x4xi8>, tensor<2x2xi64>)
// CHECK-NEXT:    %a = attn.integer_scores %c, %c, %p {heads = 2 : i64} : (tensor<?x4xi8>, tensor<?x4xi8>, !attn.packing<2, 5>) -> tensor<2x2x5x5xi32>
// CHECK-NEXT:    %s = attn.scale_scores %a, %e, %e, %p : (tensor<2x2x5x5xi32>, tensor<2x2xi64>, tensor<2x2xi64>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf64>
// CHECK-NEXT:    %m = attn.probability_mask %s, %p {threshold = 2.000000e-03 : f64} : (tensor<2x2x5x5xf64>, !attn.packing<2, 5>) -> tensor<2x2x5x5xi1>
// CHECK-NEXT:    %r = attn.exclude_scores %s, %m, %p : (tensor<2x2x5x5xf64>, tensor<2x2x5x5xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf64>
// CHECK-NEXT:    func.return
func.func @low_bits(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
  %c, %e = attn.low_bits %x, %p {heads = 2 : i64, bits = 4 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>) -> (tensor<?x4xi8>, tensor<2x2xi64>)
  %a = attn.integer_scores %c, %c, %p {heads = 2 : i64} : (tensor<?x4xi8>, tensor<?x4xi8>, !attn.packing<2, 5>) -> tensor<2x2x5x5xi32>
  %s = attn.scale_scores %a, %e, %e, %p : (tensor<2x2x5x5xi32>, tensor<2x2xi64>, tensor<2x2xi64>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf64>
  %m = attn.probability_mask %s, %p {threshold = 0.002 : f64} : (tensor<2x2x5x5xf64>, !attn.packing<2, 5>) -> tensor<2x2x5x5xi1>
  %r = attn.exclude_scores %s, %m, %p : (tensor<2x2x5x5xf64>, tensor<2x2x5x5xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf64>
  func.return
}

// CHECK-LABEL: func.func @ranking(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
// CHECK-NEXT:    %a = attn.head_importance %x, %p {heads = 2 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x2xf64>
// CHECK-NEXT:    %g = attn.head_ranking %a {keep = 2 : i64} : (tensor<2x2xf64>) -> tensor<2x2xi1>
// CHECK-NEXT:    %b = attn.head_importance %x, %p, %a {heads = 2 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>, tensor<2x2xf64>) -> tensor<2x2xf64>
// CHECK-NEXT:    %h = attn.head_ranking %b, %g {keep = 1 : i64} : (tensor<2x2xf64>, tensor<2x2xi1>) -> tensor<2x2xi1>
// CHECK-NEXT:    func.return
func.func @ranking(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
  %a = attn.head_importance %x, %p {heads = 2 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x2xf64>
  %g = attn.head_ranking %a {keep = 2 : i64} : (tensor<2x2xf64>) -> tensor<2x2xi1>
  %b = attn.head_importance %x, %p, %a {heads = 2 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>, tensor<2x2xf64>) -> tensor<2x2xf64>
  %h = attn.head_ranking %b, %g {keep = 1 : i64} : (tensor<2x2xf64>, tensor<2x2xi1>) -> tensor<2x2xi1>
  func.return
}

// CHECK-LABEL: func.func @codes(%x: tensor<?x4x!fixed.q<16, 9>>, %y: tensor<?x4x!fixed.q<16, 1>>) {
// CHECK-NEXT:    %i, %f = attn.split %x {finer = 2 : i64} : (tensor<?x4x!fixed.q<16, 9>>) -> (tensor<?x4x!fixed.q<16, 2>>, tensor<?x4x!fixed.q<16, 9>>)
// CHECK-NEXT:    %j, %g = attn.split %y {finer = 2 : i64} : (tensor<?x4x!fixed.q<16, 1>>) -> (tensor<?x4x!fixed.q<16, 1>>, tensor<?x4x!fixed.q<16, 1>>)
// CHECK-NEXT:    func.return
func.func @codes(%x: tensor<?x4x!fixed.q<16, 9>>, %y: tensor<?x4x!fixed.q<16, 1>>) {
  %i, %f = attn.split %x {finer = 2 : i64} : (tensor<?x4x!fixed.q<16, 9>>) -> (tensor<?x4x!fixed.q<16, 2>>, tensor<?x4x!fixed.q<16, 9>>)
  %j, %g = attn.split %y {finer = 2 : i64} : (tensor<?x4x!fixed.q<16, 1>>) -> (tensor<?x4x!fixed.q<16, 1>>, tensor<?x4x!fixed.q<16, 1>>)
  func.return
}
