// RUN: heatc-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// CHECK: shapes {{.*}} do not broadcast
func.func @f(%a: tensor<2x4xf32>, %b: tensor<3xf32>) {
  %0 = nn.add %a, %b : (tensor<2x4xf32>, tensor<3xf32>) -> tensor<2x4xf32>
  func.return
}

// -----

// CHECK: expected result shape (2, 4), got (4,)
func.func @f(%a: tensor<2x4xf32>, %b: tensor<4xf32>) {
  %0 = nn.mul %a, %b : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<4xf32>
  func.return
}

// -----

// CHECK: expected result shape (2, 4), got (4, 2)
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.tanh %a : (tensor<2x4xf32>) -> tensor<4x2xf32>
  func.return
}

// -----

// CHECK: unknown predicate 'near'
func.func @f(%a: tensor<4xf32>, %b: tensor<4xf32>) {
  %0 = nn.compare %a, %b {predicate = "near"} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>
  func.return
}

// -----

// CHECK: unknown approximation 'sigmoid', expected one of ('none', 'tanh', 'quick')
func.func @f(%a: tensor<4xf32>) {
  %0 = nn.gelu %a {approximate = "sigmoid"} : (tensor<4xf32>) -> tensor<4xf32>
  func.return
}

// -----

// CHECK: dim 2 is out of range for rank 2
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.softmax %a {dim = 2 : i64} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return
}

// -----

// CHECK: expected result shape (2, 4), got (2, 1)
func.func @f(%a: tensor<2x1xi1>, %b: tensor<2x4xf32>, %c: tensor<1xf32>) {
  %0 = nn.where %a, %b, %c : (tensor<2x1xi1>, tensor<2x4xf32>, tensor<1xf32>) -> tensor<2x1xf32>
  func.return
}

// -----

// CHECK: expected table rank 2, got 3
func.func @f(%a: tensor<1x10x4xf32>, %b: tensor<3xi64>) {
  %0 = nn.embedding %a, %b : (tensor<1x10x4xf32>, tensor<3xi64>) -> tensor<3x4xf32>
  func.return
}

// -----

// CHECK: expected result shape (3, 4), got (3, 10)
func.func @f(%a: tensor<10x4xf32>, %b: tensor<3xi64>) {
  %0 = nn.embedding %a, %b : (tensor<10x4xf32>, tensor<3xi64>) -> tensor<3x10xf32>
  func.return
}

// -----

// CHECK: expected weight rank 2, got 1
func.func @f(%a: tensor<3x4xf32>, %b: tensor<4xf32>) {
  %0 = nn.linear %a, %b : (tensor<3x4xf32>, tensor<4xf32>) -> tensor<3x1xf32>
  func.return
}

// -----

// CHECK: expected input extent 5, got 4
func.func @f(%a: tensor<3x4xf32>, %b: tensor<2x5xf32>) {
  %0 = nn.linear %a, %b : (tensor<3x4xf32>, tensor<2x5xf32>) -> tensor<3x2xf32>
  func.return
}

// -----

// CHECK: expected bias shape (2,), got (3,)
func.func @f(%a: tensor<3x4xf32>, %b: tensor<2x4xf32>, %c: tensor<3xf32>) {
  %0 = nn.linear %a, %b, %c : (tensor<3x4xf32>, tensor<2x4xf32>, tensor<3xf32>) -> tensor<3x2xf32>
  func.return
}

// -----

// CHECK: expected operands of rank 2 or more, got (4,) and (4, 2)
func.func @f(%a: tensor<4xf32>, %b: tensor<4x2xf32>) {
  %0 = nn.matmul %a, %b : (tensor<4xf32>, tensor<4x2xf32>) -> tensor<2xf32>
  func.return
}

// -----

// CHECK: expected contracted extent 4, got 5
func.func @f(%a: tensor<3x4xf32>, %b: tensor<5x2xf32>) {
  %0 = nn.matmul %a, %b : (tensor<3x4xf32>, tensor<5x2xf32>) -> tensor<3x2xf32>
  func.return
}

// -----

// CHECK: expected key extent 4, got 5
func.func @f(%a: tensor<3x4xf32>, %b: tensor<6x5xf32>, %c: tensor<6x4xf32>) {
  %0 = nn.sdpa %a, %b, %c {scale = 0.5 : f64, is_causal = false} : (tensor<3x4xf32>, tensor<6x5xf32>, tensor<6x4xf32>) -> tensor<3x4xf32>
  func.return
}

// -----

// CHECK: expected number of values 6, got 7
func.func @f(%a: tensor<3x4xf32>, %b: tensor<6x4xf32>, %c: tensor<7x4xf32>) {
  %0 = nn.sdpa %a, %b, %c {scale = 0.5 : f64, is_causal = false} : (tensor<3x4xf32>, tensor<6x4xf32>, tensor<7x4xf32>) -> tensor<3x4xf32>
  func.return
}

// -----

// CHECK: shapes {{.*}} do not broadcast
func.func @f(%a: tensor<3x4xf32>, %b: tensor<6x4xf32>, %c: tensor<6x4xf32>, %d: tensor<5xf32>) {
  %0 = nn.sdpa %a, %b, %c, %d {scale = 0.5 : f64, is_causal = false} : (tensor<3x4xf32>, tensor<6x4xf32>, tensor<6x4xf32>, tensor<5xf32>) -> tensor<3x4xf32>
  func.return
}

// -----

// CHECK: expected weight shape (4,), got (3,)
func.func @f(%a: tensor<2x4xf32>, %b: tensor<3xf32>, %c: tensor<4xf32>) {
  %0 = nn.layer_norm %a, %b, %c {eps = 1.0e-5 : f64} : (tensor<2x4xf32>, tensor<3xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  func.return
}

// -----

// CHECK: expected bias shape (4,), got (3,)
func.func @f(%a: tensor<2x4xf32>, %b: tensor<4xf32>, %c: tensor<3xf32>) {
  %0 = nn.layer_norm %a, %b, %c {eps = 1.0e-5 : f64} : (tensor<2x4xf32>, tensor<4xf32>, tensor<3xf32>) -> tensor<2x4xf32>
  func.return
}

// -----

// CHECK: dropped axis 0 is none of extent 1 of (2, 1)
func.func @f(%a: tensor<2x1xf32>) {
  %0 = nn.reshape %a {dropped = 0 : i64} : (tensor<2x1xf32>) -> tensor<2xf32>
  func.return
}

// -----

// CHECK: expected result shape (1, 2), got (2, 1)
func.func @f(%a: tensor<1x1x2xf32>) {
  %0 = nn.reshape %a {dropped = 0 : i64} : (tensor<1x1x2xf32>) -> tensor<2x1xf32>
  func.return
}

// -----

// CHECK: expected number of elements 8, got 6
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.reshape %a : (tensor<2x4xf32>) -> tensor<6xf32>
  func.return
}

// -----

// CHECK: (0, 0) is not a permutation of rank 2
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.transpose %a {permutation = array<i64: 0, 0>} : (tensor<2x4xf32>) -> tensor<2x2xf32>
  func.return
}

// -----

// CHECK: expected result shape (4, 2), got (2, 4)
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.transpose %a {permutation = array<i64: 1, 0>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return
}

// -----

// CHECK: expected result shape (3, 4), got (1, 4)
func.func @f(%a: tensor<3x4xf32>) {
  %0 = nn.expand %a : (tensor<3x4xf32>) -> tensor<1x4xf32>
  func.return
}

// -----

// CHECK: starts, steps and result do not have rank 2
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.slice %a {starts = array<i64: 0>, steps = array<i64: 1, 1>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return
}

// -----

// CHECK: slice start 2, size 2, step 2 leaves axis 1 of extent 4
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.slice %a {starts = array<i64: 0, 2>, steps = array<i64: 1, 2>} : (tensor<2x4xf32>) -> tensor<2x2xf32>
  func.return
}

// -----

// CHECK: got 2 indices for rank 1
func.func @f(%a: tensor<4xf32>, %b: tensor<3xi64>) {
  %0 = nn.index %a, %b, %b : (tensor<4xf32>, tensor<3xi64>, tensor<3xi64>) -> tensor<3xf32>
  func.return
}

// -----

// CHECK: expected result shape (3, 5), got (3,)
func.func @f(%a: tensor<4x5xf32>, %b: tensor<3xi64>) {
  %0 = nn.index %a, %b : (tensor<4x5xf32>, tensor<3xi64>) -> tensor<3xf32>
  func.return
}

// -----

// CHECK: dim 2 is out of range for rank 2
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.concat %a, %a {dim = 2 : i64} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x8xf32>
  func.return
}

// -----

// CHECK: expected result shape (4, 4), got (2, 8)
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.concat %a, %a {dim = 0 : i64} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x8xf32>
  func.return
}

// -----

// CHECK: expected at least one operand
func.func @f() {
  %0 = "nn.concat"() <{dim = 0 : i64}> : () -> tensor<2xf32>
  func.return
}

// -----

// CHECK: expected rank 1, got 2
func.func @f() {
  %0 = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<2x2xi64>
  func.return
}

// -----

// CHECK: unknown function 'cosh'
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.map %a {function = "cosh"} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return
}

// -----

// CHECK: unknown reduction 'median'
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.reduce %a {kind = "median", axes = array<i64: 1>} : (tensor<2x4xf32>) -> tensor<2xf32>
  func.return
}

// -----

// CHECK: axis 2 is out of range for rank 2
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.reduce %a {kind = "sum", axes = array<i64: 2>} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return
}

// -----

// CHECK: axes (1, 0) do not ascend
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.reduce %a {kind = "sum", axes = array<i64: 1, 0>} : (tensor<2x4xf32>) -> tensor<f32>
  func.return
}

// -----

// CHECK: expected result shape (2,), got (4,)
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.reduce %a {kind = "sum", axes = array<i64: 1>} : (tensor<2x4xf32>) -> tensor<4xf32>
  func.return
}

// -----

// CHECK: expected result shape (4,), got (2,)
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.argmax %a {axis = 0 : i64} : (tensor<2x4xf32>) -> tensor<2xi64>
  func.return
}

// -----

// CHECK: expected element type of the result i64, got f32
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.argmax %a {axis = 0 : i64} : (tensor<2x4xf32>) -> tensor<4xf32>
  func.return
}

// -----

// CHECK: axis 2 is out of range for rank 2
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.cumsum %a {axis = 2 : i64} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return
}

// -----

// CHECK: expected weight shape (4,), got (2, 4)
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.rms_norm %a, %a {eps = 1.0e-6 : f64} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return
}

// -----

// CHECK: expected result shape (2, 4), got (4,)
func.func @f(%a: tensor<2x4xf32>) {
  %0 = nn.maximum %a, %a : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<4xf32>
  func.return
}
