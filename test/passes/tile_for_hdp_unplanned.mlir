// RUN: heatc-opt %s --split-input-file --verify-diagnostics -p tile-for-hdp | filecheck %s

// CHECK: fixed.requantize has no hdp.linear_plan: run plan-tiles first
func.func @main(%mask: tensor<1x8xi64>, %x: tensor<?x4x!fixed.q<16, 11>>) -> tensor<?x4x!fixed.q<16, 9>> {
  %p = attn.packing %mask : (tensor<1x8xi64>) -> !attn.packing<1, 8>
  %w = einsum.weight ["w"] : tensor<4x4x!fixed.q<16, 15>>
  %0 = einsum.contract "ti,oi->to" %x, %w : (tensor<?x4x!fixed.q<16, 11>>, tensor<4x4x!fixed.q<16, 15>>) -> tensor<?x4x!fixed.q<48, 26>>
  %y = fixed.requantize %0 : tensor<?x4x!fixed.q<48, 26>> to tensor<?x4x!fixed.q<16, 9>>
  func.return %y : tensor<?x4x!fixed.q<16, 9>>
}

// -----

// CHECK: fixed.requantize has no hdp.linear_plan: run plan-tiles first
func.func @main(%mask: tensor<1x8xi64>, %x: tensor<?x4x!fixed.q<16, 11>>) -> tensor<?x4x!fixed.q<16, 9>> {
  %p = attn.packing %mask : (tensor<1x8xi64>) -> !attn.packing<1, 8>
  %w = einsum.weight ["w"] : tensor<4x4x!fixed.q<16, 15>>
  %0 = einsum.contract "ti,oi->to" %x, %w : (tensor<?x4x!fixed.q<16, 11>>, tensor<4x4x!fixed.q<16, 15>>) -> tensor<?x4x!fixed.q<48, 26>>
  %y = fixed.requantize %0 {plan = #hdp.left_plan<rows = 4, slots = 2, cores = 8>} : tensor<?x4x!fixed.q<48, 26>> to tensor<?x4x!fixed.q<16, 9>>
  func.return %y : tensor<?x4x!fixed.q<16, 9>>
}
