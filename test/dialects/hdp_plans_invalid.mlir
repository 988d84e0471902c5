// RUN: heatc-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// CHECK: slots 0 of hdp.left_plan is below 1
func.func @slots(%x: tensor<4x!fixed.q<48, 20>>) {
  %0 = fixed.requantize %x {plan = #hdp.left_plan<rows = 32, slots = 0, cores = 8>} : tensor<4x!fixed.q<48, 20>> to tensor<4x!fixed.q<16, 9>>
  func.return
}

// -----

// CHECK: hdp.left_plan needs cores
func.func @missing(%x: tensor<4x!fixed.q<48, 20>>) {
  %0 = fixed.requantize %x {plan = #hdp.left_plan<rows = 32, slots = 2>} : tensor<4x!fixed.q<48, 20>> to tensor<4x!fixed.q<16, 9>>
  func.return
}

// -----

// CHECK: 'depth' is no field of hdp.left_plan, or given twice
func.func @unknown(%x: tensor<4x!fixed.q<48, 20>>) {
  %0 = fixed.requantize %x {plan = #hdp.left_plan<rows = 32, depth = 2, cores = 8>} : tensor<4x!fixed.q<48, 20>> to tensor<4x!fixed.q<16, 9>>
  func.return
}
