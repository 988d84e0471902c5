// RUN: heatc-opt %s -p raise-activations --split-input-file | filecheck %s

// GELU as BERT's new form has it, in its own order of products.

// CHECK-LABEL: func.func @gelu_new(%x: tensor<2x8xf32>) -> tensor<2x8xf32> {
// CHECK-NEXT:    %0 = nn.gelu %x {approximate = "tanh"} : (tensor<2x8xf32>) -> tensor<2x8xf32>
// CHECK-NEXT:    func.return %0 : tensor<2x8xf32>
// CHECK-NEXT:    }
func.func @gelu_new(%x: tensor<2x8xf32>) -> tensor<2x8xf32> {
  %h = nn.full {value = 0.5 : f64} : tensor<f32>
  %c = nn.full {value = 4.471500e-02 : f64} : tensor<f32>
  %r = nn.full {value = 0.79788456080286541 : f64} : tensor<f32>
  %o = nn.full {value = 1.0 : f64} : tensor<f32>
  %0 = nn.mul %x, %h : (tensor<2x8xf32>, tensor<f32>) -> tensor<2x8xf32>
  %1 = nn.mul %x, %x : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  %2 = nn.mul %1, %x : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  %3 = nn.mul %2, %c : (tensor<2x8xf32>, tensor<f32>) -> tensor<2x8xf32>
  %4 = nn.add %x, %3 : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  %5 = nn.mul %4, %r : (tensor<2x8xf32>, tensor<f32>) -> tensor<2x8xf32>
  %6 = nn.tanh %5 : (tensor<2x8xf32>) -> tensor<2x8xf32>
  %7 = nn.add %6, %o : (tensor<2x8xf32>, tensor<f32>) -> tensor<2x8xf32>
  %8 = nn.mul %0, %7 : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  func.return %8 : tensor<2x8xf32>
}

// -----

// By erf and a quotient; by a sigmoid, of 1.702 x and of x.

// CHECK-LABEL: func.func @others(%x: tensor<2x8xf32>) -> (tensor<2x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>) {
// CHECK-NEXT:    %0 = nn.gelu %x {approximate = "none"} : (tensor<2x8xf32>) -> tensor<2x8xf32>
// CHECK-NEXT:    %1 = nn.gelu %x {approximate = "quick"} : (tensor<2x8xf32>) -> tensor<2x8xf32>
// CHECK-NEXT:    %2 = nn.map %x {function = "silu"} : (tensor<2x8xf32>) -> tensor<2x8xf32>
// CHECK-NEXT:    func.return %0, %1, %2 : tensor<2x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>
// CHECK-NEXT:    }
func.func @others(%x: tensor<2x8xf32>) -> (tensor<2x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>) {
  %h = nn.full {value = 0.5 : f64} : tensor<f32>
  %r = nn.full {value = 1.4142135623730951 : f64} : tensor<f32>
  %o = nn.full {value = 1.0 : f64} : tensor<f32>
  %q = nn.full {value = 1.702 : f64} : tensor<f32>
  %0 = nn.div %x, %r : (tensor<2x8xf32>, tensor<f32>) -> tensor<2x8xf32>
  %1 = nn.map %0 {function = "erf"} : (tensor<2x8xf32>) -> tensor<2x8xf32>
  %2 = nn.add %1, %o : (tensor<2x8xf32>, tensor<f32>) -> tensor<2x8xf32>
  %3 = nn.mul %x, %2 : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  %4 = nn.mul %3, %h : (tensor<2x8xf32>, tensor<f32>) -> tensor<2x8xf32>
  %5 = nn.mul %x, %q : (tensor<2x8xf32>, tensor<f32>) -> tensor<2x8xf32>
  %6 = nn.map %5 {function = "sigmoid"} : (tensor<2x8xf32>) -> tensor<2x8xf32>
  %7 = nn.mul %6, %x : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  %8 = nn.map %x {function = "sigmoid"} : (tensor<2x8xf32>) -> tensor<2x8xf32>
  %9 = nn.mul %x, %8 : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  func.return %4, %7, %9 : tensor<2x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>
}

// -----

// A gate by another value, and another factor, are no activation.

// CHECK-LABEL: func.func @none(%x: tensor<2x8xf32>, %y: tensor<2x8xf32>) -> (tensor<2x8xf32>, tensor<2x8xf32>) {
// CHECK-NEXT:    %q = nn.full {value = 1.600000e+00 : f64} : tensor<f32>
// CHECK-NEXT:    %0 = nn.map %x {function = "sigmoid"} : (tensor<2x8xf32>) -> tensor<2x8xf32>
// CHECK-NEXT:    %1 = nn.mul %y, %0 : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
// CHECK-NEXT:    %2 = nn.mul %x, %q : (tensor<2x8xf32>, tensor<f32>) -> tensor<2x8xf32>
// CHECK-NEXT:    %3 = nn.map %2 {function = "sigmoid"} : (tensor<2x8xf32>) -> tensor<2x8xf32>
// CHECK-NEXT:    %4 = nn.mul %x, %3 : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
// CHECK-NEXT:    func.return %1, %4 : tensor<2x8xf32>, tensor<2x8xf32>
// CHECK-NEXT:    }
func.func @none(%x: tensor<2x8xf32>, %y: tensor<2x8xf32>) -> (tensor<2x8xf32>, tensor<2x8xf32>) {
  %q = nn.full {value = 1.6 : f64} : tensor<f32>
  %0 = nn.map %x {function = "sigmoid"} : (tensor<2x8xf32>) -> tensor<2x8xf32>
  %1 = nn.mul %y, %0 : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  %2 = nn.mul %x, %q : (tensor<2x8xf32>, tensor<f32>) -> tensor<2x8xf32>
  %3 = nn.map %2 {function = "sigmoid"} : (tensor<2x8xf32>) -> tensor<2x8xf32>
  %4 = nn.mul %x, %3 : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  func.return %1, %4 : tensor<2x8xf32>, tensor<2x8xf32>
}

// -----

// T5's norm, and one without a weight by a sum and a quotient. A mean over another axis is none.

// CHECK-LABEL: func.func @rms(%x: tensor<2x8xf32>, %y: tensor<8x8xf32>) -> (tensor<2x8xf32>, tensor<2x8xf32>, tensor<8x8xf32>) {
// CHECK-NEXT:    %w = einsum.weight ["w"] : tensor<8xf32>
// CHECK-NEXT:    %0 = nn.rms_norm %x, %w {eps = 1.000000e-06 : f64} : (tensor<2x8xf32>, tensor<8xf32>) -> tensor<2x8xf32>
// CHECK-NEXT:    %1 = nn.full {value = 1.000000e+00 : f64} : tensor<8xf32>
// CHECK-NEXT:    %2 = nn.rms_norm %x, %1 {eps = 0.000000e+00 : f64} : (tensor<2x8xf32>, tensor<8xf32>) -> tensor<2x8xf32>
// CHECK-NEXT:    %3 = nn.mul %y, %y : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
// CHECK-NEXT:    %4 = nn.reduce %3 {kind = "mean", axes = array<i64: 0>} : (tensor<8x8xf32>) -> tensor<8xf32>
// CHECK-NEXT:    %5 = nn.reshape %4 : (tensor<8xf32>) -> tensor<8x1xf32>
// CHECK-NEXT:    %6 = nn.map %5 {function = "sqrt"} : (tensor<8x1xf32>) -> tensor<8x1xf32>
// CHECK-NEXT:    %7 = nn.div %y, %6 : (tensor<8x8xf32>, tensor<8x1xf32>) -> tensor<8x8xf32>
// CHECK-NEXT:    func.return %0, %2, %7 : tensor<2x8xf32>, tensor<2x8xf32>, tensor<8x8xf32>
// CHECK-NEXT:    }
func.func @rms(%x: tensor<2x8xf32>, %y: tensor<8x8xf32>) -> (tensor<2x8xf32>, tensor<2x8xf32>, tensor<8x8xf32>) {
  %w = einsum.weight ["w"] : tensor<8xf32>
  %e = nn.full {value = 1.0e-06 : f64} : tensor<f32>
  %n = nn.full {value = 8.0 : f64} : tensor<f32>
  %0 = nn.mul %x, %x : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  %1 = nn.reduce %0 {kind = "mean", axes = array<i64: 1>} : (tensor<2x8xf32>) -> tensor<2xf32>
  %2 = nn.reshape %1 : (tensor<2xf32>) -> tensor<2x1xf32>
  %3 = nn.add %2, %e : (tensor<2x1xf32>, tensor<f32>) -> tensor<2x1xf32>
  %4 = nn.map %3 {function = "rsqrt"} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %5 = nn.mul %x, %4 : (tensor<2x8xf32>, tensor<2x1xf32>) -> tensor<2x8xf32>
  %6 = nn.mul %w, %5 : (tensor<8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  %7 = nn.reduce %0 {kind = "sum", axes = array<i64: 1>} : (tensor<2x8xf32>) -> tensor<2xf32>
  %8 = nn.reshape %7 : (tensor<2xf32>) -> tensor<2x1xf32>
  %9 = nn.div %8, %n : (tensor<2x1xf32>, tensor<f32>) -> tensor<2x1xf32>
  %10 = nn.map %9 {function = "sqrt"} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %11 = nn.div %x, %10 : (tensor<2x8xf32>, tensor<2x1xf32>) -> tensor<2x8xf32>
  %12 = nn.mul %y, %y : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
  %13 = nn.reduce %12 {kind = "mean", axes = array<i64: 0>} : (tensor<8x8xf32>) -> tensor<8xf32>
  %14 = nn.reshape %13 : (tensor<8xf32>) -> tensor<8x1xf32>
  %15 = nn.map %14 {function = "sqrt"} : (tensor<8x1xf32>) -> tensor<8x1xf32>
  %16 = nn.div %y, %15 : (tensor<8x8xf32>, tensor<8x1xf32>) -> tensor<8x8xf32>
  func.return %6, %11, %16 : tensor<2x8xf32>, tensor<2x8xf32>, tensor<8x8xf32>
}

// -----

// Layer norm with the weight before the quotient.

// CHECK-LABEL: func.func @layer_norm(%x: tensor<2x8xf32>) -> tensor<2x8xf32> {
// CHECK-NEXT:    %w = einsum.weight ["w"] : tensor<8xf32>
// CHECK-NEXT:    %b = einsum.weight ["b"] : tensor<8xf32>
// CHECK-NEXT:    %0 = nn.layer_norm %x, %w, %b {eps = 1.000000e-05 : f64} : (tensor<2x8xf32>, tensor<8xf32>, tensor<8xf32>) -> tensor<2x8xf32>
// CHECK-NEXT:    func.return %0 : tensor<2x8xf32>
// CHECK-NEXT:    }
func.func @layer_norm(%x: tensor<2x8xf32>) -> tensor<2x8xf32> {
  %w = einsum.weight ["w"] : tensor<8xf32>
  %b = einsum.weight ["b"] : tensor<8xf32>
  %e = nn.full {value = 1.0e-05 : f64} : tensor<f32>
  %0 = nn.reduce %x {kind = "mean", axes = array<i64: 1>} : (tensor<2x8xf32>) -> tensor<2xf32>
  %1 = nn.reshape %0 : (tensor<2xf32>) -> tensor<2x1xf32>
  %2 = nn.sub %x, %1 : (tensor<2x8xf32>, tensor<2x1xf32>) -> tensor<2x8xf32>
  %3 = nn.mul %2, %2 : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  %4 = nn.reduce %3 {kind = "mean", axes = array<i64: 1>} : (tensor<2x8xf32>) -> tensor<2xf32>
  %5 = nn.reshape %4 : (tensor<2xf32>) -> tensor<2x1xf32>
  %6 = nn.add %5, %e : (tensor<2x1xf32>, tensor<f32>) -> tensor<2x1xf32>
  %7 = nn.map %6 {function = "sqrt"} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %8 = nn.mul %w, %2 : (tensor<8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  %9 = nn.div %8, %7 : (tensor<2x8xf32>, tensor<2x1xf32>) -> tensor<2x8xf32>
  %10 = nn.add %9, %b : (tensor<2x8xf32>, tensor<8xf32>) -> tensor<2x8xf32>
  func.return %10 : tensor<2x8xf32>
}
