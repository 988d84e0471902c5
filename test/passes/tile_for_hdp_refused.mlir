// RUN: heatc-opt %s --split-input-file --verify-diagnostics -p plan-tiles,tile-for-hdp --hw hdp-edge | filecheck %s

// CHECK: nn.add of an input is no part of a task of the host; run partition-host first
func.func @main(%mask: tensor<1x8xi64>, %ids: tensor<1x8xi64>) -> tensor<?x4x!fixed.q<16, 12>> {
  %p = attn.packing %mask : (tensor<1x8xi64>) -> !attn.packing<1, 8>
  %sum = nn.add %ids, %mask : (tensor<1x8xi64>, tensor<1x8xi64>) -> tensor<1x8xi64>
  %rows = attn.pack %sum, %p : (tensor<1x8xi64>, !attn.packing<1, 8>) -> tensor<?xi64>
  %table = einsum.weight ["word.weight"] : tensor<30x4xf32>
  %y = host.task (%t = %table : tensor<30x4xf32>, %i = %rows : tensor<?xi64>) -> (tensor<?x4x!fixed.q<16, 12>>) {
    %0 = nn.embedding %t, %i : (tensor<30x4xf32>, tensor<?xi64>) -> tensor<?x4xf64>
    %1 = fixed.quantize %0 : tensor<?x4xf64> to tensor<?x4x!fixed.q<16, 12>>
    host.yield %1 : tensor<?x4x!fixed.q<16, 12>>
  }
  func.return %y : tensor<?x4x!fixed.q<16, 12>>
}

// -----

// CHECK: nn.gelu is not part of the fixed level; run partition-host and assign-fixed-point first
func.func @main(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %y = nn.gelu %x {approximate = "none"} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}

// -----

// CHECK: einsum.contract 'ti,tj->ij' multiplies rows of packed tokens with each other
func.func @main(%x: tensor<?x8x!fixed.q<16, 9>>) -> tensor<8x8xf32> {
  %p = attn.packing : () -> !attn.packing<1, 4>
  %y = host.task (%a = %x : tensor<?x8x!fixed.q<16, 9>>) -> (tensor<8x8xf32>) {
    %0 = fixed.dequantize %a : tensor<?x8x!fixed.q<16, 9>> to tensor<?x8xf64>
    %1 = einsum.contract "ti,tj->ij" %0, %0 : (tensor<?x8xf64>, tensor<?x8xf64>) -> tensor<8x8xf64>
    %2 = nn.cast %1 : (tensor<8x8xf64>) -> tensor<8x8xf32>
    host.yield %2 : tensor<8x8xf32>
  }
  func.return %y : tensor<8x8xf32>
}

// -----

// CHECK: input 'input_0' is returned as it is
func.func @main(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  func.return %x : tensor<4x8xf32>
}

// -----

// CHECK: packed tokens without an attn.packing
func.func @main(%x: tensor<?x8x!fixed.q<16, 9>>) -> tensor<?x6x!fixed.q<16, 7>> {
  %w = einsum.weight ["fc.weight"] : tensor<6x8x!fixed.q<16, 15>>
  %0 = einsum.contract "ti,oi->to" %x, %w : (tensor<?x8x!fixed.q<16, 9>>, tensor<6x8x!fixed.q<16, 15>>) -> tensor<?x6x!fixed.q<48, 24>>
  %y = fixed.requantize %0 : tensor<?x6x!fixed.q<48, 24>> to tensor<?x6x!fixed.q<16, 7>>
  func.return %y : tensor<?x6x!fixed.q<16, 7>>
}

// -----

// CHECK: the machine gates dense attention by attn.head_ranking only
func.func @main(%mask: tensor<2x6xi64>, %x: tensor<?x8x!fixed.q<16, 10>>, %y: tensor<?x8x!fixed.q<16, 12>>) -> tensor<?x8x!fixed.q<16, 12>> {
  %p = attn.packing %mask : (tensor<2x6xi64>) -> !attn.packing<2, 6>
  %o = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>) -> (tensor<?x8x!fixed.q<16, 10>>) attributes {rule = #attn.rule<"none", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %o_1 = attn.weighted_values %q, %x_1, %p_1 {heads = 4 : i64} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<?x8x!fixed.q<16, 10>>
    attn.yield %o_1 : tensor<?x8x!fixed.q<16, 10>>
  }
  %o1 = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %y_1 = %y : tensor<?x8x!fixed.q<16, 12>>) -> (tensor<?x8x!fixed.q<16, 12>>) attributes {rule = #attn.rule<"none", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %t = attn.block_importance %s, %p_1 {block = array<i64: 2, 2>, importance = "abs"} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x3x3xi64>
    %g = attn.head_gate %t, %p_1 {tau_h = array<f64: 5.000000e-01>, importance = "abs", block = array<i64: 2, 2>} : (tensor<2x4x3x3xi64>, !attn.packing<2, 6>) -> tensor<2x4xi1>
    %o1_1 = attn.weighted_values %q, %y_1, %p_1, %g {heads = 4 : i64, gated = "zero"} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xi1>) -> tensor<?x8x!fixed.q<16, 12>>
    attn.yield %o1_1 : tensor<?x8x!fixed.q<16, 12>>
  }
  func.return %o1 : tensor<?x8x!fixed.q<16, 12>>
}

// -----

// CHECK: heads that are ranked out give 0, not mean
func.func @main(%mask: tensor<2x6xi64>, %x: tensor<?x8x!fixed.q<16, 10>>, %y: tensor<?x8x!fixed.q<16, 12>>) -> tensor<?x8x!fixed.q<16, 12>> {
  %p = attn.packing %mask : (tensor<2x6xi64>) -> !attn.packing<2, 6>
  %o, %i = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>) -> (tensor<?x8x!fixed.q<16, 10>>, tensor<2x4xf64>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %o_1 = attn.weighted_values %q, %x_1, %p_1 {heads = 4 : i64} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<?x8x!fixed.q<16, 10>>
    %i_1 = attn.head_importance %o_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4xf64>
    attn.yield %o_1, %i_1 : tensor<?x8x!fixed.q<16, 10>>, tensor<2x4xf64>
  }
  %o1 = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %i_1 = %i : tensor<2x4xf64>, %y_1 = %y : tensor<?x8x!fixed.q<16, 12>>) -> (tensor<?x8x!fixed.q<16, 12>>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %g = attn.head_ranking %i_1 {keep = 3 : i64} : (tensor<2x4xf64>) -> tensor<2x4xi1>
    %o1_1 = attn.weighted_values %q, %y_1, %p_1, %g {heads = 4 : i64, gated = "mean"} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xi1>) -> tensor<?x8x!fixed.q<16, 12>>
    attn.yield %o1_1 : tensor<?x8x!fixed.q<16, 12>>
  }
  func.return %o1 : tensor<?x8x!fixed.q<16, 12>>
}

// -----

// CHECK: keeps no more of them than before, got keep 3
func.func @main(%mask: tensor<2x6xi64>, %x: tensor<?x8x!fixed.q<16, 10>>, %y: tensor<?x8x!fixed.q<16, 12>>) -> tensor<?x8x!fixed.q<16, 12>> {
  %p = attn.packing %mask : (tensor<2x6xi64>) -> !attn.packing<2, 6>
  %o, %i = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>) -> (tensor<?x8x!fixed.q<16, 10>>, tensor<2x4xf64>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %o_1 = attn.weighted_values %q, %x_1, %p_1 {heads = 4 : i64} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<?x8x!fixed.q<16, 10>>
    %i_1 = attn.head_importance %o_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4xf64>
    attn.yield %o_1, %i_1 : tensor<?x8x!fixed.q<16, 10>>, tensor<2x4xf64>
  }
  %o1, %g, %i1 = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %i_1 = %i : tensor<2x4xf64>, %y_1 = %y : tensor<?x8x!fixed.q<16, 12>>) -> (tensor<?x8x!fixed.q<16, 12>>, tensor<2x4xi1>, tensor<2x4xf64>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %g_1 = attn.head_ranking %i_1 {keep = 2 : i64} : (tensor<2x4xf64>) -> tensor<2x4xi1>
    %o1_1 = attn.weighted_values %q, %y_1, %p_1, %g_1 {heads = 4 : i64, gated = "zero"} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xi1>) -> tensor<?x8x!fixed.q<16, 12>>
    %i1_1 = attn.head_importance %o1_1, %p_1, %i_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xf64>) -> tensor<2x4xf64>
    attn.yield %o1_1, %g_1, %i1_1 : tensor<?x8x!fixed.q<16, 12>>, tensor<2x4xi1>, tensor<2x4xf64>
  }
  %o2 = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %i1_1 = %i1 : tensor<2x4xf64>, %g_1 = %g : tensor<2x4xi1>, %y_1 = %y : tensor<?x8x!fixed.q<16, 12>>) -> (tensor<?x8x!fixed.q<16, 12>>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %g1 = attn.head_ranking %i1_1, %g_1 {keep = 3 : i64} : (tensor<2x4xf64>, tensor<2x4xi1>) -> tensor<2x4xi1>
    %o2_1 = attn.weighted_values %q, %y_1, %p_1, %g1 {heads = 4 : i64, gated = "zero"} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xi1>) -> tensor<?x8x!fixed.q<16, 12>>
    attn.yield %o2_1 : tensor<?x8x!fixed.q<16, 12>>
  }
  func.return %o2 : tensor<?x8x!fixed.q<16, 12>>
}

// -----

// CHECK: the machine ranks heads by the sums of all layers so far only
func.func @main(%mask: tensor<2x6xi64>, %x: tensor<?x8x!fixed.q<16, 10>>, %y: tensor<?x8x!fixed.q<16, 12>>) -> tensor<?x8x!fixed.q<16, 12>> {
  %p = attn.packing %mask : (tensor<2x6xi64>) -> !attn.packing<2, 6>
  %o, %i = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>) -> (tensor<?x8x!fixed.q<16, 10>>, tensor<2x4xf64>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %o_1 = attn.weighted_values %q, %x_1, %p_1 {heads = 4 : i64} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<?x8x!fixed.q<16, 10>>
    %i_1 = attn.head_importance %o_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4xf64>
    attn.yield %o_1, %i_1 : tensor<?x8x!fixed.q<16, 10>>, tensor<2x4xf64>
  }
  %o1, %i1 = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %i_1 = %i : tensor<2x4xf64>, %y_1 = %y : tensor<?x8x!fixed.q<16, 12>>) -> (tensor<?x8x!fixed.q<16, 12>>, tensor<2x4xf64>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %g = attn.head_ranking %i_1 {keep = 2 : i64} : (tensor<2x4xf64>) -> tensor<2x4xi1>
    %o1_1 = attn.weighted_values %q, %y_1, %p_1, %g {heads = 4 : i64, gated = "zero"} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xi1>) -> tensor<?x8x!fixed.q<16, 12>>
    %i1_1 = attn.head_importance %o1_1, %p_1, %i_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xf64>) -> tensor<2x4xf64>
    attn.yield %o1_1, %i1_1 : tensor<?x8x!fixed.q<16, 12>>, tensor<2x4xf64>
  }
  %o2 = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %i1_1 = %i1 : tensor<2x4xf64>, %y_1 = %y : tensor<?x8x!fixed.q<16, 12>>) -> (tensor<?x8x!fixed.q<16, 12>>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %g1 = attn.head_ranking %i1_1 {keep = 2 : i64} : (tensor<2x4xf64>) -> tensor<2x4xi1>
    %o2_1 = attn.weighted_values %q, %y_1, %p_1, %g1 {heads = 4 : i64, gated = "zero"} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xi1>) -> tensor<?x8x!fixed.q<16, 12>>
    attn.yield %o2_1 : tensor<?x8x!fixed.q<16, 12>>
  }
  func.return %o2 : tensor<?x8x!fixed.q<16, 12>>
}

// -----

// CHECK: the machine ranks heads by the sums of all layers so far only
func.func @main(%mask: tensor<2x6xi64>, %x: tensor<?x8x!fixed.q<16, 10>>, %y: tensor<?x8x!fixed.q<16, 12>>, %i0: tensor<2x4xf64>) -> tensor<?x8x!fixed.q<16, 12>> {
  %p = attn.packing %mask : (tensor<2x6xi64>) -> !attn.packing<2, 6>
  %o = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>) -> (tensor<?x8x!fixed.q<16, 10>>) attributes {rule = #attn.rule<"none", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %o_1 = attn.weighted_values %q, %x_1, %p_1 {heads = 4 : i64} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<?x8x!fixed.q<16, 10>>
    attn.yield %o_1 : tensor<?x8x!fixed.q<16, 10>>
  }
  %o1 = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %i0_1 = %i0 : tensor<2x4xf64>, %y_1 = %y : tensor<?x8x!fixed.q<16, 12>>) -> (tensor<?x8x!fixed.q<16, 12>>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %g = attn.head_ranking %i0_1 {keep = 2 : i64} : (tensor<2x4xf64>) -> tensor<2x4xi1>
    %o1_1 = attn.weighted_values %q, %y_1, %p_1, %g {heads = 4 : i64, gated = "zero"} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xi1>) -> tensor<?x8x!fixed.q<16, 12>>
    attn.yield %o1_1 : tensor<?x8x!fixed.q<16, 12>>
  }
  func.return %o1 : tensor<?x8x!fixed.q<16, 12>>
}

// -----

// CHECK: heads are ranked by other sums than these they add to
func.func @main(%mask: tensor<2x6xi64>, %x: tensor<?x8x!fixed.q<16, 10>>, %y: tensor<?x8x!fixed.q<16, 12>>) -> tensor<?x8x!fixed.q<16, 12>> {
  %p = attn.packing %mask : (tensor<2x6xi64>) -> !attn.packing<2, 6>
  %o, %i = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>) -> (tensor<?x8x!fixed.q<16, 10>>, tensor<2x4xf64>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %o_1 = attn.weighted_values %q, %x_1, %p_1 {heads = 4 : i64} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<?x8x!fixed.q<16, 10>>
    %i_1 = attn.head_importance %o_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4xf64>
    attn.yield %o_1, %i_1 : tensor<?x8x!fixed.q<16, 10>>, tensor<2x4xf64>
  }
  %o1, %i1 = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %y_1 = %y : tensor<?x8x!fixed.q<16, 12>>, %i_1 = %i : tensor<2x4xf64>) -> (tensor<?x8x!fixed.q<16, 12>>, tensor<2x4xf64>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %o1_1 = attn.weighted_values %q, %y_1, %p_1 {heads = 4 : i64} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>) -> tensor<?x8x!fixed.q<16, 12>>
    %i1_1 = attn.head_importance %o1_1, %p_1, %i_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xf64>) -> tensor<2x4xf64>
    attn.yield %o1_1, %i1_1 : tensor<?x8x!fixed.q<16, 12>>, tensor<2x4xf64>
  }
  %o2, %g, %i2 = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %i_1 = %i : tensor<2x4xf64>, %y_1 = %y : tensor<?x8x!fixed.q<16, 12>>, %i1_1 = %i1 : tensor<2x4xf64>) -> (tensor<?x8x!fixed.q<16, 12>>, tensor<2x4xi1>, tensor<2x4xf64>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %g_1 = attn.head_ranking %i_1 {keep = 2 : i64} : (tensor<2x4xf64>) -> tensor<2x4xi1>
    %o2_1 = attn.weighted_values %q, %y_1, %p_1, %g_1 {heads = 4 : i64, gated = "zero"} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xi1>) -> tensor<?x8x!fixed.q<16, 12>>
    %i2_1 = attn.head_importance %o2_1, %p_1, %i1_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xf64>) -> tensor<2x4xf64>
    attn.yield %o2_1, %g_1, %i2_1 : tensor<?x8x!fixed.q<16, 12>>, tensor<2x4xi1>, tensor<2x4xf64>
  }
  %o3 = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %i2_1 = %i2 : tensor<2x4xf64>, %g_1 = %g : tensor<2x4xi1>, %y_1 = %y : tensor<?x8x!fixed.q<16, 12>>) -> (tensor<?x8x!fixed.q<16, 12>>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %g2 = attn.head_ranking %i2_1, %g_1 {keep = 1 : i64} : (tensor<2x4xf64>, tensor<2x4xi1>) -> tensor<2x4xi1>
    %o3_1 = attn.weighted_values %q, %y_1, %p_1, %g2 {heads = 4 : i64, gated = "zero"} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xi1>) -> tensor<?x8x!fixed.q<16, 12>>
    attn.yield %o3_1 : tensor<?x8x!fixed.q<16, 12>>
  }
  func.return %o3 : tensor<?x8x!fixed.q<16, 12>>
}

// -----

// CHECK: importance of heads of what no dense attention puts out
func.func @main(%mask: tensor<2x6xi64>, %x: tensor<?x8x!fixed.q<16, 10>>, %y: tensor<?x8x!fixed.q<16, 12>>, %i0: tensor<2x4xf64>) -> tensor<?x8x!fixed.q<16, 12>> {
  %p = attn.packing %mask : (tensor<2x6xi64>) -> !attn.packing<2, 6>
  %o, %i = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %i0_1 = %i0 : tensor<2x4xf64>) -> (tensor<?x8x!fixed.q<16, 10>>, tensor<2x4xf64>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %o_1 = attn.weighted_values %q, %x_1, %p_1 {heads = 4 : i64} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<?x8x!fixed.q<16, 10>>
    %i_1 = attn.head_importance %o_1, %p_1, %i0_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>, tensor<2x4xf64>) -> tensor<2x4xf64>
    attn.yield %o_1, %i_1 : tensor<?x8x!fixed.q<16, 10>>, tensor<2x4xf64>
  }
  %o1 = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %i_1 = %i : tensor<2x4xf64>, %y_1 = %y : tensor<?x8x!fixed.q<16, 12>>) -> (tensor<?x8x!fixed.q<16, 12>>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %g = attn.head_ranking %i_1 {keep = 2 : i64} : (tensor<2x4xf64>) -> tensor<2x4xi1>
    %o1_1 = attn.weighted_values %q, %y_1, %p_1, %g {heads = 4 : i64, gated = "zero"} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 12>>, !attn.packing<2, 6>, tensor<2x4xi1>) -> tensor<?x8x!fixed.q<16, 12>>
    attn.yield %o1_1 : tensor<?x8x!fixed.q<16, 12>>
  }
  func.return %o1 : tensor<?x8x!fixed.q<16, 12>>
}

// -----

// CHECK: the importance of a head may reach 2^48 at binary point 39, accumulators end at 2^47
func.func @main(%mask: tensor<2x6xi64>, %x: tensor<?x8x!fixed.q<16, 10>>, %y: tensor<?x8x!fixed.q<16, 39>>) -> tensor<?x8x!fixed.q<16, 39>> {
  %p = attn.packing %mask : (tensor<2x6xi64>) -> !attn.packing<2, 6>
  %o, %i = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>) -> (tensor<?x8x!fixed.q<16, 10>>, tensor<2x4xf64>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %o_1 = attn.weighted_values %q, %x_1, %p_1 {heads = 4 : i64} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<?x8x!fixed.q<16, 10>>
    %i_1 = attn.head_importance %o_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4xf64>
    attn.yield %o_1, %i_1 : tensor<?x8x!fixed.q<16, 10>>, tensor<2x4xf64>
  }
  %o1, %g, %i1 = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %i_1 = %i : tensor<2x4xf64>, %y_1 = %y : tensor<?x8x!fixed.q<16, 39>>) -> (tensor<?x8x!fixed.q<16, 39>>, tensor<2x4xi1>, tensor<2x4xf64>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %g_1 = attn.head_ranking %i_1 {keep = 3 : i64} : (tensor<2x4xf64>) -> tensor<2x4xi1>
    %o1_1 = attn.weighted_values %q, %y_1, %p_1, %g_1 {heads = 4 : i64, gated = "zero"} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 39>>, !attn.packing<2, 6>, tensor<2x4xi1>) -> tensor<?x8x!fixed.q<16, 39>>
    %i1_1 = attn.head_importance %o1_1, %p_1, %i_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 39>>, !attn.packing<2, 6>, tensor<2x4xf64>) -> tensor<2x4xf64>
    attn.yield %o1_1, %g_1, %i1_1 : tensor<?x8x!fixed.q<16, 39>>, tensor<2x4xi1>, tensor<2x4xf64>
  }
  %o2 = attn.pruned (%x_1 = %x : tensor<?x8x!fixed.q<16, 10>>, %p_1 = %p : !attn.packing<2, 6>, %i1_1 = %i1 : tensor<2x4xf64>, %g_1 = %g : tensor<2x4xi1>, %y_1 = %y : tensor<?x8x!fixed.q<16, 39>>) -> (tensor<?x8x!fixed.q<16, 39>>) attributes {rule = #attn.rule<"spatten", {}>} {
    %s = attn.scores %x_1, %x_1, %p_1 {heads = 4 : i64} : (tensor<?x8x!fixed.q<16, 10>>, tensor<?x8x!fixed.q<16, 10>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<32, 16>>
    %q = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x4x6x6x!fixed.q<32, 16>>, !attn.packing<2, 6>) -> tensor<2x4x6x6x!fixed.q<16, 14>>
    %g1 = attn.head_ranking %i1_1, %g_1 {keep = 1 : i64} : (tensor<2x4xf64>, tensor<2x4xi1>) -> tensor<2x4xi1>
    %o2_1 = attn.weighted_values %q, %y_1, %p_1, %g1 {heads = 4 : i64, gated = "zero"} : (tensor<2x4x6x6x!fixed.q<16, 14>>, tensor<?x8x!fixed.q<16, 39>>, !attn.packing<2, 6>, tensor<2x4xi1>) -> tensor<?x8x!fixed.q<16, 39>>
    attn.yield %o2_1 : tensor<?x8x!fixed.q<16, 39>>
  }
  func.return %o2 : tensor<?x8x!fixed.q<16, 39>>
}

// -----

// A sum of codes that no product, attention or task takes in has no instruction.

// CHECK: tile_for_hdp_refused.mlir:{{[0-9]+}}: nn.add is part of no product, attention or task, so that the machine has no instruction for it
func.func @main(%mask: tensor<2x8xi64>, %x: tensor<?x16x!fixed.q<16, 11>>) -> tensor<?x16x!fixed.q<16, 9>> {
  %p = attn.packing %mask : (tensor<2x8xi64>) -> !attn.packing<2, 8>
  %w = einsum.weight ["w"] : tensor<16x16x!fixed.q<16, 14>>
  %s = nn.add %x, %x : (tensor<?x16x!fixed.q<16, 11>>, tensor<?x16x!fixed.q<16, 11>>) -> tensor<?x16x!fixed.q<16, 11>>
  %c = einsum.contract "ti,oi->to" %s, %w : (tensor<?x16x!fixed.q<16, 11>>, tensor<16x16x!fixed.q<16, 14>>) -> tensor<?x16x!fixed.q<48, 25>>
  %y = fixed.requantize %c : tensor<?x16x!fixed.q<48, 25>> to tensor<?x16x!fixed.q<16, 9>>
  func.return %y : tensor<?x16x!fixed.q<16, 9>>
}

// -----

// CHECK: output 'kept' of i64 is not computed by any instruction of the co-processor or its host; use --target numpy
func.func @main(%m: tensor<1x4xi64>) -> (tensor<1x4xi64> {heatc.name = "kept"}) {
  %p = attn.packing %m : (tensor<1x4xi64>) -> !attn.packing<1, 4>
  %real = attn.real %p : (!attn.packing<1, 4>) -> tensor<1x4xi1>
  %y = nn.where %real, %m, %m : (tensor<1x4xi1>, tensor<1x4xi64>, tensor<1x4xi64>) -> tensor<1x4xi64>
  func.return %y : tensor<1x4xi64>
}

// -----

// CHECK: the machine compares input 'mask' with one number, which does not tell real values (1 to 2) from padding (at most 0, or at least 3): use --target numpy
func.func @main(%m: tensor<1x4xi64> {heatc.name = "mask"}) -> tensor<?x4x!fixed.q<16, 12>> {
  %p = attn.packing %m {real = #attn.values<1 : 2>, masked = #attn.values<min : 0, 3 : max>} : (tensor<1x4xi64>) -> !attn.packing<1, 4>
  %rows = attn.pack %m, %p : (tensor<1x4xi64>, !attn.packing<1, 4>) -> tensor<?xi64>
  %table = einsum.weight ["word.weight"] : tensor<30x4xf32>
  %x = host.task (%t = %table : tensor<30x4xf32>, %i = %rows : tensor<?xi64>) -> (tensor<?x4x!fixed.q<16, 12>>) {
    %e = nn.embedding %t, %i : (tensor<30x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
    %q = fixed.quantize %e : tensor<?x4xf32> to tensor<?x4x!fixed.q<16, 12>>
    host.yield %q : tensor<?x4x!fixed.q<16, 12>>
  }
  func.return %x : tensor<?x4x!fixed.q<16, 12>>
}

// -----

// CHECK: output 'sum' of i64 is not computed by any instruction of the co-processor or its host; use --target numpy
func.func @main(%x: tensor<4xi64>) -> (tensor<4xi64> {heatc.name = "sum"}) {
  %y = nn.add %x, %x : (tensor<4xi64>, tensor<4xi64>) -> tensor<4xi64>
  func.return %y : tensor<4xi64>
}
