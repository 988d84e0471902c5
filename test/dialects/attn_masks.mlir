// RUN: %roundtrip

// Masks of the model's own: what is visible, a bias, and the decisions that take them.

// CHECK-LABEL: func.func @masks(
func.func @masks(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>, %m: tensor<1x1x5x5xi1>, %k: tensor<2x1x1x5xi1>, %b: tensor<1x2x5x5xf32>, %g: tensor<2x2xi1>) {
  // CHECK-NEXT: %a = attn.integer_scores
  %a = attn.integer_scores %x, %x, %p {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  // CHECK-NEXT: %v = attn.visible %p, %m, %k {heads = 2 : i64} : (!attn.packing<2, 5>, tensor<1x1x5x5xi1>, tensor<2x1x1x5xi1>) -> tensor<2x2x5x5xi1>
  %v = attn.visible %p, %m, %k {heads = 2 : i64} : (!attn.packing<2, 5>, tensor<1x1x5x5xi1>, tensor<2x1x1x5xi1>) -> tensor<2x2x5x5xi1>
  // CHECK-NEXT: %n = attn.visible_blocks %v, %p {block = array<i64: 2, 2>} : (tensor<2x2x5x5xi1>, !attn.packing<2, 5>) -> tensor<2x2x3x3xi1>
  %n = attn.visible_blocks %v, %p {block = array<i64: 2, 2>} : (tensor<2x2x5x5xi1>, !attn.packing<2, 5>) -> tensor<2x2x3x3xi1>
  // CHECK-NEXT: %t = attn.block_importance %a, %p, %v {block = array<i64: 2, 2>, importance = "abs"} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>, tensor<2x2x5x5xi1>) -> tensor<2x2x3x3xf64>
  %t = attn.block_importance %a, %p, %v {block = array<i64: 2, 2>, importance = "abs"} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>, tensor<2x2x5x5xi1>) -> tensor<2x2x3x3xf64>
  // CHECK-NEXT: %c = attn.topk_mask %t, %p, %n {density = 2.500000e-01 : f64, block = array<i64: 2, 2>} : (tensor<2x2x3x3xf64>, !attn.packing<2, 5>, tensor<2x2x3x3xi1>) -> tensor<2x2x3x3xi1>
  %c = attn.topk_mask %t, %p, %n {density = 0.25 : f64, block = array<i64: 2, 2>} : (tensor<2x2x3x3xf64>, !attn.packing<2, 5>, tensor<2x2x3x3xi1>) -> tensor<2x2x3x3xi1>
  // CHECK-NEXT: %h = attn.head_gate %t, %p, %v {tau_h = 5.000000e-01 : f64, importance = "abs", block = array<i64: 2, 2>} : (tensor<2x2x3x3xf64>, !attn.packing<2, 5>, tensor<2x2x5x5xi1>) -> tensor<2x2xi1>
  %h = attn.head_gate %t, %p, %v {tau_h = 0.5 : f64, importance = "abs", block = array<i64: 2, 2>} : (tensor<2x2x3x3xf64>, !attn.packing<2, 5>, tensor<2x2x5x5xi1>) -> tensor<2x2xi1>
  // CHECK-NEXT: %s = attn.merge_scores %a, %x, %x, %x, %x, %c, %p, %v {heads = 2 : i64, block = array<i64: 2, 2>, pruned = "mean"}
  %s = attn.merge_scores %a, %x, %x, %x, %x, %c, %p, %v {heads = 2 : i64, block = array<i64: 2, 2>, pruned = "mean"} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<2x2x3x3xi1>, !attn.packing<2, 5>, tensor<2x2x5x5xi1>) -> tensor<2x2x5x5xf32>
  // CHECK-NEXT: %w = attn.bias_scores %s, %b, %p : (tensor<2x2x5x5xf32>, tensor<1x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  %w = attn.bias_scores %s, %b, %p : (tensor<2x2x5x5xf32>, tensor<1x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  // CHECK-NEXT: %y = attn.hide_scores %w, %v, %p {keyless = "mean"} : (tensor<2x2x5x5xf32>, tensor<2x2x5x5xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  %y = attn.hide_scores %w, %v, %p {keyless = "mean"} : (tensor<2x2x5x5xf32>, tensor<2x2x5x5xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  func.return
}
