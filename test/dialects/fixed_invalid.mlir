// RUN: heatc-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// CHECK: width 12 is not one of (8, 16, 32, 48)
func.func @f(%a: tensor<4x!fixed.q<12, 3>>) {
  func.return
}

// -----

// CHECK: point 65 is outside -64..64
func.func @f(%a: tensor<4x!fixed.q<16, 65>>) {
  func.return
}

// -----

// CHECK: expected result shape (4,), got (5,)
func.func @f(%a: tensor<4x!fixed.q<48, 20>>) {
  %0 = fixed.requantize %a : tensor<4x!fixed.q<48, 20>> to tensor<5x!fixed.q<16, 9>>
  func.return
}

// -----

// CHECK: expected a fixed-point operand, got elements of type f32
func.func @f(%a: tensor<4xf32>) {
  %0 = fixed.requantize %a : tensor<4xf32> to tensor<4x!fixed.q<16, 9>>
  func.return
}

// -----

// CHECK: expected result shape (4,), got (5,)
func.func @quantize_shape(%a: tensor<4xf64>) {
  %0 = "fixed.quantize"(%a) : (tensor<4xf64>) -> tensor<5x!fixed.q<16, 9>>
  func.return
}

// -----

// CHECK: expected a floating-point operand, got elements of type i64
func.func @quantize_integers(%a: tensor<4xi64>) {
  %0 = "fixed.quantize"(%a) : (tensor<4xi64>) -> tensor<4x!fixed.q<16, 9>>
  func.return
}

// -----

// CHECK: expected a fixed-point operand, got elements of type f64
func.func @dequantize_floats(%a: tensor<4xf64>) {
  %0 = "fixed.dequantize"(%a) : (tensor<4xf64>) -> tensor<4xf64>
  func.return
}

// -----

// CHECK: expected a floating-point result, got elements of type i64
func.func @dequantize_to_integers(%a: tensor<4x!fixed.q<16, 9>>) {
  %0 = "fixed.dequantize"(%a) : (tensor<4x!fixed.q<16, 9>>) -> tensor<4xi64>
  func.return
}
