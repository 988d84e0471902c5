// RUN: heatc-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// CHECK: malformed equation 'ti,oi', expected e.g. 'ti,oi->to'
func.func @f(%a: tensor<2x4xf32>, %b: tensor<3x4xf32>) {
  %0 = einsum.contract "ti,oi" %a, %b : (tensor<2x4xf32>, tensor<3x4xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: result 'tz' of 'ti,oi->tz' repeats or invents an index
func.func @f(%a: tensor<2x4xf32>, %b: tensor<3x4xf32>) {
  %0 = einsum.contract "ti,oi->tz" %a, %b : (tensor<2x4xf32>, tensor<3x4xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: result 'tt' of 'ti,oi->tt' repeats or invents an index
func.func @f(%a: tensor<2x4xf32>, %b: tensor<3x4xf32>) {
  %0 = einsum.contract "ti,oi->tt" %a, %b : (tensor<2x4xf32>, tensor<3x4xf32>) -> tensor<2x2xf32>
  func.return
}

// -----

// CHECK: equation 'ti,oi->to' has 2 operands, got 1
func.func @f(%a: tensor<2x4xf32>) {
  %0 = einsum.contract "ti,oi->to" %a : (tensor<2x4xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: term 'oi' does not fit shape (3,)
func.func @f(%a: tensor<2x4xf32>, %b: tensor<3xf32>) {
  %0 = einsum.contract "ti,oi->to" %a, %b : (tensor<2x4xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: index 'i' has extents 4 and 5
func.func @f(%a: tensor<2x4xf32>, %b: tensor<3x5xf32>) {
  %0 = einsum.contract "ti,oi->to" %a, %b : (tensor<2x4xf32>, tensor<3x5xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: index 'o' has extents 3 and 7
func.func @f(%a: tensor<2x4xf32>, %b: tensor<3x4xf32>) {
  %0 = einsum.contract "ti,oi->to" %a, %b : (tensor<2x4xf32>, tensor<3x4xf32>) -> tensor<2x7xf32>
  func.return
}

// -----

// CHECK: expected at least one weight name
func.func @f() {
  %0 = einsum.weight [] : tensor<2x4xf32>
  func.return
}

// -----

// CHECK: (0, 2) is not a permutation of rank 2
func.func @f() {
  %0 = einsum.weight ["w"] {permutation = array<i64: 0, 2>} : tensor<2x4xf32>
  func.return
}

// -----

// CHECK: expected a path of 2 steps, got 1
func.func @f(%x: tensor<?x4xf32>, %a: tensor<2x4xf32>, %b: tensor<5x2xf32>) {
  %0 = einsum.contract "ti,ri,or->to" %x, %a, %b {path = #einsum.path<(0, 1)>} : (tensor<?x4xf32>, tensor<2x4xf32>, tensor<5x2xf32>) -> tensor<?x5xf32>
  func.return
}

// -----

// CHECK: step (0, 2) contracts what is not in [2, 3]
func.func @f(%x: tensor<?x4xf32>, %a: tensor<2x4xf32>, %b: tensor<5x2xf32>) {
  %0 = einsum.contract "ti,ri,or->to" %x, %a, %b {path = #einsum.path<(0, 1), (0, 2)>} : (tensor<?x4xf32>, tensor<2x4xf32>, tensor<5x2xf32>) -> tensor<?x5xf32>
  func.return
}
