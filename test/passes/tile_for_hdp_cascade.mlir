// RUN: heatc-opt %s -p tile-for-hdp | filecheck %s

// Cascaded head pruning: the first layer leaves the sums of its heads, the second one takes three
// of the four and adds to theirs, the third takes one. Sums are at the point of the finest output.

func.func @main(%mask: tensor<2x6xi64>, %x: tensor<?x8x!fixed.q<16, 10>>, %y: tensor<?x8x!fixed.q<16, 12>>) -> tensor<?x8x!fixed.q<16, 12>> {
  %p = attn.packing %mask : (tensor<2x6xi64>) -> !attn.packing<2, 6>
  %o, %i = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>) -> (tensor<?x8x!fixed.q<16, 10>>, tensor<2x4xf64>) attributes {rule = #attn.rule<"spatten", {}>, plan = #hdp.attention_plan<length = 128, cores = 8, parts = 2, rows = 16, keys = 128, slots = 2>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %o_1 = attn.weighted_values %q, %x_1, %p_1 {heads = 4 : i64} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<?x8x!fixed.q<16, 10>>
    %i_1 = attn.head_importance %o_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4xf64>
    attn.yield %o_1, %i_1 : tensor<?x8x!fixed.q<16, 10>>, tensor<2x4xf64>
  }
  %o1, %g, %i1 = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %i_1 = %i : tensor<2x4xf64>, %y_1 = %y : tensor<?x8x!fixed.q<16, 12>>) -> (tensor<?x8x!fixed.q<16, 12>>, tensor<2x4xi1>, tensor<2x4xf64>) attributes {rule = #attn.rule<"spatten", {}>, plan = #hdp.attention_plan<length = 128, cores = 8, parts = 8, rows = 16, keys = 128, slots = 2, shared>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %g_1 = attn.head_ranking %i_1 {keep = 3 : i64} : (tensor<2x4xf64>) -> tensor<2x4xi1>
    %o1_1 = attn.weighted_values %q, %y_1, %p_1, %g_1 {heads = 4 : i64, gated = "zero"} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xi1>) -> tensor<?x8x!fixed.q<16, 12>>
    %i1_1 = attn.head_importance %o1_1, %p_1, %i_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xf64>) -> tensor<2x4xf64>
    attn.yield %o1_1, %g_1, %i1_1 : tensor<?x8x!fixed.q<16, 12>>, tensor<2x4xi1>, tensor<2x4xf64>
  }
  %o2 = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %i1_1 = %i1 : tensor<2x4xf64>, %g_1 = %g : tensor<2x4xi1>, %y_1 = %y : tensor<?x8x!fixed.q<16, 12>>) -> (tensor<?x8x!fixed.q<16, 12>>) attributes {rule = #attn.rule<"spatten", {}>, plan = #hdp.attention_plan<length = 128, cores = 8, parts = 8, rows = 16, keys = 128, slots = 1>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %g1 = attn.head_ranking %i1_1, %g_1 {keep = 1 : i64} : (tensor<2x4xf64>, tensor<2x4xi1>) -> tensor<2x4xi1>
    %o2_1 = attn.weighted_values %q, %y_1, %p_1, %g1 {heads = 4 : i64, gated = "zero"} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xi1>) -> tensor<?x8x!fixed.q<16, 12>>
    attn.yield %o2_1 : tensor<?x8x!fixed.q<16, 12>>
  }
  func.return %o2 : tensor<?x8x!fixed.q<16, 12>>
}

// CHECK-LABEL: func.func @main
// CHECK: %o_importance = hdp.tensor "o.importance" activation dram i64 [2, 4] {point = 12 : i64}
// CHECK: scf.for [[SEQUENCE:%[0-9]+]] = %c0 to %batch step %c1 {
// CHECK: [[LEFT:%[0-9]+]] = hdp.window %o_importance, [[SEQUENCE]], %c1
// CHECK-NOT: hdp.cascade
// CHECK: scf.for [[HEAD:%[0-9]+]] = %c0 to %c4
// CHECK-NEXT: hdp.heads [[HEAD]], stride = 1, limit = 4
// CHECK: hdp.drain [[O:%o_[0-9]+]]
// CHECK-NEXT: hdp.magnitude %head_sum, [[O]], [[ROW:%[0-9]+]] : index
// CHECK-NEXT: hdp.st %o_rows, [[O]], [[ROW]]
// CHECK: hdp.tally %head_total, %head_sum, %head_total, [[HEAD]], first = 1, shift = 2 : index
// CHECK-NEXT: hdp.strow [[LEFT]], %head_total, %c0, [[HEAD]], core_cols = 1

// CHECK: %o1_importance = hdp.tensor "o1.importance" activation dram i64 [2, 4] {point = 12 : i64}
// CHECK: hdp.all
// CHECK: [[SUMS:%heads_sums[_0-9]*]] = hdp.tile "heads.sums" local i64 32
// CHECK: [[NEW:%[0-9]+]] = hdp.window %o1_importance,
// CHECK-NEXT: [[OLD:%[0-9]+]] = hdp.window %o_importance,
// CHECK-NEXT: hdp.ld [[SUMS]], [[OLD]], %c0, %c0, rows = 1, cols = 4, core_rows = 0, core_cols = 0
// CHECK-NEXT: hdp.cascade [[SUMS]], keep = 3 {attention = "o1"}
// CHECK-NEXT: hdp.st [[NEW]], [[SUMS]], %c0, %c0, core_rows = 0, core_cols = 0, leave = 0
// CHECK-NEXT: scf.for [[OFFSET:%[0-9]+]] = %c0 to %c1 step %c1 iter_args([[COLUMN:%[0-9]+]] = %c6)
// CHECK-NEXT: [[PLACE:%[0-9]+]] = arith.addi [[OFFSET]], %c3
// CHECK-NEXT: hdp.heads [[PLACE]], stride = 1, limit = 4
// CHECK-NEXT: hdp.stzero {{%o_rows_[0-9]+}}, %c0, [[COLUMN]], cols = 2, core_cols = 2
// CHECK: hdp.heads %c0, stride = 1, limit = 3
// CHECK: hdp.tally {{%[a-z_0-9]+}}, {{%[a-z_0-9]+}}, [[SUMS]], {{%[a-z_0-9]+}}, first = 0, shift = 0

// CHECK: hdp.cascade [[LAST:%heads_sums[_0-9]*]], keep = 1 {attention = "o2"}
// CHECK-NOT: hdp.magnitude
// CHECK: hdp.halt
