// RUN: heatc-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// CHECK: finer 15 is outside 0..14
func.func @f(%x: tensor<?x4xf32>) {
  %0, %1 = attn.split %x {finer = 15 : i64} : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
  func.return
}

// -----

// CHECK: parts at points 0 and 9 are no split of point 9 with finer 2
func.func @f(%y: tensor<?x4x!fixed.q<16, 9>>) {
  %0, %1 = attn.split %y {finer = 2 : i64} : (tensor<?x4x!fixed.q<16, 9>>) -> (tensor<?x4x!fixed.q<16, 0>>, tensor<?x4x!fixed.q<16, 9>>)
  func.return
}

// -----

// CHECK: parts at points 2 and None are no split of point 9 with finer 2
func.func @f(%y: tensor<?x4x!fixed.q<16, 9>>) {
  %0, %1 = attn.split %y {finer = 2 : i64} : (tensor<?x4x!fixed.q<16, 9>>) -> (tensor<?x4x!fixed.q<16, 2>>, tensor<?x4xf32>)
  func.return
}

// -----

// CHECK: unknown importance 'squared', expected one of ('abs', 'positive')
func.func @f(%a: tensor<2x2x5x5xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.block_importance %a, %p {block = array<i64: 2, 2>, importance = "squared"} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xf32>
  func.return
}

// -----

// CHECK: expected result of shape (2, 2, 5, 2), got (2, 2, 3, 3)
func.func @f(%a: tensor<2x2x5x5xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.block_importance %a, %p {block = array<i64: 1, 4>, importance = "abs"} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xf32>
  func.return
}

// -----

// CHECK: rho_b has 3 values for 2 heads
func.func @f(%t: tensor<2x2x3x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.block_mask %t, %p {rho_b = array<f64: 0.1, 0.2, 0.3>, block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xi1>
  func.return
}

// -----

// CHECK: rho_b -1.0 is outside (-1, 1)
func.func @f(%t: tensor<2x2x3x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.block_mask %t, %p {rho_b = array<f64: 0.1, -1.0>, block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xi1>
  func.return
}

// -----

// CHECK: expected rho_b to be one f64 or an array of them, got array<i64: 1, 2>
func.func @f(%t: tensor<2x2x3x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.block_mask %t, %p {rho_b = array<i64: 1, 2>, block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xi1>
  func.return
}

// -----

// CHECK: expected mask of shape (2, 2, 3, 3), got (2, 2)
func.func @f(%t: tensor<2x2x3x3xf32>, %p: !attn.packing<2, 5>, %g: tensor<2x2xi1>) {
  %0 = attn.block_mask %t, %p, %g {rho_b = 0.1 : f64, block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>, tensor<2x2xi1>) -> tensor<2x2x3x3xi1>
  func.return
}

// -----

// CHECK: density 0.0 is outside (0, 1]
func.func @f(%t: tensor<2x2x3x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.topk_mask %t, %p {density = 0.0 : f64, block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xi1>
  func.return
}

// -----

// CHECK: expected a block of two positive extents, got (2,)
func.func @f(%t: tensor<2x2x3x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.topk_mask %t, %p {density = 0.5 : f64, block = array<i64: 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xi1>
  func.return
}

// -----

// CHECK: tau_h has 3 values for 2 heads
func.func @f(%t: tensor<2x2x3x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.head_gate %t, %p {tau_h = array<f64: 0.1, 0.2, 0.3>, importance = "abs", block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2xi1>
  func.return
}

// -----

// CHECK: unknown importance 'mean', expected one of ('abs', 'positive')
func.func @f(%t: tensor<2x2x3x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.head_gate %t, %p {tau_h = 0.1 : f64, importance = "mean", block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2xi1>
  func.return
}

// -----

// CHECK: expected tau_h to be one f64 or an array of them, got "high"
func.func @f(%t: tensor<2x2x3x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.head_gate %t, %p {tau_h = "high", importance = "abs", block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2xi1>
  func.return
}

// -----

// CHECK: expected mask of shape (2, 2, 2, 2), got (2, 2, 3, 3)
func.func @f(%a: tensor<2x2x5x5xf32>, %x: tensor<?x4xf32>, %m: tensor<2x2x3x3xi1>, %p: !attn.packing<2, 5>) {
  %0 = attn.merge_scores %a, %x, %x, %x, %x, %m, %p {heads = 2 : i64, block = array<i64: 4, 4>, pruned = "zero"} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<2x2x3x3xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  func.return
}

// -----

// CHECK: expected gate of shape (2, 2), got (2, 2, 3, 3)
func.func @f(%a: tensor<2x2x5x5xf32>, %m: tensor<2x2x3x3xi1>, %p: !attn.packing<2, 5>) {
  %0 = attn.mean_query %a, %a, %m, %p : (tensor<2x2x5x5xf32>, tensor<2x2x5x5xf32>, tensor<2x2x3x3xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  func.return
}

// -----

// CHECK: a gate says what pruned heads give, and nothing else does
func.func @f(%a: tensor<2x2x5x5xf32>, %x: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.weighted_values %a, %x, %p {heads = 2 : i64, gated = "mean"} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<?x4xf32>
  func.return
}

// -----

// CHECK: a gate says what pruned heads give, and nothing else does
func.func @f(%a: tensor<2x2x5x5xf32>, %x: tensor<?x4xf32>, %p: !attn.packing<2, 5>, %g: tensor<2x2xi1>) {
  %0 = attn.weighted_values %a, %x, %p, %g {heads = 2 : i64} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, !attn.packing<2, 5>, tensor<2x2xi1>) -> tensor<?x4xf32>
  func.return
}

// -----

// CHECK: unknown output of pruned heads 'col', expected one of ('zero', 'mean')
func.func @f(%a: tensor<2x2x5x5xf32>, %x: tensor<?x4xf32>, %p: !attn.packing<2, 5>, %g: tensor<2x2xi1>) {
  %0 = attn.weighted_values %a, %x, %p, %g {heads = 2 : i64, gated = "col"} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, !attn.packing<2, 5>, tensor<2x2xi1>) -> tensor<?x4xf32>
  func.return
}

// -----

// CHECK: bits 9 is outside 2..8
func.func @f(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
  %0, %1 = attn.low_bits %x, %p {heads = 2 : i64, bits = 9 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>) -> (tensor<?x4xi8>, tensor<2x2xi64>)
  func.return
}

// -----

// CHECK: 3 heads do not divide width 4
func.func @f(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
  %0, %1 = attn.low_bits %x, %p {heads = 3 : i64, bits = 4 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>) -> (tensor<?x4xi8>, tensor<2x3xi64>)
  func.return
}

// -----

// CHECK: expected points of shape (2, 2), got (2,)
func.func @f(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
  %0, %1 = attn.low_bits %x, %p {heads = 2 : i64, bits = 4 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>) -> (tensor<?x4xi8>, tensor<2xi64>)
  func.return
}

// -----

// CHECK: expected points of k of shape (2, 2), got (2,)
func.func @f(%a: tensor<2x2x5x5xf32>, %e: tensor<2x2xi64>, %h: tensor<2xi64>, %p: !attn.packing<2, 5>) {
  %0 = attn.scale_scores %a, %e, %h, %p : (tensor<2x2x5x5xf32>, tensor<2x2xi64>, tensor<2xi64>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf64>
  func.return
}

// -----

// CHECK: threshold 1.0 is outside [0, 1)
func.func @f(%a: tensor<2x2x5x5xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.probability_mask %a, %p {threshold = 1.0 : f64} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xi1>
  func.return
}

// -----

// CHECK: expected mask of shape (2, 2, 5, 5), got (2, 2, 3, 3)
func.func @f(%a: tensor<2x2x5x5xf32>, %m: tensor<2x2x3x3xi1>, %p: !attn.packing<2, 5>) {
  %0 = attn.exclude_scores %a, %m, %p : (tensor<2x2x5x5xf32>, tensor<2x2x3x3xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  func.return
}

// -----

// CHECK: expected result of shape (2, 2), got (2, 3)
func.func @f(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.head_importance %x, %p {heads = 2 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x3xf64>
  func.return
}

// -----

// CHECK: expected importance before of shape (2, 4), got (2, 2)
func.func @f(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>, %e: tensor<2x2xi64>) {
  %0 = attn.head_importance %x, %p, %e {heads = 4 : i64} : (tensor<?x4xf32>, !attn.packing<2, 5>, tensor<2x2xi64>) -> tensor<2x4xf64>
  func.return
}

// -----

// CHECK: keep 3 is outside 1..2
func.func @f(%e: tensor<2x2xi64>) {
  %0 = attn.head_ranking %e {keep = 3 : i64} : (tensor<2x2xi64>) -> tensor<2x2xi1>
  func.return
}

// -----

// CHECK: expected gate of shape (2, 2), got (2, 2, 3, 3)
func.func @f(%e: tensor<2x2xi64>, %m: tensor<2x2x3x3xi1>) {
  %0 = attn.head_ranking %e, %m {keep = 1 : i64} : (tensor<2x2xi64>, tensor<2x2x3x3xi1>) -> tensor<2x2xi1>
  func.return
}
