// RUN: %roundtrip

// Plans are attributes of the ops that instructions are emitted for; usual values are left out.

// CHECK-LABEL: func.func @plans
func.func @plans(%x: tensor<?x4x!fixed.q<48, 25>>) {
  // CHECK: {plan = #hdp.linear_plan<rows = 128, columns = 48, slab = 77, slots = 2, cores = 8>}
  %0 = fixed.requantize %x {plan = #hdp.linear_plan<rows = 128, columns = 48, slab = 77, slots = 2, cores = 8>} : tensor<?x4x!fixed.q<48, 25>> to tensor<?x4x!fixed.q<16, 9>>
  // CHECK: {plan = #hdp.linear_plan<rows = 32, columns = 16, slab = 192, slots = 1, cores = 8, parts = 4, panels = 2, tokens = 32, held>}
  %1 = fixed.requantize %x {plan = #hdp.linear_plan<slots = 1, held, rows = 32, columns = 16, slab = 192, cores = 8, parts = 4, panels = 2, tokens = 32>} : tensor<?x4x!fixed.q<48, 25>> to tensor<?x4x!fixed.q<16, 9>>
  // CHECK: {plan = #hdp.left_plan<rows = 32, slots = 2, cores = 8, tokens = 16>}
  %2 = fixed.requantize %x {plan = #hdp.left_plan<rows = 32, slots = 2, cores = 8, tokens = 16>} : tensor<?x4x!fixed.q<48, 25>> to tensor<?x4x!fixed.q<16, 9>>
  // CHECK: {plan = #hdp.attention_plan<length = 128, cores = 8, parts = 8, rows = 16, keys = 128, slots = 2, shared, summed>}
  %3 = fixed.requantize %x {plan = #hdp.attention_plan<length = 128, cores = 8, parts = 8, rows = 16, keys = 128, slots = 2, shared, summed>} : tensor<?x4x!fixed.q<48, 25>> to tensor<?x4x!fixed.q<16, 9>>
  func.return
}
