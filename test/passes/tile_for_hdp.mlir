// RUN: heatc-opt %s --split-input-file -p tile-for-hdp | filecheck %s

// A linear of packed tokens: its activations stay in the shared buffer, weight slabs take turns.

func.func @main(%mask: tensor<2x64xi64>, %x: tensor<?x384x!fixed.q<16, 11>>) -> (tensor<?x1536x!fixed.q<16, 9>> {heatc.name = "y"}) {
  %p = attn.packing %mask : (tensor<2x64xi64>) -> !attn.packing<2, 64>
  %w = einsum.weight ["up.weight"] : tensor<1536x384x!fixed.q<16, 15>>
  %0 = einsum.contract "ti,oi->to" %x, %w : (tensor<?x384x!fixed.q<16, 11>>, tensor<1536x384x!fixed.q<16, 15>>) -> tensor<?x1536x!fixed.q<48, 26>>
  %y = fixed.requantize %0 {plan = #hdp.linear_plan<rows = 128, columns = 32, slab = 192, slots = 2, cores = 8>} : tensor<?x1536x!fixed.q<48, 26>> to tensor<?x1536x!fixed.q<16, 9>>
  func.return %y : tensor<?x1536x!fixed.q<16, 9>>
}

// CHECK-LABEL: func.func @main
// CHECK: %c0 = arith.constant 0 : index
// CHECK-NEXT: %c128 = arith.constant 128 : index
// CHECK-NEXT: %c192 = arith.constant 192 : index
// CHECK-NEXT: %c1536 = arith.constant 1536 : index
// CHECK-NEXT: %c256 = arith.constant 256 : index
// CHECK-NEXT: %packing_positions = hdp.tensor "packing.positions" activation dram i64 [128, 1]
// CHECK-NEXT: %packing_inverse = hdp.tensor "packing.inverse" activation dram i64 [128, 1]
// CHECK-NEXT: %input = hdp.tensor "input_0" input dram i64 [128, 1] {ports = ["input_0"], shape = array<i64: 2, 64>, port_role = "mask"}
// CHECK-NEXT: hdp.hpack %packing_positions, %packing_inverse, %input, batch = 2, length = 64, has_mask = 1
// CHECK-NEXT: %tokens = hdp.special tokens : index
// CHECK-NEXT: %y = hdp.tensor "y" output dram i16 [128, 1536] rows %tokens : index {point = 9 : i64, ports = ["y"], shape = array<i64: 128, 1536>}
// CHECK-NEXT: %input_1 = hdp.tensor "input_1" input dram i16 [128, 384] rows %tokens : index {point = 11 : i64, ports = ["input_1"], shape = array<i64: 128, 384>}
// CHECK-NEXT: %up_weight = hdp.tensor "up.weight" weight dram i16 [1536, 384] {point = 15 : i64, names = ["up.weight"], shape = array<i64: 1536, 384>}
// CHECK-NEXT: %acc = hdp.tile "acc" local acc 24576
// CHECK-NEXT: %out = hdp.tile "out.0" local i16 8192
// CHECK-NEXT: %slab = hdp.tile "slab.0" local i16 12288
// CHECK-NEXT: %slab_1 = hdp.tile "slab.1" local i16 12288
// CHECK-NEXT: %x = hdp.tile "x.0" shared i16 49152
// CHECK-NEXT: %x_1 = hdp.tile "x.1" shared i16 49152
// CHECK-NEXT: scf.for %0 = %c0 to %tokens step %c128 {
// CHECK-NEXT: hdp.ld %x, %input_1, %0, %c0, rows = 128, cols = 192, core_rows = 0, core_cols = 0 : index, index
// CHECK-NEXT: hdp.ld %x_1, %input_1, %0, %c192, rows = 128, cols = 192, core_rows = 0, core_cols = 0 : index, index
// CHECK-NEXT: scf.for %1 = %c0 to %c1536 step %c256 {
// CHECK-NEXT: hdp.ld %slab, %up_weight, %1, %c0, rows = 32, cols = 192, core_rows = 32, core_cols = 0 : index, index
// CHECK-NEXT: hdp.mm %acc, %x, %slab, first = 1, b_transposed = 1
// CHECK-NEXT: hdp.ld %slab_1, %up_weight, %1, %c192, rows = 32, cols = 192, core_rows = 32, core_cols = 0 : index, index
// CHECK-NEXT: hdp.mm %acc, %x_1, %slab_1, first = 0, b_transposed = 1
// CHECK-NEXT: hdp.drain %out, %acc, %acc, has_bias = 0, bias_shift = 0, shift = 17
// CHECK-NEXT: hdp.st %y, %out, %0, %1, core_rows = 0, core_cols = 32, leave = 0 : index, index
// CHECK-NEXT: }
// CHECK-NEXT: }
// CHECK-NEXT: hdp.halt
// CHECK-NEXT: func.return
// CHECK-NEXT: }
// CHECK-NEXT: }

// -----

// Host tasks: read as float64, one rounding where a value leaves. Tokens are put back by index.

func.func @main(%mask: tensor<2x8xi64>, %ids: tensor<2x8xi64>, %x: tensor<?x16x!fixed.q<16, 11>>) -> (tensor<2x8x16xf32> {heatc.name = "hidden"}, tensor<2x16xf32> {heatc.name = "first"}) {
  %p = attn.packing %mask : (tensor<2x8xi64>) -> !attn.packing<2, 8>
  %rows = attn.pack %ids, %p : (tensor<2x8xi64>, !attn.packing<2, 8>) -> tensor<?xi64>
  %table = einsum.weight ["word.weight"] : tensor<30x16xf32>
  %gamma = einsum.weight ["norm.weight"] : tensor<16xf32>
  %beta = einsum.weight ["norm.bias"] : tensor<16xf32>
  %y = host.task (%a = %x : tensor<?x16x!fixed.q<16, 11>>, %t = %table : tensor<30x16xf32>, %i = %rows : tensor<?xi64>, %g = %gamma : tensor<16xf32>, %b = %beta : tensor<16xf32>) -> (tensor<?x16x!fixed.q<16, 12>>) {
    %0 = fixed.dequantize %a : tensor<?x16x!fixed.q<16, 11>> to tensor<?x16xf64>
    %1 = nn.embedding %t, %i : (tensor<30x16xf32>, tensor<?xi64>) -> tensor<?x16xf64>
    %2 = nn.add %1, %0 : (tensor<?x16xf64>, tensor<?x16xf64>) -> tensor<?x16xf64>
    %3 = nn.layer_norm %2, %g, %b {eps = 1.000000e-12 : f64} : (tensor<?x16xf64>, tensor<16xf32>, tensor<16xf32>) -> tensor<?x16xf64>
    %4 = fixed.quantize %3 : tensor<?x16xf64> to tensor<?x16x!fixed.q<16, 12>>
    host.yield %4 : tensor<?x16x!fixed.q<16, 12>>
  }
  %hidden = host.task (%a = %y : tensor<?x16x!fixed.q<16, 12>>, %q = %p : !attn.packing<2, 8>) -> (tensor<2x8x16xf32>) {
    %0 = fixed.dequantize %a : tensor<?x16x!fixed.q<16, 12>> to tensor<?x16xf64>
    %1 = attn.unpack %0, %q : (tensor<?x16xf64>, !attn.packing<2, 8>) -> tensor<2x8x16xf64>
    %2 = nn.cast %1 : (tensor<2x8x16xf64>) -> tensor<2x8x16xf32>
    host.yield %2 : tensor<2x8x16xf32>
  }
  %first = host.task (%a = %y : tensor<?x16x!fixed.q<16, 12>>, %q = %p : !attn.packing<2, 8>) -> (tensor<2x16xf32>) {
    %0 = fixed.dequantize %a : tensor<?x16x!fixed.q<16, 12>> to tensor<?x16xf64>
    %1 = attn.token %0, %q {position = 0 : i64} : (tensor<?x16xf64>, !attn.packing<2, 8>) -> tensor<2x16xf64>
    %2 = nn.tanh %1 : (tensor<2x16xf64>) -> tensor<2x16xf64>
    %3 = nn.cast %2 : (tensor<2x16xf64>) -> tensor<2x16xf32>
    host.yield %3 : tensor<2x16xf32>
  }
  func.return %hidden, %first : tensor<2x8x16xf32>, tensor<2x16xf32>
}

// CHECK-LABEL: func.func @main
// CHECK: %c0 = arith.constant 0 : index
// CHECK-NEXT: %packing_positions = hdp.tensor "packing.positions" activation dram i64 [16, 1]
// CHECK-NEXT: %packing_inverse = hdp.tensor "packing.inverse" activation dram i64 [16, 1]
// CHECK-NEXT: %input = hdp.tensor "input_0" input dram i64 [16, 1] {ports = ["input_0"], shape = array<i64: 2, 8>, port_role = "mask"}
// CHECK-NEXT: hdp.hpack %packing_positions, %packing_inverse, %input, batch = 2, length = 8, has_mask = 1
// CHECK-NEXT: %input_1 = hdp.tensor "input_1" input dram i64 [16, 1] {ports = ["input_1"], shape = array<i64: 2, 8>, limit = 30 : i64}
// CHECK-NEXT: %tokens = hdp.special tokens : index
// CHECK-NEXT: %rows = hdp.tensor "rows" activation dram i64 [16, 1] rows %tokens : index
// CHECK-NEXT: %0 = hdp.window %packing_positions, %c0, %tokens : index, index
// CHECK-NEXT: hdp.hidx %rows, %input_1, %0
// CHECK-NEXT: %input_2 = hdp.tensor "input_2" input dram i16 [16, 16] rows %tokens : index {point = 11 : i64, ports = ["input_2"], shape = array<i64: 16, 16>}
// CHECK-NEXT: %word_weight = hdp.tensor "word.weight" weight dram f32 [30, 16] {names = ["word.weight"], shape = array<i64: 30, 16>}
// CHECK-NEXT: hdp.hgeti %word_weight, %rows, %c0, h = 0, rows = 16, point = 0 : index
// CHECK-NEXT: hdp.hget %input_2, %c0, h = 1, rows = 16, point = 11 : index
// CHECK-NEXT: hdp.hadd h = 0, g = 1
// CHECK-NEXT: %norm_weight = hdp.tensor "norm.weight" weight dram f32 [1, 16] {names = ["norm.weight"], shape = array<i64: 16>}
// CHECK-NEXT: %norm_bias = hdp.tensor "norm.bias" weight dram f32 [1, 16] {names = ["norm.bias"], shape = array<i64: 16>}
// CHECK-NEXT: hdp.hln %norm_weight, %norm_bias, h = 0, eps = 1.0e-12
// CHECK-NEXT: %y = hdp.tensor "y" activation dram i16 [16, 16] rows %tokens : index {point = 12 : i64}
// CHECK-NEXT: hdp.hput %y, %c0, h = 0, point = 12 : index
// CHECK-NEXT: hdp.hgeti %y, %packing_inverse, %c0, h = 0, rows = 16, point = 12 : index
// CHECK-NEXT: %hidden = hdp.tensor "hidden" output dram f32 [16, 16] {ports = ["hidden"], shape = array<i64: 2, 8, 16>}
// CHECK-NEXT: hdp.hput %hidden, %c0, h = 0, point = 0 : index
// CHECK-NEXT: %packing_position0_places = hdp.tensor "packing.position0.places" constant dram i64 [2, 1] {values = array<i64: 0, 8>}
// CHECK-NEXT: %packing_position0 = hdp.tensor "packing.position0" activation dram i64 [2, 1]
// CHECK-NEXT: hdp.hidx %packing_position0, %packing_inverse, %packing_position0_places
// CHECK-NEXT: hdp.hgeti %y, %packing_position0, %c0, h = 0, rows = 2, point = 12 : index
// CHECK-NEXT: hdp.htanh h = 0
// CHECK-NEXT: %first = hdp.tensor "first" output dram f32 [2, 16] {ports = ["first"], shape = array<i64: 2, 16>}
// CHECK-NEXT: hdp.hput %first, %c0, h = 0, point = 0 : index
// CHECK-NEXT: hdp.halt
// CHECK-NEXT: func.return
// CHECK-NEXT: }
// CHECK-NEXT: }

// -----

// Attention without pruning: all cores work on one head, keys and values lie in the shared buffer.

func.func @main(%mask: tensor<2x16xi64>, %x: tensor<?x32x!fixed.q<16, 11>>) -> tensor<?x32x!fixed.q<16, 12>> {
  %p = attn.packing %mask : (tensor<2x16xi64>) -> !attn.packing<2, 16>
  %wq = einsum.weight ["q.weight"] : tensor<32x32x!fixed.q<16, 15>>
  %bq = einsum.weight ["q.bias"] : tensor<32x!fixed.q<32, 24>>
  %qa = einsum.contract "ti,oi->to" %x, %wq : (tensor<?x32x!fixed.q<16, 11>>, tensor<32x32x!fixed.q<16, 15>>) -> tensor<?x32x!fixed.q<48, 26>>
  %qb = nn.add %qa, %bq : (tensor<?x32x!fixed.q<48, 26>>, tensor<32x!fixed.q<32, 24>>) -> tensor<?x32x!fixed.q<48, 26>>
  %q = fixed.requantize %qb {plan = #hdp.linear_plan<rows = 128, columns = 4, slab = 16, slots = 2, cores = 8>} : tensor<?x32x!fixed.q<48, 26>> to tensor<?x32x!fixed.q<16, 12>>
  %wk = einsum.weight ["k.weight"] : tensor<32x32x!fixed.q<16, 15>>
  %bk = einsum.weight ["k.bias"] : tensor<32x!fixed.q<32, 24>>
  %ka = einsum.contract "ti,oi->to" %x, %wk : (tensor<?x32x!fixed.q<16, 11>>, tensor<32x32x!fixed.q<16, 15>>) -> tensor<?x32x!fixed.q<48, 26>>
  %kb = nn.add %ka, %bk : (tensor<?x32x!fixed.q<48, 26>>, tensor<32x!fixed.q<32, 24>>) -> tensor<?x32x!fixed.q<48, 26>>
  %k = fixed.requantize %kb {plan = #hdp.linear_plan<rows = 128, columns = 4, slab = 16, slots = 2, cores = 8>} : tensor<?x32x!fixed.q<48, 26>> to tensor<?x32x!fixed.q<16, 11>>
  %wv = einsum.weight ["v.weight"] : tensor<32x32x!fixed.q<16, 15>>
  %bv = einsum.weight ["v.bias"] : tensor<32x!fixed.q<32, 24>>
  %va = einsum.contract "ti,oi->to" %x, %wv : (tensor<?x32x!fixed.q<16, 11>>, tensor<32x32x!fixed.q<16, 15>>) -> tensor<?x32x!fixed.q<48, 26>>
  %vb = nn.add %va, %bv : (tensor<?x32x!fixed.q<48, 26>>, tensor<32x!fixed.q<32, 24>>) -> tensor<?x32x!fixed.q<48, 26>>
  %v = fixed.requantize %vb {plan = #hdp.linear_plan<rows = 128, columns = 4, slab = 16, slots = 2, cores = 8>} : tensor<?x32x!fixed.q<48, 26>> to tensor<?x32x!fixed.q<16, 12>>
  %o = attn.pruned (%q_1 = %q : tensor<?x32x!fixed.q<16, 12>>, %k_1 = %k : tensor<?x32x!fixed.q<16, 11>>, %p_1 = %p : !attn.packing<2, 16>, %v_1 = %v : tensor<?x32x!fixed.q<16, 12>>) -> (tensor<?x32x!fixed.q<16, 12>>) attributes {rule = #attn.rule<"none", {}>, plan = #hdp.attention_plan<length = 128, cores = 8, parts = 8, rows = 16, keys = 128, slots = 2, shared>} {
    %s = attn.scores %q_1, %k_1, %p_1 {heads = 2 : i64} : (tensor<?x32x!fixed.q<16, 12>>, tensor<?x32x!fixed.q<16, 11>>, !attn.packing<2, 16>) -> tensor<2x2x16x16x!fixed.q<32, 14>>
    %pr = attn.softmax %s, %p_1 {scale = 2.500000e-01 : f64} : (tensor<2x2x16x16x!fixed.q<32, 14>>, !attn.packing<2, 16>) -> tensor<2x2x16x16x!fixed.q<16, 14>>
    %o_1 = attn.weighted_values %pr, %v_1, %p_1 {heads = 2 : i64} : (tensor<2x2x16x16x!fixed.q<16, 14>>, tensor<?x32x!fixed.q<16, 12>>, !attn.packing<2, 16>) -> tensor<?x32x!fixed.q<16, 12>>
    attn.yield %o_1 : tensor<?x32x!fixed.q<16, 12>>
  }
  func.return %o : tensor<?x32x!fixed.q<16, 12>>
}

// CHECK-LABEL: func.func @main
// CHECK: %batch = hdp.special batch : index
// CHECK-NEXT: scf.for %3 = %c0 to %batch step %c1 {
// CHECK-NEXT: hdp.seq %3 : index
// CHECK-NEXT: %start = hdp.special start : index
// CHECK-NEXT: %length = hdp.special length : index
// CHECK-NEXT: %q_rows = hdp.window %q, %start, %length : index, index
// CHECK-NEXT: %k_rows = hdp.window %k, %start, %length : index, index
// CHECK-NEXT: %v_rows = hdp.window %v, %start, %length : index, index
// CHECK-NEXT: %o_rows = hdp.window %o, %start, %length : index, index
// CHECK-NEXT: scf.for %4 = %c0 to %length step %c16 {
// CHECK-NEXT: hdp.group parts = 8, rows = 16
// CHECK-NEXT: %q_1 = hdp.tile "q" local i16 512
// CHECK-NEXT: %s = hdp.tile "s" local i32 8192
// CHECK-NEXT: %p = hdp.tile "p" local i16 4096 over %s
// CHECK-NEXT: %o_1 = hdp.tile "o" local i16 512
// CHECK-NEXT: %q_2 = hdp.tile "q" local i16 512
// CHECK-NEXT: %s_1 = hdp.tile "s" local i32 8192
// CHECK-NEXT: %p_1 = hdp.tile "p" local i16 4096 over %s_1
// CHECK-NEXT: %o_2 = hdp.tile "o" local i16 512
// CHECK-NEXT: %k_1 = hdp.tile "k.0" shared i16 4096
// CHECK-NEXT: %v_1 = hdp.tile "v" shared i16 4096
// CHECK-NEXT: %k_2 = hdp.tile "k.0" shared i16 4096
// CHECK-NEXT: %v_2 = hdp.tile "v" shared i16 4096
// CHECK-NEXT: hdp.heads %c0, stride = 1, limit = 2 : index {dim = 16 : i64, attention = "o"}
// CHECK-NEXT: hdp.ld %k_1, %k_rows, %c0, %c0, rows = 128, cols = 16, core_rows = 0, core_cols = 16 : index, index
// CHECK-NEXT: hdp.ld %q_1, %q_rows, %c0, %c0, rows = 16, cols = 16, core_rows = 16, core_cols = 16 : index, index
// CHECK-NEXT: %a = hdp.tile "a" local acc 12288
// CHECK-NEXT: hdp.mm %a, %q_1, %k_1, first = 1, b_transposed = 1
// CHECK-NEXT: hdp.drainc %s, %a, %c0, shift = 9 : index
// CHECK-NEXT: hdp.ld %v_1, %v_rows, %c0, %c0, rows = 16, cols = 16, core_rows = 0, core_cols = 16 : index, index
// CHECK-NEXT: hdp.softmax %p, %s, multiplier = 47274, shift = 17, point = 14 {attention = "o"}
// CHECK-NEXT: %5 = arith.addi %c0, %c1 : index
// CHECK-NEXT: %6 = arith.addi %c0, %c16 : index
// CHECK-NEXT: hdp.heads %5, stride = 1, limit = 2 : index {dim = 16 : i64, attention = "o"}
// CHECK-NEXT: hdp.ld %k_2, %k_rows, %c0, %6, rows = 128, cols = 16, core_rows = 0, core_cols = 16 : index, index
// CHECK-NEXT: hdp.ld %q_2, %q_rows, %c0, %6, rows = 16, cols = 16, core_rows = 16, core_cols = 16 : index, index
// CHECK-NEXT: %a_1 = hdp.tile "a" local acc 12288
// CHECK-NEXT: hdp.mm %a_1, %q_2, %k_2, first = 1, b_transposed = 1
// CHECK-NEXT: hdp.drainc %s_1, %a_1, %c0, shift = 9 : index
// CHECK-NEXT: hdp.ld %v_2, %v_rows, %c0, %6, rows = 16, cols = 16, core_rows = 0, core_cols = 16 : index, index
// CHECK-NEXT: hdp.softmax %p_1, %s_1, multiplier = 47274, shift = 17, point = 14 {attention = "o"}
// CHECK-NEXT: %acc_3 = hdp.tile "acc" local acc 1536
// CHECK-NEXT: hdp.pv %acc_3, %p, %v_1, %p, %c0, %c0, %acc_3, first = 1, sparse = 0, constant = 0 : index, index
// CHECK-NEXT: hdp.drain %o_1, %acc_3, %acc_3, has_bias = 0, bias_shift = 0, shift = 14
// CHECK-NEXT: hdp.st %o_rows, %o_1, %c0, %c0, core_rows = 16, core_cols = 16, leave = 0 : index, index
// CHECK-NEXT: %7 = arith.addi %c0, %c1 : index
// CHECK-NEXT: %8 = arith.addi %c0, %c16 : index
// CHECK-NEXT: %acc_4 = hdp.tile "acc" local acc 1536
// CHECK-NEXT: hdp.pv %acc_4, %p_1, %v_2, %p_1, %c0, %c0, %acc_4, first = 1, sparse = 0, constant = 0 : index, index
// CHECK-NEXT: hdp.drain %o_2, %acc_4, %acc_4, has_bias = 0, bias_shift = 0, shift = 14
// CHECK-NEXT: hdp.st %o_rows, %o_2, %c0, %8, core_rows = 16, core_cols = 16, leave = 0 : index, index
// CHECK-NEXT: }
// CHECK-NEXT: }
// CHECK-NEXT: hdp.all
// CHECK-NEXT: hdp.halt
// CHECK-NEXT: func.return
// CHECK-NEXT: }
// CHECK-NEXT: }

// -----

// Gated HDP attention: scores and masks of a head, the gate, then kept blocks; keys pass by in parts.

func.func @main(%mask: tensor<1x256xi64>, %x: tensor<?x768x!fixed.q<16, 11>>) -> tensor<?x768x!fixed.q<16, 12>> {
  %p = attn.packing %mask : (tensor<1x256xi64>) -> !attn.packing<1, 256>
  %wq = einsum.weight ["q.weight"] : tensor<768x768x!fixed.q<16, 15>>
  %bq = einsum.weight ["q.bias"] : tensor<768x!fixed.q<32, 24>>
  %qa = einsum.contract "ti,oi->to" %x, %wq : (tensor<?x768x!fixed.q<16, 11>>, tensor<768x768x!fixed.q<16, 15>>) -> tensor<?x768x!fixed.q<48, 26>>
  %qb = nn.add %qa, %bq : (tensor<?x768x!fixed.q<48, 26>>, tensor<768x!fixed.q<32, 24>>) -> tensor<?x768x!fixed.q<48, 26>>
  %q = fixed.requantize %qb {plan = #hdp.linear_plan<rows = 256, columns = 16, slab = 384, slots = 2, cores = 8>} : tensor<?x768x!fixed.q<48, 26>> to tensor<?x768x!fixed.q<16, 12>>
  %wk = einsum.weight ["k.weight"] : tensor<768x768x!fixed.q<16, 15>>
  %bk = einsum.weight ["k.bias"] : tensor<768x!fixed.q<32, 24>>
  %ka = einsum.contract "ti,oi->to" %x, %wk : (tensor<?x768x!fixed.q<16, 11>>, tensor<768x768x!fixed.q<16, 15>>) -> tensor<?x768x!fixed.q<48, 26>>
  %kb = nn.add %ka, %bk : (tensor<?x768x!fixed.q<48, 26>>, tensor<768x!fixed.q<32, 24>>) -> tensor<?x768x!fixed.q<48, 26>>
  %k = fixed.requantize %kb {plan = #hdp.linear_plan<rows = 256, columns = 16, slab = 384, slots = 2, cores = 8>} : tensor<?x768x!fixed.q<48, 26>> to tensor<?x768x!fixed.q<16, 11>>
  %wv = einsum.weight ["v.weight"] : tensor<768x768x!fixed.q<16, 15>>
  %bv = einsum.weight ["v.bias"] : tensor<768x!fixed.q<32, 24>>
  %va = einsum.contract "ti,oi->to" %x, %wv : (tensor<?x768x!fixed.q<16, 11>>, tensor<768x768x!fixed.q<16, 15>>) -> tensor<?x768x!fixed.q<48, 26>>
  %vb = nn.add %va, %bv : (tensor<?x768x!fixed.q<48, 26>>, tensor<768x!fixed.q<32, 24>>) -> tensor<?x768x!fixed.q<48, 26>>
  %v = fixed.requantize %vb {plan = #hdp.linear_plan<rows = 256, columns = 16, slab = 384, slots = 2, cores = 8>} : tensor<?x768x!fixed.q<48, 26>> to tensor<?x768x!fixed.q<16, 12>>
  %o = attn.pruned (%q_1 = %q : tensor<?x768x!fixed.q<16, 12>>, %k_1 = %k : tensor<?x768x!fixed.q<16, 11>>, %p_1 = %p : !attn.packing<1, 256>, %v_1 = %v : tensor<?x768x!fixed.q<16, 12>>) -> (tensor<?x768x!fixed.q<16, 12>>) attributes {rule = #attn.rule<"paper", {}>, plan = #hdp.attention_plan<length = 256, cores = 8, parts = 8, rows = 16, keys = 48, slots = 1, shared>} {
    %qi, %qf = attn.split %q_1 : (tensor<?x768x!fixed.q<16, 12>>) -> (tensor<?x768x!fixed.q<16, 0>>, tensor<?x768x!fixed.q<16, 12>>)
    %ki, %kf = attn.split %k_1 : (tensor<?x768x!fixed.q<16, 11>>) -> (tensor<?x768x!fixed.q<16, 0>>, tensor<?x768x!fixed.q<16, 11>>)
    %a = attn.integer_scores %qi, %ki, %p_1 {heads = 12 : i64} : (tensor<?x768x!fixed.q<16, 0>>, tensor<?x768x!fixed.q<16, 0>>, !attn.packing<1, 256>) -> tensor<1x12x256x256x!fixed.q<32, 0>>
    %th = attn.block_importance %a, %p_1 {block = array<i64: 2, 2>, importance = "abs"} : (tensor<1x12x256x256x!fixed.q<32, 0>>, !attn.packing<1, 256>) -> tensor<1x12x128x128x!fixed.q<48, 0>>
    %m = attn.block_mask %th, %p_1 {rho_b = 0.000000e+00 : f64, block = array<i64: 2, 2>} : (tensor<1x12x128x128x!fixed.q<48, 0>>, !attn.packing<1, 256>) -> tensor<1x12x128x128xi1>
    %g = attn.head_gate %th, %p_1 {tau_h = 5.000000e-01 : f64, importance = "abs", block = array<i64: 2, 2>} : (tensor<1x12x128x128x!fixed.q<48, 0>>, !attn.packing<1, 256>) -> tensor<1x12xi1>
    %s = attn.merge_scores %a, %qi, %qf, %ki, %kf, %m, %p_1 {heads = 12 : i64, block = array<i64: 2, 2>, pruned = "neginf"} : (tensor<1x12x256x256x!fixed.q<32, 0>>, tensor<?x768x!fixed.q<16, 0>>, tensor<?x768x!fixed.q<16, 12>>, tensor<?x768x!fixed.q<16, 0>>, tensor<?x768x!fixed.q<16, 11>>, tensor<1x12x128x128xi1>, !attn.packing<1, 256>) -> tensor<1x12x256x256x!fixed.q<32, 12>>
    %pr = attn.softmax %s, %p_1 {scale = 1.250000e-01 : f64} : (tensor<1x12x256x256x!fixed.q<32, 12>>, !attn.packing<1, 256>) -> tensor<1x12x256x256x!fixed.q<16, 14>>
    %o_1 = attn.weighted_values %pr, %v_1, %p_1, %g {heads = 12 : i64, gated = "zero"} : (tensor<1x12x256x256x!fixed.q<16, 14>>, tensor<?x768x!fixed.q<16, 12>>, !attn.packing<1, 256>, tensor<1x12xi1>) -> tensor<?x768x!fixed.q<16, 12>>
    attn.yield %o_1 : tensor<?x768x!fixed.q<16, 12>>
  }
  func.return %o : tensor<?x768x!fixed.q<16, 12>>
}

// CHECK-LABEL: func.func @main
// CHECK: %batch = hdp.special batch : index
// CHECK-NEXT: scf.for %6 = %c0 to %batch step %c1 {
// CHECK-NEXT: hdp.seq %6 : index
// CHECK-NEXT: %start = hdp.special start : index
// CHECK-NEXT: %length = hdp.special length : index
// CHECK-NEXT: %q_rows = hdp.window %q_integer, %start, %length : index, index
// CHECK-NEXT: %q_fraction_rows = hdp.window %q_fraction, %start, %length : index, index
// CHECK-NEXT: %k_rows = hdp.window %k_integer, %start, %length : index, index
// CHECK-NEXT: %k_fraction_rows = hdp.window %k_fraction, %start, %length : index, index
// CHECK-NEXT: %v_rows = hdp.window %v, %start, %length : index, index
// CHECK-NEXT: %o_rows = hdp.window %o, %start, %length : index, index
// CHECK-NEXT: scf.for %7 = %c0 to %length step %c256 {
// CHECK-NEXT: hdp.group parts = 8, rows = 16
// CHECK-NEXT: %mask = hdp.tile "mask" local i8 256
// CHECK-NEXT: %k = hdp.tile "k.0" local i8 3072
// CHECK-NEXT: %k_1 = hdp.tile "k.1" local i8 3072
// CHECK-NEXT: %k_fraction_1 = hdp.tile "k.fraction.0" local i16 6144
// CHECK-NEXT: %k_fraction_2 = hdp.tile "k.fraction.1" local i16 6144
// CHECK-NEXT: %v_1 = hdp.tile "v.0" local i16 6144
// CHECK-NEXT: %v_2 = hdp.tile "v.1" local i16 6144
// CHECK-NEXT: %q = hdp.tile "q" local i8 1024
// CHECK-NEXT: %q_fraction_1 = hdp.tile "q.fraction" local i16 2048
// CHECK-NEXT: %s = hdp.tile "s" local i32 16384
// CHECK-NEXT: %p = hdp.tile "p" local i16 8192 over %s
// CHECK-NEXT: %o_1 = hdp.tile "o" local i16 2048
// CHECK-NEXT: %k_2 = hdp.tile "k" shared i8 16384
// CHECK-NEXT: %k_3 = hdp.tile "k" shared i8 16384
// CHECK-NEXT: %8 = scf.for %9 = %c0 to %c12 step %c2 iter_args(%10 = %c0) -> (index) {
// CHECK-NEXT: hdp.heads %9, stride = 1, limit = 12 : index {dim = 64 : i64, attention = "o"}
// CHECK-NEXT: hdp.ld %k_2, %k_rows, %c0, %10, rows = 256, cols = 64, core_rows = 0, core_cols = 64 : index, index
// CHECK-NEXT: scf.for %11 = %c0 to %length step %c128 {
// CHECK-NEXT: hdp.ld %q, %q_rows, %11, %10, rows = 16, cols = 64, core_rows = 16, core_cols = 64 : index, index
// CHECK-NEXT: %theta = hdp.tile "theta" local acc 6144
// CHECK-NEXT: hdp.scores %s, %q, %k_2, %theta, %c0, %theta, positive = 0, plain = 0 : index
// CHECK-NEXT: hdp.mask %mask, %theta, %11, rho = 0.0, own = 0 : index {attention = "o"}
// CHECK-NEXT: }
// CHECK-NEXT: hdp.gate tau = 0.5, own = 0, positive = 0, visible = 0 {attention = "o"}
// CHECK-NEXT: scf.for %12 = %c0 to %length step %c128 {
// CHECK-NEXT: hdp.ld %q, %q_rows, %12, %10, rows = 16, cols = 64, core_rows = 16, core_cols = 64 : index, index
// CHECK-NEXT: %theta_1 = hdp.tile "theta" local acc 6144
// CHECK-NEXT: hdp.scores %s, %q, %k_2, %theta_1, %c0, %theta_1, positive = 0, plain = 0 : index
// CHECK-NEXT: hdp.ld %q_fraction_1, %q_fraction_rows, %12, %10, rows = 16, cols = 64, core_rows = 16, core_cols = 64 : index, index
// CHECK-NEXT: %f1 = hdp.tile "f1" local acc 4608
// CHECK-NEXT: %f2 = hdp.tile "f2" local acc 4608
// CHECK-NEXT: hdp.ld %k, %k_rows, %c0, %10, rows = 48, cols = 64, core_rows = 0, core_cols = 64 : index, index
// CHECK-NEXT: hdp.ldm %k_fraction_1, %k_fraction_rows, %c0, %10, %mask, rows = 48, cols = 64, core_rows = 0, core_cols = 64, axis = key : index, index
// CHECK-NEXT: hdp.frac %f1, %f2, %q, %q_fraction_1, %k, %k_fraction_1, %mask, %12, %c0 : index, index
// CHECK-NEXT: hdp.add %s, %s, %f1, %f2, %mask, %12, %c0, %s, pruned = neginf, point_q = 12, point_k = 11, point_s = 12, constant = 0, hides = 0 : index, index
// CHECK-NEXT: %13 = arith.addi %length, %cm48 : index
// CHECK-NEXT: %14 = scf.for %15 = %c0 to %13 step %c96 iter_args(%16 = %13) -> (index) {
// CHECK-NEXT: %17 = arith.addi %15, %c48 : index
// CHECK-NEXT: hdp.ld %k_1, %k_rows, %17, %10, rows = 48, cols = 64, core_rows = 0, core_cols = 64 : index, index
// CHECK-NEXT: hdp.ldm %k_fraction_2, %k_fraction_rows, %17, %10, %mask, rows = 48, cols = 64, core_rows = 0, core_cols = 64, axis = key : index, index
// CHECK-NEXT: hdp.frac %f1, %f2, %q, %q_fraction_1, %k_1, %k_fraction_2, %mask, %12, %17 : index, index
// CHECK-NEXT: hdp.add %s, %s, %f1, %f2, %mask, %12, %17, %s, pruned = neginf, point_q = 12, point_k = 11, point_s = 12, constant = 0, hides = 0 : index, index
// CHECK-NEXT: %18 = arith.addi %16, %cm48 : index
// CHECK-NEXT: scf.for %19 = %c0 to %18 step %c256 {
// CHECK-NEXT: %20 = arith.addi %15, %c96 : index
// CHECK-NEXT: hdp.ld %k, %k_rows, %20, %10, rows = 48, cols = 64, core_rows = 0, core_cols = 64 : index, index
// CHECK-NEXT: hdp.ldm %k_fraction_1, %k_fraction_rows, %20, %10, %mask, rows = 48, cols = 64, core_rows = 0, core_cols = 64, axis = key : index, index
// CHECK-NEXT: hdp.frac %f1, %f2, %q, %q_fraction_1, %k, %k_fraction_1, %mask, %12, %20 : index, index
// CHECK-NEXT: hdp.add %s, %s, %f1, %f2, %mask, %12, %20, %s, pruned = neginf, point_q = 12, point_k = 11, point_s = 12, constant = 0, hides = 0 : index, index
// CHECK-NEXT: }
// CHECK-NEXT: %21 = arith.addi %16, %cm96 : index
// CHECK-NEXT: scf.yield %21 : index
// CHECK-NEXT: }
// CHECK-NEXT: hdp.softmax %p, %s, multiplier = 47274, shift = 18, point = 12 {attention = "o"}
// CHECK-NEXT: %acc_3 = hdp.tile "acc" local acc 6144
// CHECK-NEXT: hdp.ldm %v_1, %v_rows, %c0, %10, %mask, rows = 48, cols = 64, core_rows = 0, core_cols = 64, axis = key : index, index
// CHECK-NEXT: hdp.pv %acc_3, %p, %v_1, %mask, %12, %c0, %acc_3, first = 1, sparse = 1, constant = 0 : index, index
// CHECK-NEXT: %22 = arith.addi %length, %cm48 : index
// CHECK-NEXT: %23 = scf.for %24 = %c0 to %22 step %c96 iter_args(%25 = %22) -> (index) {
// CHECK-NEXT: %26 = arith.addi %24, %c48 : index
// CHECK-NEXT: hdp.ldm %v_2, %v_rows, %26, %10, %mask, rows = 48, cols = 64, core_rows = 0, core_cols = 64, axis = key : index, index
// CHECK-NEXT: hdp.pv %acc_3, %p, %v_2, %mask, %12, %26, %acc_3, first = 0, sparse = 1, constant = 0 : index, index
// CHECK-NEXT: %27 = arith.addi %25, %cm48 : index
// CHECK-NEXT: scf.for %28 = %c0 to %27 step %c256 {
// CHECK-NEXT: %29 = arith.addi %24, %c96 : index
// CHECK-NEXT: hdp.ldm %v_1, %v_rows, %29, %10, %mask, rows = 48, cols = 64, core_rows = 0, core_cols = 64, axis = key : index, index
// CHECK-NEXT: hdp.pv %acc_3, %p, %v_1, %mask, %12, %29, %acc_3, first = 0, sparse = 1, constant = 0 : index, index
// CHECK-NEXT: }
// CHECK-NEXT: %30 = arith.addi %25, %cm96 : index
// CHECK-NEXT: scf.yield %30 : index
// CHECK-NEXT: }
// CHECK-NEXT: hdp.drain %o_1, %acc_3, %acc_3, has_bias = 0, bias_shift = 0, shift = 14
// CHECK-NEXT: hdp.st %o_rows, %o_1, %12, %10, core_rows = 16, core_cols = 64, leave = 0 : index, index
// CHECK-NEXT: }
// CHECK-NEXT: %31 = arith.addi %9, %c1 : index
// CHECK-NEXT: %32 = arith.addi %10, %c64 : index
// CHECK-NEXT: hdp.heads %31, stride = 1, limit = 12 : index {dim = 64 : i64, attention = "o"}
// CHECK-NEXT: hdp.ld %k_3, %k_rows, %c0, %32, rows = 256, cols = 64, core_rows = 0, core_cols = 64 : index, index
// CHECK-NEXT: scf.for %33 = %c0 to %length step %c128 {
// CHECK-NEXT: hdp.ld %q, %q_rows, %33, %32, rows = 16, cols = 64, core_rows = 16, core_cols = 64 : index, index
// CHECK-NEXT: %theta_2 = hdp.tile "theta" local acc 6144
// CHECK-NEXT: hdp.scores %s, %q, %k_3, %theta_2, %c0, %theta_2, positive = 0, plain = 0 : index
// CHECK-NEXT: hdp.mask %mask, %theta_2, %33, rho = 0.0, own = 0 : index {attention = "o"}
// CHECK-NEXT: }
// CHECK-NEXT: hdp.gate tau = 0.5, own = 0, positive = 0, visible = 0 {attention = "o"}
// CHECK-NEXT: scf.for %34 = %c0 to %length step %c128 {
// CHECK-NEXT: hdp.ld %q, %q_rows, %34, %32, rows = 16, cols = 64, core_rows = 16, core_cols = 64 : index, index
// CHECK-NEXT: %theta_3 = hdp.tile "theta" local acc 6144
// CHECK-NEXT: hdp.scores %s, %q, %k_3, %theta_3, %c0, %theta_3, positive = 0, plain = 0 : index
// CHECK-NEXT: hdp.ld %q_fraction_1, %q_fraction_rows, %34, %32, rows = 16, cols = 64, core_rows = 16, core_cols = 64 : index, index
// CHECK-NEXT: %f1_1 = hdp.tile "f1" local acc 4608
// CHECK-NEXT: %f2_1 = hdp.tile "f2" local acc 4608
// CHECK-NEXT: hdp.ld %k, %k_rows, %c0, %32, rows = 48, cols = 64, core_rows = 0, core_cols = 64 : index, index
// CHECK-NEXT: hdp.ldm %k_fraction_1, %k_fraction_rows, %c0, %32, %mask, rows = 48, cols = 64, core_rows = 0, core_cols = 64, axis = key : index, index
// CHECK-NEXT: hdp.frac %f1_1, %f2_1, %q, %q_fraction_1, %k, %k_fraction_1, %mask, %34, %c0 : index, index
// CHECK-NEXT: hdp.add %s, %s, %f1_1, %f2_1, %mask, %34, %c0, %s, pruned = neginf, point_q = 12, point_k = 11, point_s = 12, constant = 0, hides = 0 : index, index
// CHECK-NEXT: %35 = arith.addi %length, %cm48 : index
// CHECK-NEXT: %36 = scf.for %37 = %c0 to %35 step %c96 iter_args(%38 = %35) -> (index) {
// CHECK-NEXT: %39 = arith.addi %37, %c48 : index
// CHECK-NEXT: hdp.ld %k_1, %k_rows, %39, %32, rows = 48, cols = 64, core_rows = 0, core_cols = 64 : index, index
// CHECK-NEXT: hdp.ldm %k_fraction_2, %k_fraction_rows, %39, %32, %mask, rows = 48, cols = 64, core_rows = 0, core_cols = 64, axis = key : index, index
// CHECK-NEXT: hdp.frac %f1_1, %f2_1, %q, %q_fraction_1, %k_1, %k_fraction_2, %mask, %34, %39 : index, index
// CHECK-NEXT: hdp.add %s, %s, %f1_1, %f2_1, %mask, %34, %39, %s, pruned = neginf, point_q = 12, point_k = 11, point_s = 12, constant = 0, hides = 0 : index, index
// CHECK-NEXT: %40 = arith.addi %38, %cm48 : index
// CHECK-NEXT: scf.for %41 = %c0 to %40 step %c256 {
// CHECK-NEXT: %42 = arith.addi %37, %c96 : index
// CHECK-NEXT: hdp.ld %k, %k_rows, %42, %32, rows = 48, cols = 64, core_rows = 0, core_cols = 64 : index, index
// CHECK-NEXT: hdp.ldm %k_fraction_1, %k_fraction_rows, %42, %32, %mask, rows = 48, cols = 64, core_rows = 0, core_cols = 64, axis = key : index, index
// CHECK-NEXT: hdp.frac %f1_1, %f2_1, %q, %q_fraction_1, %k, %k_fraction_1, %mask, %34, %42 : index, index
// CHECK-NEXT: hdp.add %s, %s, %f1_1, %f2_1, %mask, %34, %42, %s, pruned = neginf, point_q = 12, point_k = 11, point_s = 12, constant = 0, hides = 0 : index, index
// CHECK-NEXT: }
// CHECK-NEXT: %43 = arith.addi %38, %cm96 : index
// CHECK-NEXT: scf.yield %43 : index
// CHECK-NEXT: }
// CHECK-NEXT: hdp.softmax %p, %s, multiplier = 47274, shift = 18, point = 12 {attention = "o"}
// CHECK-NEXT: %acc_4 = hdp.tile "acc" local acc 6144
// CHECK-NEXT: hdp.ldm %v_1, %v_rows, %c0, %32, %mask, rows = 48, cols = 64, core_rows = 0, core_cols = 64, axis = key : index, index
// CHECK-NEXT: hdp.pv %acc_4, %p, %v_1, %mask, %34, %c0, %acc_4, first = 1, sparse = 1, constant = 0 : index, index
// CHECK-NEXT: %44 = arith.addi %length, %cm48 : index
// CHECK-NEXT: %45 = scf.for %46 = %c0 to %44 step %c96 iter_args(%47 = %44) -> (index) {
// CHECK-NEXT: %48 = arith.addi %46, %c48 : index
// CHECK-NEXT: hdp.ldm %v_2, %v_rows, %48, %32, %mask, rows = 48, cols = 64, core_rows = 0, core_cols = 64, axis = key : index, index
// CHECK-NEXT: hdp.pv %acc_4, %p, %v_2, %mask, %34, %48, %acc_4, first = 0, sparse = 1, constant = 0 : index, index
// CHECK-NEXT: %49 = arith.addi %47, %cm48 : index
// CHECK-NEXT: scf.for %50 = %c0 to %49 step %c256 {
// CHECK-NEXT: %51 = arith.addi %46, %c96 : index
// CHECK-NEXT: hdp.ldm %v_1, %v_rows, %51, %32, %mask, rows = 48, cols = 64, core_rows = 0, core_cols = 64, axis = key : index, index
// CHECK-NEXT: hdp.pv %acc_4, %p, %v_1, %mask, %34, %51, %acc_4, first = 0, sparse = 1, constant = 0 : index, index
// CHECK-NEXT: }
// CHECK-NEXT: %52 = arith.addi %47, %cm96 : index
// CHECK-NEXT: scf.yield %52 : index
// CHECK-NEXT: }
// CHECK-NEXT: hdp.drain %o_1, %acc_4, %acc_4, has_bias = 0, bias_shift = 0, shift = 14
// CHECK-NEXT: hdp.st %o_rows, %o_1, %34, %32, core_rows = 16, core_cols = 64, leave = 0 : index, index
// CHECK-NEXT: }
// CHECK-NEXT: %53 = arith.addi %10, %c128 : index
// CHECK-NEXT: scf.yield %53 : index
// CHECK-NEXT: }
// CHECK-NEXT: }
// CHECK-NEXT: }
// CHECK-NEXT: hdp.all
// CHECK-NEXT: hdp.halt
// CHECK-NEXT: func.return
// CHECK-NEXT: }
// CHECK-NEXT: }

// -----

// A fused group: 16 tokens at a time, what is between its steps in the shared buffer. The first weight
// comes from the left, a token a core; the second step has all cores share the weight, rows in parts.

func.func @main(%mask: tensor<1x64xi64>, %x: tensor<?x24x32x!fixed.q<16, 11>>) -> (tensor<?x24x32x!fixed.q<16, 9>> {heatc.name = "y"}) {
  %p = attn.packing %mask : (tensor<1x64xi64>) -> !attn.packing<1, 64>
  %v = einsum.weight ["a"] : tensor<192x24x!fixed.q<16, 15>>
  %w = einsum.weight ["b"] : tensor<32x256x!fixed.q<16, 15>>
  %0 = einsum.contract "taq,oa->toq" %x, %v {fuse = #einsum.fuse<tokens = 16>} : (tensor<?x24x32x!fixed.q<16, 11>>, tensor<192x24x!fixed.q<16, 15>>) -> tensor<?x192x32x!fixed.q<48, 26>>
  %1 = fixed.requantize %0 {plan = #hdp.left_plan<rows = 192, slots = 2, cores = 8, tokens = 16, held>} : tensor<?x192x32x!fixed.q<48, 26>> to tensor<?x192x32x!fixed.q<16, 10>>
  %2 = nn.reshape %1 : (tensor<?x192x32x!fixed.q<16, 10>>) -> tensor<?x24x256x!fixed.q<16, 10>>
  %3 = einsum.contract "tpa,oa->tpo" %2, %w : (tensor<?x24x256x!fixed.q<16, 10>>, tensor<32x256x!fixed.q<16, 15>>) -> tensor<?x24x32x!fixed.q<48, 25>>
  %y = fixed.requantize %3 {plan = #hdp.linear_plan<rows = 48, columns = 32, slab = 128, slots = 2, cores = 8, parts = 8, tokens = 16, held>} : tensor<?x24x32x!fixed.q<48, 25>> to tensor<?x24x32x!fixed.q<16, 9>>
  func.return %y : tensor<?x24x32x!fixed.q<16, 9>>
}

// CHECK-LABEL: func.func @main
// CHECK: scf.for %[[T:.*]] = %c0 to %tokens step %c16 {
// CHECK-NEXT: %[[N:.*]] = hdp.span %tokens, %[[T]], limit = 16, scale = 1
// CHECK-NEXT: %value = hdp.tensor "value" activation shared i16 [16, 6144] rows %[[N]] : index {point = 10 : i64}
// CHECK: hdp.alias %input_1 [1536, 32]
// CHECK: %[[X:.*]] = hdp.window
// CHECK: %[[H:.*]] = hdp.alias %value [3072, 32]
// CHECK: hdp.ld %x, %[[X]], %{{.*}}, %c0, rows = 24, cols = 32, core_rows = 24, core_cols = 0
// CHECK: hdp.mm %acc, %w, %x, first = 1, b_transposed = 0
// CHECK: hdp.st %[[H]], %out_0, %{{.*}}, %c0, core_rows = 192, core_cols = 0
// CHECK: %[[R:.*]] = hdp.alias %value [384, 256]
// CHECK: hdp.group parts = 8, rows = 64
// CHECK: hdp.ld %x_2, %[[R]], %{{.*}}, %c0, rows = 48, cols = 128, core_rows = 48, core_cols = 0
// CHECK: hdp.mm %acc_1, %x_2, %slab, first = 1, b_transposed = 1
// CHECK: hdp.all
