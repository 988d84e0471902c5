// RUN: %roundtrip

// Every op of `fixed` and its type print what they parse, in the custom and in the generic form.

// CHECK-LABEL: func.func @points
func.func @points(%x: tensor<?x4xf64>) {
  // CHECK: %0 = fixed.quantize %x : tensor<?x4xf64> to tensor<?x4x!fixed.q<48, 25>>
  %0 = fixed.quantize %x : tensor<?x4xf64> to tensor<?x4x!fixed.q<48, 25>>
  // CHECK: %1 = fixed.requantize %0 : tensor<?x4x!fixed.q<48, 25>> to tensor<?x4x!fixed.q<16, -3>>
  %1 = fixed.requantize %0 : tensor<?x4x!fixed.q<48, 25>> to tensor<?x4x!fixed.q<16, -3>>
  // CHECK: %2 = fixed.dequantize %1 : tensor<?x4x!fixed.q<16, -3>> to tensor<?x4xf64>
  %2 = fixed.dequantize %1 : tensor<?x4x!fixed.q<16, -3>> to tensor<?x4xf64>
  func.return
}
