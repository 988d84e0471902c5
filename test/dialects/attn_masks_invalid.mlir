// RUN: heatc-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// CHECK: mask of shape (2, 3, 5, 5) does not broadcast to (2, 2, 5, 5)
func.func @f(%m: tensor<2x3x5x5xi1>, %p: !attn.packing<2, 5>) {
  %0 = attn.visible %p, %m {heads = 2 : i64} : (!attn.packing<2, 5>, tensor<2x3x5x5xi1>) -> tensor<2x2x5x5xi1>
  func.return
}

// -----

// CHECK: expected a mask of i1, got f32
func.func @f(%m: tensor<1x1x5x5xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.visible %p, %m {heads = 2 : i64} : (!attn.packing<2, 5>, tensor<1x1x5x5xf32>) -> tensor<2x2x5x5xi1>
  func.return
}

// -----

// CHECK: expected a mask that says what is visible
func.func @f(%p: !attn.packing<2, 5>) {
  %0 = attn.visible %p {heads = 2 : i64} : (!attn.packing<2, 5>) -> tensor<2x2x5x5xi1>
  func.return
}

// -----

// CHECK: expected result of shape (2, 2, 3, 3), got (2, 2, 5, 5)
func.func @f(%v: tensor<2x2x5x5xi1>, %p: !attn.packing<2, 5>) {
  %0 = attn.visible_blocks %v, %p {block = array<i64: 2, 2>} : (tensor<2x2x5x5xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xi1>
  func.return
}

// -----

// CHECK: bias of shape (1, 1, 4, 5) does not broadcast to (2, 2, 5, 5)
func.func @f(%s: tensor<2x2x5x5xf32>, %b: tensor<1x1x4x5xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.bias_scores %s, %b, %p : (tensor<2x2x5x5xf32>, tensor<1x1x4x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  func.return
}

// -----

// CHECK: unknown output of a row without a key 'none', expected one of ('zero', 'refuse', 'all', 'mean')
func.func @f(%s: tensor<2x2x5x5xf32>, %v: tensor<2x2x5x5xi1>, %p: !attn.packing<2, 5>) {
  %0 = attn.hide_scores %s, %v, %p {keyless = "none"} : (tensor<2x2x5x5xf32>, tensor<2x2x5x5xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  func.return
}

// -----

// CHECK: expected visible scores of shape (2, 2, 5, 5), got (2, 2, 3, 3)
func.func @f(%s: tensor<2x2x5x5xf32>, %v: tensor<2x2x3x3xi1>, %p: !attn.packing<2, 5>) {
  %0 = attn.hide_scores %s, %v, %p {keyless = "zero"} : (tensor<2x2x5x5xf32>, tensor<2x2x3x3xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  func.return
}

// -----

// CHECK: expected visible scores of i1, got f32
func.func @f(%a: tensor<2x2x5x5xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.block_importance %a, %p, %a {block = array<i64: 2, 2>, importance = "abs"} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>, tensor<2x2x5x5xf32>) -> tensor<2x2x3x3xf64>
  func.return
}
