// RUN: heatc-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// CHECK: batch 0 and length 5 must be positive
func.func @f(%p: !attn.packing<0, 5>) {
  func.return
}

// -----

// CHECK: expected mask of shape (2, 5), got (2, 4)
func.func @f(%m: tensor<2x4xi64>) {
  %0 = attn.packing %m : (tensor<2x4xi64>) -> !attn.packing<2, 5>
  func.return
}

// -----

// CHECK: shape (2, 4, 3) is not packed by !attn.packing<2, 5>
func.func @f(%x: tensor<2x4x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.pack %x, %p : (tensor<2x4x3xf32>, !attn.packing<2, 5>) -> tensor<?x3xf32>
  func.return
}

// -----

// CHECK: expected result of shape (?, 3), got (10, 3)
func.func @f(%x: tensor<2x5x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.pack %x, %p : (tensor<2x5x3xf32>, !attn.packing<2, 5>) -> tensor<10x3xf32>
  func.return
}

// -----

// CHECK: expected packed rows (?, ...), got shape (7, 3)
func.func @f(%x: tensor<7x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.unpack %x, %p : (tensor<7x3xf32>, !attn.packing<2, 5>) -> tensor<2x5x3xf32>
  func.return
}

// -----

// CHECK: expected result of shape (2, 5, 3), got (5, 2, 3)
func.func @f(%x: tensor<?x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.unpack %x, %p : (tensor<?x3xf32>, !attn.packing<2, 5>) -> tensor<5x2x3xf32>
  func.return
}

// -----

// CHECK: positions [1, 0] do not ascend
func.func @f(%p: !attn.packing<2, 5, reads [1, 0]>) {
  func.return
}

// -----

// CHECK: positions [5] leave 0..4
func.func @f(%p: !attn.packing<2, 5, reads [5]>) {
  func.return
}

// -----

// CHECK: without a mask no position is masked, so that none is read
func.func @f() {
  %0 = attn.packing : () -> !attn.packing<2, 5, reads all>
  func.return
}

// -----

// CHECK: expected both `real` and `masked` values, or neither
func.func @f(%m: tensor<2x5xi64>) {
  %0 = attn.packing %m {real = #attn.values<1 : 1>} : (tensor<2x5xi64>) -> !attn.packing<2, 5>
  func.return
}

// -----

// CHECK: values of a mask that is not there
func.func @f() {
  %0 = attn.packing {real = #attn.values<1 : 1>, masked = #attn.values<0 : 0>} : () -> !attn.packing<2, 5>
  func.return
}

// -----

// CHECK: values 1.0..inf are real and 0.0..1.0 masked
func.func @f(%m: tensor<2x5xi64>) {
  %0 = attn.packing %m {real = #attn.values<1 : max>, masked = #attn.values<0 : 1>} : (tensor<2x5xi64>) -> !attn.packing<2, 5>
  func.return
}

// -----

// CHECK: ends [2.0, 1.0] are no ascending intervals
func.func @f(%m: tensor<2x5xi64>) {
  %0 = attn.packing %m {real = #attn.values<2 : 1>, masked = #attn.values<0 : 0>} : (tensor<2x5xi64>) -> !attn.packing<2, 5>
  func.return
}

// -----

// CHECK: position 0 may be masked, and !attn.packing<2, 5> has no row of it then
func.func @f(%x: tensor<?x3xf32>, %m: tensor<2x5xi64>) {
  %p = attn.packing %m : (tensor<2x5xi64>) -> !attn.packing<2, 5>
  %0 = attn.token %x, %p {position = 0 : i64} : (tensor<?x3xf32>, !attn.packing<2, 5>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: expected result of shape (2, 5), got (5, 2)
func.func @f(%p: !attn.packing<2, 5>) {
  %0 = attn.real %p : (!attn.packing<2, 5>) -> tensor<5x2xi1>
  func.return
}

// -----

// CHECK: position 5 is outside 0..4
func.func @f(%x: tensor<?x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.token %x, %p {position = 5 : i64} : (tensor<?x3xf32>, !attn.packing<2, 5>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: expected result of shape (2, 3), got (5, 3)
func.func @f(%x: tensor<?x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.token %x, %p {position = 0 : i64} : (tensor<?x3xf32>, !attn.packing<2, 5>) -> tensor<5x3xf32>
  func.return
}

// -----

// CHECK: expected rank 3, got shapes (?, 4), (?, 4), (?, 4)
func.func @f(%x: tensor<?x4xf32>) {
  %0 = attn.sdpa %x, %x, %x {heads = 2 : i64, scale = 0.5 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return
}

// -----

// CHECK: expected rank 2, got shapes (2, 5, 4), (2, 5, 4), (2, 5, 4)
func.func @f(%x: tensor<2x5x4xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.sdpa %x, %x, %x packed %p : !attn.packing<2, 5> {heads = 2 : i64, scale = 0.5 : f64} : tensor<2x5x4xf32>, tensor<2x5x4xf32>, tensor<2x5x4xf32> -> tensor<2x5x4xf32>
  func.return
}

// -----

// CHECK: shapes (2, 5, 4), (2, 6, 4), (2, 6, 4) do not attend to each other
func.func @f(%x: tensor<2x5x4xf32>, %y: tensor<2x6x4xf32>) {
  %0 = attn.sdpa %x, %y, %y {heads = 2 : i64, scale = 0.5 : f64} : tensor<2x5x4xf32>, tensor<2x6x4xf32>, tensor<2x6x4xf32> -> tensor<2x5x4xf32>
  func.return
}

// -----

// CHECK: 3 heads do not divide width 4
func.func @f(%x: tensor<2x5x4xf32>) {
  %0 = attn.sdpa %x, %x, %x {heads = 3 : i64, scale = 0.5 : f64} : tensor<2x5x4xf32>, tensor<2x5x4xf32>, tensor<2x5x4xf32> -> tensor<2x5x4xf32>
  func.return
}

// -----

// CHECK: 2 heads do not divide width 3
func.func @f(%x: tensor<2x5x4xf32>, %y: tensor<2x5x3xf32>) {
  %0 = attn.sdpa %x, %x, %y {heads = 2 : i64, scale = 0.5 : f64} : tensor<2x5x4xf32>, tensor<2x5x4xf32>, tensor<2x5x3xf32> -> tensor<2x5x3xf32>
  func.return
}

// -----

// CHECK: expected result of shape (2, 5, 4), got (2, 5, 6)
func.func @f(%x: tensor<2x5x4xf32>) {
  %0 = attn.sdpa %x, %x, %x {heads = 2 : i64, scale = 0.5 : f64} : tensor<2x5x4xf32>, tensor<2x5x4xf32>, tensor<2x5x4xf32> -> tensor<2x5x6xf32>
  func.return
}

// -----

// CHECK: masks say what a row without a key gives, and nothing else does
func.func @f(%x: tensor<2x5x4xf32>, %m: tensor<5xf32>) {
  %0 = attn.sdpa %x, %x, %x masks %m : tensor<5xf32> {heads = 2 : i64, scale = 0.5 : f64} : tensor<2x5x4xf32>, tensor<2x5x4xf32>, tensor<2x5x4xf32> -> tensor<2x5x4xf32>
  func.return
}

// -----

// CHECK: unknown output of a row without a key 'mean', expected one of ('zero', 'nan')
func.func @f(%x: tensor<2x5x4xf32>, %m: tensor<5xf32>) {
  %0 = attn.sdpa %x, %x, %x masks %m : tensor<5xf32> {heads = 2 : i64, scale = 0.5 : f64, keyless = "mean"} : tensor<2x5x4xf32>, tensor<2x5x4xf32>, tensor<2x5x4xf32> -> tensor<2x5x4xf32>
  func.return
}

// -----

// CHECK: a mask of truth values needs a fill
func.func @f(%x: tensor<2x5x4xf32>, %m: tensor<5xi1>) {
  %0 = attn.sdpa %x, %x, %x masks %m : tensor<5xi1> {heads = 2 : i64, scale = 0.5 : f64, keyless = "nan"} : tensor<2x5x4xf32>, tensor<2x5x4xf32>, tensor<2x5x4xf32> -> tensor<2x5x4xf32>
  func.return
}

// -----

// CHECK: 2 fills for 1 masks
func.func @f(%x: tensor<2x5x4xf32>, %m: tensor<5xi1>) {
  %0 = attn.sdpa %x, %x, %x masks %m : tensor<5xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [-1.0e9 : f64, 0.0 : f64], keyless = "nan"} : tensor<2x5x4xf32>, tensor<2x5x4xf32>, tensor<2x5x4xf32> -> tensor<2x5x4xf32>
  func.return
}

// -----

// CHECK: mask of shape (4, 5) does not broadcast to (2, 2, 5, 5)
func.func @f(%x: tensor<2x5x4xf32>, %b: tensor<4x5xf32>) {
  %0 = attn.sdpa %x, %x, %x masks %b : tensor<4x5xf32> {heads = 2 : i64, scale = 0.5 : f64, keyless = "zero"} : tensor<2x5x4xf32>, tensor<2x5x4xf32>, tensor<2x5x4xf32> -> tensor<2x5x4xf32>
  func.return
}

// -----

// CHECK: mask of shape (1, 2, 2, 5, 5) does not broadcast to (2, 2, 5, 5)
func.func @f(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>, %b: tensor<1x2x2x5x5xf32>) {
  %0 = attn.sdpa %x, %x, %x packed %p : !attn.packing<2, 5> masks %b : tensor<1x2x2x5x5xf32> {heads = 2 : i64, scale = 0.5 : f64, keyless = "zero"} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return
}

// -----

// CHECK: expected integer part of shape (3, 4), got (4, 3)
func.func @f(%x: tensor<3x4xf32>) {
  %0, %1 = attn.split %x : (tensor<3x4xf32>) -> (tensor<4x3xf32>, tensor<3x4xf32>)
  func.return
}

// -----

// CHECK: expected fraction part of shape (3, 4), got (4, 3)
func.func @f(%x: tensor<3x4xf32>) {
  %0, %1 = attn.split %x : (tensor<3x4xf32>) -> (tensor<3x4xf32>, tensor<4x3xf32>)
  func.return
}

// -----

// CHECK: expected equal shapes (tokens, width), got (?, 4) and (?, 6)
func.func @f(%q: tensor<?x4xf32>, %k: tensor<?x6xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.scores %q, %k, %p {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x6xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  func.return
}

// -----

// CHECK: expected equal shapes (tokens, width), got (?, 4) and (?, 6)
func.func @f(%q: tensor<?x4xf32>, %k: tensor<?x6xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.integer_scores %q, %k, %p {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x6xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  func.return
}

// -----

// CHECK: 3 heads do not divide width 4
func.func @f(%q: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.scores %q, %q, %p {heads = 3 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x3x5x5xf32>
  func.return
}

// -----

// CHECK: expected result of shape (2, 2, 5, 5), got (2, 5, 5)
func.func @f(%q: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.scores %q, %q, %p {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<2x5x5xf32>
  func.return
}

// -----

// CHECK: expected a block of two positive extents, got (2, 0)
func.func @f(%a: tensor<2x2x5x5xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.block_importance %a, %p {block = array<i64: 2, 0>, importance = "abs"} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xf32>
  func.return
}

// -----

// CHECK: expected result of shape (2, 2, 3, 3), got (2, 2, 2, 2)
func.func @f(%a: tensor<2x2x5x5xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.block_importance %a, %p {block = array<i64: 2, 2>, importance = "abs"} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x2x2xf32>
  func.return
}

// -----

// CHECK: rho_b 1.0 is outside (-1, 1)
func.func @f(%t: tensor<2x2x3x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.block_mask %t, %p {rho_b = 1.0 : f64, block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xi1>
  func.return
}

// -----

// CHECK: expected result of shape (2, 2, 3, 3), got (2, 2, 5, 5)
func.func @f(%t: tensor<2x2x3x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.block_mask %t, %p {rho_b = 0.0 : f64, block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xi1>
  func.return
}

// -----

// CHECK: expected result of shape (2, 2), got (2,)
func.func @f(%t: tensor<2x2x3x3xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.head_gate %t, %p {tau_h = 1.0 : f64, importance = "abs", block = array<i64: 2, 2>} : (tensor<2x2x3x3xf32>, !attn.packing<2, 5>) -> tensor<2xi1>
  func.return
}

// -----

// CHECK: unknown pruned score 'one', expected one of ('zero', 'neginf', 'int', 'mean')
func.func @f(%a: tensor<2x2x5x5xf32>, %x: tensor<?x4xf32>, %m: tensor<2x2x3x3xi1>, %p: !attn.packing<2, 5>) {
  %0 = attn.merge_scores %a, %x, %x, %x, %x, %m, %p {heads = 2 : i64, block = array<i64: 2, 2>, pruned = "one"} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<2x2x3x3xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
  func.return
}

// -----

// CHECK: expected result of shape (2, 2, 5, 5), got (2, 5, 5)
func.func @f(%a: tensor<2x2x5x5xf32>, %x: tensor<?x4xf32>, %m: tensor<2x2x3x3xi1>, %p: !attn.packing<2, 5>) {
  %0 = attn.merge_scores %a, %x, %x, %x, %x, %m, %p {heads = 2 : i64, block = array<i64: 2, 2>, pruned = "zero"} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<2x2x3x3xi1>, !attn.packing<2, 5>) -> tensor<2x5x5xf32>
  func.return
}

// -----

// CHECK: expected result of shape (2, 2, 5, 5), got (2, 5, 5)
func.func @f(%s: tensor<2x2x5x5xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.softmax %s, %p {scale = 0.5 : f64} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x5x5xf32>
  func.return
}

// -----

// CHECK: 3 heads do not divide width 4
func.func @f(%s: tensor<2x2x5x5xf32>, %v: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.weighted_values %s, %v, %p {heads = 3 : i64} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<?x4xf32>
  func.return
}

// -----

// CHECK: expected result of shape (?, 4), got (?, 6)
func.func @f(%s: tensor<2x2x5x5xf32>, %v: tensor<?x4xf32>, %p: !attn.packing<2, 5>) {
  %0 = attn.weighted_values %s, %v, %p {heads = 2 : i64} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, !attn.packing<2, 5>) -> tensor<?x6xf32>
  func.return
}

// -----

// CHECK: expected gate of shape (2, 2), got (2,)
func.func @f(%s: tensor<2x2x5x5xf32>, %v: tensor<?x4xf32>, %p: !attn.packing<2, 5>, %g: tensor<2xi1>) {
  %0 = attn.weighted_values %s, %v, %p, %g {heads = 2 : i64, gated = "zero"} : (tensor<2x2x5x5xf32>, tensor<?x4xf32>, !attn.packing<2, 5>, tensor<2xi1>) -> tensor<?x4xf32>
  func.return
}
