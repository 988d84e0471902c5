// RUN: %roundtrip

// Every op of `nn` prints what it parses, in the custom and in the generic form.

// CHECK-LABEL: func.func @elementwise
func.func @elementwise(%x: tensor<2x4xf32>, %y: tensor<4xf32>, %m: tensor<2x4xi1>) {
  // CHECK: %0 = nn.add %x, %y : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %0 = nn.add %x, %y : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // CHECK: %1 = nn.sub %x, %y : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %1 = nn.sub %x, %y : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // CHECK: %2 = nn.mul %x, %y : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %2 = nn.mul %x, %y : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // CHECK: %3 = nn.div %x, %y : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %3 = nn.div %x, %y : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // CHECK: %4 = nn.and %m, %m : (tensor<2x4xi1>, tensor<2x4xi1>) -> tensor<2x4xi1>
  %4 = nn.and %m, %m : (tensor<2x4xi1>, tensor<2x4xi1>) -> tensor<2x4xi1>
  // CHECK: %5 = nn.or %m, %m : (tensor<2x4xi1>, tensor<2x4xi1>) -> tensor<2x4xi1>
  %5 = nn.or %m, %m : (tensor<2x4xi1>, tensor<2x4xi1>) -> tensor<2x4xi1>
  // CHECK: %6 = nn.compare %x, %y {predicate = "ge"} : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xi1>
  %6 = nn.compare %x, %y {predicate = "ge"} : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xi1>
  // CHECK: %7 = nn.where %m, %x, %y : (tensor<2x4xi1>, tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %7 = nn.where %m, %x, %y : (tensor<2x4xi1>, tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  func.return
}

// CHECK-LABEL: func.func @unary
func.func @unary(%x: tensor<2x4xf32>, %m: tensor<2x4xi1>, %i: tensor<2x4xi64>) {
  // CHECK: %0 = nn.not %m : (tensor<2x4xi1>) -> tensor<2x4xi1>
  %0 = nn.not %m : (tensor<2x4xi1>) -> tensor<2x4xi1>
  // CHECK: %1 = nn.tanh %x : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %1 = nn.tanh %x : (tensor<2x4xf32>) -> tensor<2x4xf32>
  // CHECK: %2 = nn.relu %x : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %2 = nn.relu %x : (tensor<2x4xf32>) -> tensor<2x4xf32>
  // CHECK: %3 = nn.cast %i : (tensor<2x4xi64>) -> tensor<2x4xi1>
  %3 = nn.cast %i : (tensor<2x4xi64>) -> tensor<2x4xi1>
  // CHECK: %4 = nn.gelu %x {approximate = "none"} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %4 = nn.gelu %x {approximate = "none"} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  // CHECK: %5 = nn.gelu %x {approximate = "tanh"} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %5 = nn.gelu %x {approximate = "tanh"} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  // CHECK: %6 = nn.softmax %x {dim = -1 : i64} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %6 = nn.softmax %x {dim = -1 : i64} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return
}

// CHECK-LABEL: func.func @packed
func.func @packed(%x: tensor<?x4x!fixed.q<16, 9>>, %y: tensor<4x!fixed.q<16, 9>>) {
  // CHECK: %0 = nn.add %x, %y : (tensor<?x4x!fixed.q<16, 9>>, tensor<4x!fixed.q<16, 9>>) -> tensor<?x4x!fixed.q<16, 8>>
  %0 = nn.add %x, %y : (tensor<?x4x!fixed.q<16, 9>>, tensor<4x!fixed.q<16, 9>>) -> tensor<?x4x!fixed.q<16, 8>>
  // CHECK: %1 = nn.reshape %x : (tensor<?x4x!fixed.q<16, 9>>) -> tensor<?x2x2x!fixed.q<16, 9>>
  %1 = nn.reshape %x : (tensor<?x4x!fixed.q<16, 9>>) -> tensor<?x2x2x!fixed.q<16, 9>>
  func.return
}

// CHECK-LABEL: func.func @products
func.func @products(%x: tensor<1x3x4xf32>, %w: tensor<5x4xf32>, %b: tensor<5xf32>, %m: tensor<2x4x6xf32>) {
  // CHECK: %0 = nn.linear %x, %w, %b : (tensor<1x3x4xf32>, tensor<5x4xf32>, tensor<5xf32>) -> tensor<1x3x5xf32>
  %0 = nn.linear %x, %w, %b : (tensor<1x3x4xf32>, tensor<5x4xf32>, tensor<5xf32>) -> tensor<1x3x5xf32>
  // CHECK: %1 = nn.linear %x, %w : (tensor<1x3x4xf32>, tensor<5x4xf32>) -> tensor<1x3x5xf32>
  %1 = nn.linear %x, %w : (tensor<1x3x4xf32>, tensor<5x4xf32>) -> tensor<1x3x5xf32>
  // CHECK: %2 = nn.matmul %x, %m : (tensor<1x3x4xf32>, tensor<2x4x6xf32>) -> tensor<2x3x6xf32>
  %2 = nn.matmul %x, %m : (tensor<1x3x4xf32>, tensor<2x4x6xf32>) -> tensor<2x3x6xf32>
  func.return
}

// CHECK-LABEL: func.func @attention
func.func @attention(%q: tensor<1x2x3x4xf32>, %k: tensor<1x2x5x4xf32>, %v: tensor<1x2x5x6xf32>, %m: tensor<1x1x1x5xi1>) {
  // CHECK: %0 = nn.sdpa %q, %k, %v {scale = 5.000000e-01 : f64, is_causal = false} : (tensor<1x2x3x4xf32>, tensor<1x2x5x4xf32>, tensor<1x2x5x6xf32>) -> tensor<1x2x3x6xf32>
  %0 = nn.sdpa %q, %k, %v {scale = 5.000000e-01 : f64, is_causal = false} : (tensor<1x2x3x4xf32>, tensor<1x2x5x4xf32>, tensor<1x2x5x6xf32>) -> tensor<1x2x3x6xf32>
  // CHECK: %1 = nn.sdpa %q, %k, %v, %m {scale = 5.000000e-01 : f64, is_causal = false} : (tensor<1x2x3x4xf32>, tensor<1x2x5x4xf32>, tensor<1x2x5x6xf32>, tensor<1x1x1x5xi1>) -> tensor<1x2x3x6xf32>
  %1 = nn.sdpa %q, %k, %v, %m {scale = 5.000000e-01 : f64, is_causal = false} : (tensor<1x2x3x4xf32>, tensor<1x2x5x4xf32>, tensor<1x2x5x6xf32>, tensor<1x1x1x5xi1>) -> tensor<1x2x3x6xf32>
  func.return
}

// CHECK-LABEL: func.func @rows
func.func @rows(%table: tensor<10x4xf32>, %ids: tensor<2x3xi64>, %g: tensor<4xf32>) {
  // CHECK: %0 = nn.embedding %table, %ids : (tensor<10x4xf32>, tensor<2x3xi64>) -> tensor<2x3x4xf32>
  %0 = nn.embedding %table, %ids : (tensor<10x4xf32>, tensor<2x3xi64>) -> tensor<2x3x4xf32>
  // CHECK: %1 = nn.layer_norm %0, %g, %g {eps = 1.000000e-12 : f64} : (tensor<2x3x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x3x4xf32>
  %1 = nn.layer_norm %0, %g, %g {eps = 1.000000e-12 : f64} : (tensor<2x3x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x3x4xf32>
  func.return
}

// CHECK-LABEL: func.func @dropped
func.func @dropped(%x: tensor<2x1x1xf32>) {
  // CHECK: %0 = nn.reshape %x {dropped = 2 : i64} : (tensor<2x1x1xf32>) -> tensor<2x1xf32>
  %0 = nn.reshape %x {dropped = 2 : i64} : (tensor<2x1x1xf32>) -> tensor<2x1xf32>
  func.return
}

// CHECK-LABEL: func.func @shapes
func.func @shapes(%x: tensor<1x6x4xf32>, %i: tensor<3x1xi64>, %j: tensor<2xi64>) {
  // CHECK: %0 = nn.reshape %x : (tensor<1x6x4xf32>) -> tensor<1x6x2x2xf32>
  %0 = nn.reshape %x : (tensor<1x6x4xf32>) -> tensor<1x6x2x2xf32>
  // CHECK: %1 = nn.transpose %0 {permutation = array<i64: 0, 2, 1, 3>} : (tensor<1x6x2x2xf32>) -> tensor<1x2x6x2xf32>
  %1 = nn.transpose %0 {permutation = array<i64: 0, 2, 1, 3>} : (tensor<1x6x2x2xf32>) -> tensor<1x2x6x2xf32>
  // CHECK: %2 = nn.expand %x : (tensor<1x6x4xf32>) -> tensor<3x6x4xf32>
  %2 = nn.expand %x : (tensor<1x6x4xf32>) -> tensor<3x6x4xf32>
  // CHECK: %3 = nn.slice %x {starts = array<i64: 0, 1, 0>, steps = array<i64: 1, 2, 1>} : (tensor<1x6x4xf32>) -> tensor<1x3x4xf32>
  %3 = nn.slice %x {starts = array<i64: 0, 1, 0>, steps = array<i64: 1, 2, 1>} : (tensor<1x6x4xf32>) -> tensor<1x3x4xf32>
  // CHECK: %4 = nn.index %x, %i, %j : (tensor<1x6x4xf32>, tensor<3x1xi64>, tensor<2xi64>) -> tensor<3x2x4xf32>
  %4 = nn.index %x, %i, %j : (tensor<1x6x4xf32>, tensor<3x1xi64>, tensor<2xi64>) -> tensor<3x2x4xf32>
  // CHECK: %5 = nn.concat %x, %x {dim = 1 : i64} : (tensor<1x6x4xf32>, tensor<1x6x4xf32>) -> tensor<1x12x4xf32>
  %5 = nn.concat %x, %x {dim = 1 : i64} : (tensor<1x6x4xf32>, tensor<1x6x4xf32>) -> tensor<1x12x4xf32>
  func.return
}

// CHECK-LABEL: func.func @constants
func.func @constants() {
  // CHECK: %0 = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<16xi64>
  %0 = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<16xi64>
  // CHECK: %1 = nn.full {value = -1.000000e+00 : f64} : tensor<f32>
  %1 = nn.full {value = -1.000000e+00 : f64} : tensor<f32>
  func.return
}

// A value survives bit for bit, the ones without a decimal form too.
// CHECK-LABEL: func.func @exact
func.func @exact() {
  // CHECK: nn.full {value = 0.17677669529663687 : f64} : tensor<f32>
  %0 = nn.full {value = 0.17677669529663687 : f64} : tensor<f32>
  // CHECK: nn.full {value = 0xfff0000000000000 : f64} : tensor<f32>
  %1 = nn.full {value = 0xFFF0000000000000 : f64} : tensor<f32>
  func.return
}

// CHECK-LABEL: func.func @functions
func.func @functions(%x: tensor<2x4xf32>, %w: tensor<4xf32>) {
  // CHECK: %0 = nn.maximum %x, %w : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %0 = nn.maximum %x, %w : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // CHECK: %1 = nn.minimum %x, %w : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %1 = nn.minimum %x, %w : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // CHECK: %2 = nn.pow %x, %w : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %2 = nn.pow %x, %w : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // CHECK: %3 = nn.floor_div %x, %w : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %3 = nn.floor_div %x, %w : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // CHECK: %4 = nn.remainder %x, %w : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %4 = nn.remainder %x, %w : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  // CHECK: %5 = nn.map %x {function = "exp"} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %5 = nn.map %x {function = "exp"} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  // CHECK: %6 = nn.gelu %x {approximate = "quick"} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %6 = nn.gelu %x {approximate = "quick"} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  // CHECK: %7 = nn.reduce %x {axes = array<i64: 1>, kind = "mean"} : (tensor<2x4xf32>) -> tensor<2xf32>
  %7 = nn.reduce %x {axes = array<i64: 1>, kind = "mean"} : (tensor<2x4xf32>) -> tensor<2xf32>
  // CHECK: %8 = nn.reduce %x {axes = array<i64: 0, 1>, kind = "max"} : (tensor<2x4xf32>) -> tensor<f32>
  %8 = nn.reduce %x {axes = array<i64: 0, 1>, kind = "max"} : (tensor<2x4xf32>) -> tensor<f32>
  // CHECK: %9 = nn.argmax %x {axis = 1 : i64} : (tensor<2x4xf32>) -> tensor<2xi64>
  %9 = nn.argmax %x {axis = 1 : i64} : (tensor<2x4xf32>) -> tensor<2xi64>
  // CHECK: %10 = nn.cumsum %x {axis = 1 : i64} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %10 = nn.cumsum %x {axis = 1 : i64} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  // CHECK: %11 = nn.rms_norm %x, %w {eps = 1.000000e-06 : f64} : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %11 = nn.rms_norm %x, %w {eps = 1.000000e-06 : f64} : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  func.return
}
