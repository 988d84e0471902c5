// RUN: python %S/Inputs/make_weights.py %t.safetensors
// RUN: heatc-opt %s -p assign-fixed-point --weights %t.safetensors --split-input-file | filecheck %s

// A linear layer with a bias after a norm. The norm (gamma 1, beta 0, four channels) is below
// sqrt(3), so 14 fraction bits of 16; the weight 0.5 has 15, the sum 29, and so has the bias. The
// result is below sqrt(4) * 0.5 + 0.25 = 1.25: 14 again. Host work is float64 inside.

// CHECK-LABEL: func.func @linear(%x: tensor<2x3xi64>) -> tensor<2x3x4xf32> {
// CHECK-NEXT:    %p = attn.packing : () -> !attn.packing<2, 3>
// CHECK-NEXT:    %t = einsum.weight ["table"] : tensor<9x4xf32>
// CHECK-NEXT:    %g = einsum.weight ["gamma"] : tensor<4xf32>
// CHECK-NEXT:    %b = einsum.weight ["beta"] : tensor<4xf32>
// CHECK-NEXT:    %i = attn.pack %x, %p : (tensor<2x3xi64>, !attn.packing<2, 3>) -> tensor<?xi64>
// CHECK-NEXT:    %n = host.task (%ta = %t : tensor<9x4xf32>, %ia = %i : tensor<?xi64>, %ga = %g : tensor<4xf32>, %ba = %b : tensor<4xf32>) -> (tensor<?x4x!fixed.q<16, 14>>) {
// CHECK-NEXT:      %e = nn.embedding %ta, %ia : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf64>
// CHECK-NEXT:      %m = nn.layer_norm %e, %ga, %ba {eps = 1.000000e-12 : f64} : (tensor<?x4xf64>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf64>
// CHECK-NEXT:      %0 = fixed.quantize %m : tensor<?x4xf64> to tensor<?x4x!fixed.q<16, 14>>
// CHECK-NEXT:      host.yield %0 : tensor<?x4x!fixed.q<16, 14>>
// CHECK-NEXT:    }
// CHECK-NEXT:    %w = einsum.weight ["half"] : tensor<4x4x!fixed.q<16, 15>>
// CHECK-NEXT:    %0 = einsum.contract "ti,oi->to" %n, %w : (tensor<?x4x!fixed.q<16, 14>>, tensor<4x4x!fixed.q<16, 15>>) -> tensor<?x4x!fixed.q<48, 29>>
// CHECK-NEXT:    %c = einsum.weight ["quarter"] : tensor<4x!fixed.q<32, 29>>
// CHECK-NEXT:    %1 = nn.add %0, %c : (tensor<?x4x!fixed.q<48, 29>>, tensor<4x!fixed.q<32, 29>>) -> tensor<?x4x!fixed.q<48, 29>>
// CHECK-NEXT:    %y = fixed.requantize %1 : tensor<?x4x!fixed.q<48, 29>> to tensor<?x4x!fixed.q<16, 14>>
// CHECK-NEXT:    %o = host.task (%ya = %y : tensor<?x4x!fixed.q<16, 14>>, %pa = %p : !attn.packing<2, 3>) -> (tensor<2x3x4xf32>) {
// CHECK-NEXT:      %2 = fixed.dequantize %ya : tensor<?x4x!fixed.q<16, 14>> to tensor<?x4xf64>
// CHECK-NEXT:      %u = attn.unpack %2, %pa : (tensor<?x4xf64>, !attn.packing<2, 3>) -> tensor<2x3x4xf64>
// CHECK-NEXT:      %3 = nn.cast %u : (tensor<2x3x4xf64>) -> tensor<2x3x4xf32>
// CHECK-NEXT:      host.yield %3 : tensor<2x3x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %o : tensor<2x3x4xf32>
func.func @linear(%x: tensor<2x3xi64>) -> tensor<2x3x4xf32> {
  %p = attn.packing : () -> !attn.packing<2, 3>
  %t = einsum.weight ["table"] : tensor<9x4xf32>
  %g = einsum.weight ["gamma"] : tensor<4xf32>
  %b = einsum.weight ["beta"] : tensor<4xf32>
  %w = einsum.weight ["half"] : tensor<4x4xf32>
  %c = einsum.weight ["quarter"] : tensor<4xf32>
  %i = attn.pack %x, %p : (tensor<2x3xi64>, !attn.packing<2, 3>) -> tensor<?xi64>
  %n = host.task (%ta = %t : tensor<9x4xf32>, %ia = %i : tensor<?xi64>, %ga = %g : tensor<4xf32>, %ba = %b : tensor<4xf32>) -> (tensor<?x4xf32>) {
    %e = nn.embedding %ta, %ia : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
    %m = nn.layer_norm %e, %ga, %ba {eps = 1.0e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
    host.yield %m : tensor<?x4xf32>
  }
  %l = einsum.contract "ti,oi->to" %n, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %y = nn.add %l, %c : (tensor<?x4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
  %o = host.task (%ya = %y : tensor<?x4xf32>, %pa = %p : !attn.packing<2, 3>) -> (tensor<2x3x4xf32>) {
    %u = attn.unpack %ya, %pa : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
    host.yield %u : tensor<2x3x4xf32>
  }
  func.return %o : tensor<2x3x4xf32>
}

// -----

// Attention under rule paper: integers have no fraction bits, theta fits 48 bits, scores are 32
// bits (a head's |q| |k| is at most 4, and 4 more for the product that is dropped: 27 would fit,
// the operands have 14), probabilities have 14 fraction bits, values stay below the norm's bound.
// An embedding that co-processor work reads is rounded where it leaves its task.

// CHECK-LABEL: func.func @attention(%x: tensor<1x3xi64>) -> tensor<?x4xf32> {
// CHECK-NEXT:    %p = attn.packing : () -> !attn.packing<1, 3>
// CHECK-NEXT:    %t = einsum.weight ["table"] : tensor<9x4xf32>
// CHECK-NEXT:    %g = einsum.weight ["gamma"] : tensor<4xf32>
// CHECK-NEXT:    %b = einsum.weight ["beta"] : tensor<4xf32>
// CHECK-NEXT:    %i = attn.pack %x, %p : (tensor<1x3xi64>, !attn.packing<1, 3>) -> tensor<?xi64>
// CHECK-NEXT:    %v = host.task (%ta = %t : tensor<9x4xf32>, %ia = %i : tensor<?xi64>) -> (tensor<?x4x!fixed.q<16, 13>>) {
// CHECK-NEXT:      %e = nn.embedding %ta, %ia : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf64>
// CHECK-NEXT:      %0 = fixed.quantize %e : tensor<?x4xf64> to tensor<?x4x!fixed.q<16, 13>>
// CHECK-NEXT:      host.yield %0 : tensor<?x4x!fixed.q<16, 13>>
// CHECK-NEXT:    }
// CHECK-NEXT:    %q = host.task (%va = %v : tensor<?x4x!fixed.q<16, 13>>, %ga = %g : tensor<4xf32>, %ba = %b : tensor<4xf32>) -> (tensor<?x4x!fixed.q<16, 14>>) {
// CHECK-NEXT:      %0 = fixed.dequantize %va : tensor<?x4x!fixed.q<16, 13>> to tensor<?x4xf64>
// CHECK-NEXT:      %m = nn.layer_norm %0, %ga, %ba {eps = 1.000000e-12 : f64} : (tensor<?x4xf64>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf64>
// CHECK-NEXT:      %1 = fixed.quantize %m : tensor<?x4xf64> to tensor<?x4x!fixed.q<16, 14>>
// CHECK-NEXT:      host.yield %1 : tensor<?x4x!fixed.q<16, 14>>
// CHECK-NEXT:    }
// CHECK-NEXT:    %o = attn.pruned (%q_1 = %q : tensor<?x4x!fixed.q<16, 14>>, %p_1 = %p : !attn.packing<1, 3>, %v_1 = %v : tensor<?x4x!fixed.q<16, 13>>) -> (tensor<?x4x!fixed.q<16, 13>>) attributes {rule = #attn.rule<"paper", {}>} {
// CHECK-NEXT:      %iq, %fq = attn.split %q_1 : (tensor<?x4x!fixed.q<16, 14>>) -> (tensor<?x4x!fixed.q<16, 0>>, tensor<?x4x!fixed.q<16, 14>>)
// CHECK-NEXT:      %a = attn.integer_scores %iq, %iq, %p_1 {heads = 1 : i64} : (tensor<?x4x!fixed.q<16, 0>>, tensor<?x4x!fixed.q<16, 0>>, !attn.packing<1, 3>) -> tensor<1x1x3x3x!fixed.q<32, 0>>
// CHECK-NEXT:      %th = attn.block_importance %a, %p_1 {block = array<i64: 2, 2>, importance = "abs"} : (tensor<1x1x3x3x!fixed.q<32, 0>>, !attn.packing<1, 3>) -> tensor<1x1x2x2x!fixed.q<48, 0>>
// CHECK-NEXT:      %k = attn.block_mask %th, %p_1 {rho_b = 2.500000e-01 : f64, block = array<i64: 2, 2>} : (tensor<1x1x2x2x!fixed.q<48, 0>>, !attn.packing<1, 3>) -> tensor<1x1x2x2xi1>
// CHECK-NEXT:      %h = attn.head_gate %th, %p_1 {tau_h = 5.000000e-01 : f64, importance = "abs", block = array<i64: 2, 2>} : (tensor<1x1x2x2x!fixed.q<48, 0>>, !attn.packing<1, 3>) -> tensor<1x1xi1>
// CHECK-NEXT:      %s = attn.merge_scores %a, %iq, %fq, %iq, %fq, %k, %p_1 {heads = 1 : i64, block = array<i64: 2, 2>, pruned = "int"} : (tensor<1x1x3x3x!fixed.q<32, 0>>, tensor<?x4x!fixed.q<16, 0>>, tensor<?x4x!fixed.q<16, 14>>, tensor<?x4x!fixed.q<16, 0>>, tensor<?x4x!fixed.q<16, 14>>, tensor<1x1x2x2xi1>, !attn.packing<1, 3>) -> tensor<1x1x3x3x!fixed.q<32, 14>>
// CHECK-NEXT:      %r = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x1x3x3x!fixed.q<32, 14>>, !attn.packing<1, 3>) -> tensor<1x1x3x3x!fixed.q<16, 14>>
// CHECK-NEXT:      %o_1 = attn.weighted_values %r, %v_1, %p_1, %h {heads = 1 : i64, gated = "zero"} : (tensor<1x1x3x3x!fixed.q<16, 14>>, tensor<?x4x!fixed.q<16, 13>>, !attn.packing<1, 3>, tensor<1x1xi1>) -> tensor<?x4x!fixed.q<16, 13>>
// CHECK-NEXT:      attn.yield %o_1 : tensor<?x4x!fixed.q<16, 13>>
// CHECK-NEXT:    }
// CHECK-NEXT:    %0 = host.task (%1 = %o : tensor<?x4x!fixed.q<16, 13>>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %2 = fixed.dequantize %1 : tensor<?x4x!fixed.q<16, 13>> to tensor<?x4xf64>
// CHECK-NEXT:      %3 = nn.cast %2 : (tensor<?x4xf64>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %3 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %0 : tensor<?x4xf32>
func.func @attention(%x: tensor<1x3xi64>) -> tensor<?x4xf32> {
  %p = attn.packing : () -> !attn.packing<1, 3>
  %t = einsum.weight ["table"] : tensor<9x4xf32>
  %g = einsum.weight ["gamma"] : tensor<4xf32>
  %b = einsum.weight ["beta"] : tensor<4xf32>
  %i = attn.pack %x, %p : (tensor<1x3xi64>, !attn.packing<1, 3>) -> tensor<?xi64>
  %v = host.task (%ta = %t : tensor<9x4xf32>, %ia = %i : tensor<?xi64>) -> (tensor<?x4xf32>) {
    %e = nn.embedding %ta, %ia : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
    host.yield %e : tensor<?x4xf32>
  }
  %q = host.task (%va = %v : tensor<?x4xf32>, %ga = %g : tensor<4xf32>, %ba = %b : tensor<4xf32>) -> (tensor<?x4xf32>) {
    %m = nn.layer_norm %va, %ga, %ba {eps = 1.000000e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
    host.yield %m : tensor<?x4xf32>
  }
  %o = attn.pruned (%q_1 = %q : tensor<?x4xf32>, %p_1 = %p : !attn.packing<1, 3>, %v_1 = %v : tensor<?x4xf32>) -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"paper", {}>} {
    %iq, %fq = attn.split %q_1 : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
    %a = attn.integer_scores %iq, %iq, %p_1 {heads = 1 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 3>) -> tensor<1x1x3x3xf32>
    %th = attn.block_importance %a, %p_1 {block = array<i64: 2, 2>, importance = "abs"} : (tensor<1x1x3x3xf32>, !attn.packing<1, 3>) -> tensor<1x1x2x2xf32>
    %k = attn.block_mask %th, %p_1 {rho_b = 2.500000e-01 : f64, block = array<i64: 2, 2>} : (tensor<1x1x2x2xf32>, !attn.packing<1, 3>) -> tensor<1x1x2x2xi1>
    %h = attn.head_gate %th, %p_1 {tau_h = 5.000000e-01 : f64, importance = "abs", block = array<i64: 2, 2>} : (tensor<1x1x2x2xf32>, !attn.packing<1, 3>) -> tensor<1x1xi1>
    %s = attn.merge_scores %a, %iq, %fq, %iq, %fq, %k, %p_1 {heads = 1 : i64, block = array<i64: 2, 2>, pruned = "int"} : (tensor<1x1x3x3xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<1x1x2x2xi1>, !attn.packing<1, 3>) -> tensor<1x1x3x3xf32>
    %r = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x1x3x3xf32>, !attn.packing<1, 3>) -> tensor<1x1x3x3xf32>
    %o_1 = attn.weighted_values %r, %v_1, %p_1, %h {heads = 1 : i64, gated = "zero"} : (tensor<1x1x3x3xf32>, tensor<?x4xf32>, !attn.packing<1, 3>, tensor<1x1xi1>) -> tensor<?x4xf32>
    attn.yield %o_1 : tensor<?x4xf32>
  }
  func.return %o : tensor<?x4xf32>
}

// -----

// Unpruned scores have the bits of both operands, 14 + 14, where 32 bits hold them.

// CHECK-LABEL: func.func @scores(%x: tensor<1x3xi64>) -> tensor<?x4xf32> {
// CHECK-NEXT:    %p = attn.packing : () -> !attn.packing<1, 3>
// CHECK-NEXT:    %t = einsum.weight ["table"] : tensor<9x4xf32>
// CHECK-NEXT:    %g = einsum.weight ["gamma"] : tensor<4xf32>
// CHECK-NEXT:    %b = einsum.weight ["beta"] : tensor<4xf32>
// CHECK-NEXT:    %i = attn.pack %x, %p : (tensor<1x3xi64>, !attn.packing<1, 3>) -> tensor<?xi64>
// CHECK-NEXT:    %q = host.task (%ta = %t : tensor<9x4xf32>, %ia = %i : tensor<?xi64>, %ga = %g : tensor<4xf32>, %ba = %b : tensor<4xf32>) -> (tensor<?x4x!fixed.q<16, 14>>) {
// CHECK-NEXT:      %e = nn.embedding %ta, %ia : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf64>
// CHECK-NEXT:      %m = nn.layer_norm %e, %ga, %ba {eps = 1.000000e-12 : f64} : (tensor<?x4xf64>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf64>
// CHECK-NEXT:      %0 = fixed.quantize %m : tensor<?x4xf64> to tensor<?x4x!fixed.q<16, 14>>
// CHECK-NEXT:      host.yield %0 : tensor<?x4x!fixed.q<16, 14>>
// CHECK-NEXT:    }
// CHECK-NEXT:    %o = attn.pruned (%q_1 = %q : tensor<?x4x!fixed.q<16, 14>>, %p_1 = %p : !attn.packing<1, 3>) -> (tensor<?x4x!fixed.q<16, 14>>) attributes {rule = #attn.rule<"none", {}>} {
// CHECK-NEXT:      %s = attn.scores %q_1, %q_1, %p_1 {heads = 1 : i64} : (tensor<?x4x!fixed.q<16, 14>>, tensor<?x4x!fixed.q<16, 14>>, !attn.packing<1, 3>) -> tensor<1x1x3x3x!fixed.q<32, 28>>
// CHECK-NEXT:      %r = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x1x3x3x!fixed.q<32, 28>>, !attn.packing<1, 3>) -> tensor<1x1x3x3x!fixed.q<16, 14>>
// CHECK-NEXT:      %o_1 = attn.weighted_values %r, %q_1, %p_1 {heads = 1 : i64} : (tensor<1x1x3x3x!fixed.q<16, 14>>, tensor<?x4x!fixed.q<16, 14>>, !attn.packing<1, 3>) -> tensor<?x4x!fixed.q<16, 14>>
// CHECK-NEXT:      attn.yield %o_1 : tensor<?x4x!fixed.q<16, 14>>
// CHECK-NEXT:    }
// CHECK-NEXT:    %0 = host.task (%1 = %o : tensor<?x4x!fixed.q<16, 14>>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %2 = fixed.dequantize %1 : tensor<?x4x!fixed.q<16, 14>> to tensor<?x4xf64>
// CHECK-NEXT:      %3 = nn.cast %2 : (tensor<?x4xf64>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %3 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %0 : tensor<?x4xf32>
func.func @scores(%x: tensor<1x3xi64>) -> tensor<?x4xf32> {
  %p = attn.packing : () -> !attn.packing<1, 3>
  %t = einsum.weight ["table"] : tensor<9x4xf32>
  %g = einsum.weight ["gamma"] : tensor<4xf32>
  %b = einsum.weight ["beta"] : tensor<4xf32>
  %i = attn.pack %x, %p : (tensor<1x3xi64>, !attn.packing<1, 3>) -> tensor<?xi64>
  %q = host.task (%ta = %t : tensor<9x4xf32>, %ia = %i : tensor<?xi64>, %ga = %g : tensor<4xf32>, %ba = %b : tensor<4xf32>) -> (tensor<?x4xf32>) {
    %e = nn.embedding %ta, %ia : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
    %m = nn.layer_norm %e, %ga, %ba {eps = 1.000000e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
    host.yield %m : tensor<?x4xf32>
  }
  %o = attn.pruned (%q_1 = %q : tensor<?x4xf32>, %p_1 = %p : !attn.packing<1, 3>) -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"none", {}>} {
    %s = attn.scores %q_1, %q_1, %p_1 {heads = 1 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 3>) -> tensor<1x1x3x3xf32>
    %r = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x1x3x3xf32>, !attn.packing<1, 3>) -> tensor<1x1x3x3xf32>
    %o_1 = attn.weighted_values %r, %q_1, %p_1 {heads = 1 : i64} : (tensor<1x1x3x3xf32>, tensor<?x4xf32>, !attn.packing<1, 3>) -> tensor<?x4xf32>
    attn.yield %o_1 : tensor<?x4xf32>
  }
  func.return %o : tensor<?x4xf32>
}

// -----

// What an attention puts out is cut for a factor, as codes of the same point.

// CHECK-LABEL: func.func @cut(%x: tensor<1x3xi64>) -> tensor<?x1x4xf32> {
// CHECK-NEXT:    %p = attn.packing : () -> !attn.packing<1, 3>
// CHECK-NEXT:    %t = einsum.weight ["table"] : tensor<9x4xf32>
// CHECK-NEXT:    %g = einsum.weight ["gamma"] : tensor<4xf32>
// CHECK-NEXT:    %b = einsum.weight ["beta"] : tensor<4xf32>
// CHECK-NEXT:    %i = attn.pack %x, %p : (tensor<1x3xi64>, !attn.packing<1, 3>) -> tensor<?xi64>
// CHECK-NEXT:    %q = host.task (%ta = %t : tensor<9x4xf32>, %ia = %i : tensor<?xi64>, %ga = %g : tensor<4xf32>, %ba = %b : tensor<4xf32>) -> (tensor<?x4x!fixed.q<16, 14>>) {
// CHECK-NEXT:      %e = nn.embedding %ta, %ia : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf64>
// CHECK-NEXT:      %m = nn.layer_norm %e, %ga, %ba {eps = 1.000000e-12 : f64} : (tensor<?x4xf64>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf64>
// CHECK-NEXT:      %0 = fixed.quantize %m : tensor<?x4xf64> to tensor<?x4x!fixed.q<16, 14>>
// CHECK-NEXT:      host.yield %0 : tensor<?x4x!fixed.q<16, 14>>
// CHECK-NEXT:    }
// CHECK-NEXT:    %o = attn.pruned (%q_1 = %q : tensor<?x4x!fixed.q<16, 14>>, %p_1 = %p : !attn.packing<1, 3>) -> (tensor<?x4x!fixed.q<16, 14>>) attributes {rule = #attn.rule<"none", {}>} {
// CHECK-NEXT:      %s = attn.scores %q_1, %q_1, %p_1 {heads = 1 : i64} : (tensor<?x4x!fixed.q<16, 14>>, tensor<?x4x!fixed.q<16, 14>>, !attn.packing<1, 3>) -> tensor<1x1x3x3x!fixed.q<32, 28>>
// CHECK-NEXT:      %r = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x1x3x3x!fixed.q<32, 28>>, !attn.packing<1, 3>) -> tensor<1x1x3x3x!fixed.q<16, 14>>
// CHECK-NEXT:      %o_1 = attn.weighted_values %r, %q_1, %p_1 {heads = 1 : i64} : (tensor<1x1x3x3x!fixed.q<16, 14>>, tensor<?x4x!fixed.q<16, 14>>, !attn.packing<1, 3>) -> tensor<?x4x!fixed.q<16, 14>>
// CHECK-NEXT:      attn.yield %o_1 : tensor<?x4x!fixed.q<16, 14>>
// CHECK-NEXT:    }
// CHECK-NEXT:    %c = nn.reshape %o : (tensor<?x4x!fixed.q<16, 14>>) -> tensor<?x1x4x!fixed.q<16, 14>>
// CHECK-NEXT:    %w = einsum.weight ["identity"] : tensor<4x4x!fixed.q<16, 14>>
// CHECK-NEXT:    %0 = einsum.contract "tab,cb->tac" %c, %w : (tensor<?x1x4x!fixed.q<16, 14>>, tensor<4x4x!fixed.q<16, 14>>) -> tensor<?x1x4x!fixed.q<48, 28>>
// CHECK-NEXT:    %y = fixed.requantize %0 : tensor<?x1x4x!fixed.q<48, 28>> to tensor<?x1x4x!fixed.q<16, 14>>
// CHECK-NEXT:    %1 = host.task (%2 = %y : tensor<?x1x4x!fixed.q<16, 14>>) -> (tensor<?x1x4xf32>) {
// CHECK-NEXT:      %3 = fixed.dequantize %2 : tensor<?x1x4x!fixed.q<16, 14>> to tensor<?x1x4xf64>
// CHECK-NEXT:      %4 = nn.cast %3 : (tensor<?x1x4xf64>) -> tensor<?x1x4xf32>
// CHECK-NEXT:      host.yield %4 : tensor<?x1x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %1 : tensor<?x1x4xf32>
func.func @cut(%x: tensor<1x3xi64>) -> tensor<?x1x4xf32> {
  %p = attn.packing : () -> !attn.packing<1, 3>
  %t = einsum.weight ["table"] : tensor<9x4xf32>
  %g = einsum.weight ["gamma"] : tensor<4xf32>
  %b = einsum.weight ["beta"] : tensor<4xf32>
  %i = attn.pack %x, %p : (tensor<1x3xi64>, !attn.packing<1, 3>) -> tensor<?xi64>
  %q = host.task (%ta = %t : tensor<9x4xf32>, %ia = %i : tensor<?xi64>, %ga = %g : tensor<4xf32>, %ba = %b : tensor<4xf32>) -> (tensor<?x4xf32>) {
    %e = nn.embedding %ta, %ia : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
    %m = nn.layer_norm %e, %ga, %ba {eps = 1.000000e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
    host.yield %m : tensor<?x4xf32>
  }
  %o = attn.pruned (%q_1 = %q : tensor<?x4xf32>, %p_1 = %p : !attn.packing<1, 3>) -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"none", {}>} {
    %s = attn.scores %q_1, %q_1, %p_1 {heads = 1 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 3>) -> tensor<1x1x3x3xf32>
    %r = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x1x3x3xf32>, !attn.packing<1, 3>) -> tensor<1x1x3x3xf32>
    %o_1 = attn.weighted_values %r, %q_1, %p_1 {heads = 1 : i64} : (tensor<1x1x3x3xf32>, tensor<?x4xf32>, !attn.packing<1, 3>) -> tensor<?x4xf32>
    attn.yield %o_1 : tensor<?x4xf32>
  }
  %c = nn.reshape %o : (tensor<?x4xf32>) -> tensor<?x1x4xf32>
  %w = einsum.weight ["identity"] : tensor<4x4xf32>
  %y = einsum.contract "tab,cb->tac" %c, %w : (tensor<?x1x4xf32>, tensor<4x4xf32>) -> tensor<?x1x4xf32>
  func.return %y : tensor<?x1x4xf32>
}

// -----

// A weight without a magnitude, a weight far below its bias: the bias keeps room in the 48 bits
// (1000 below 2^10, so 36 of them, 14 of the activation, 22 of the weight). Without a bias the
// weight has the finest point, 40.

// CHECK-LABEL: func.func @extremes(%x: tensor<1x3xi64>) -> (tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>) {
// CHECK-NEXT:    %p = attn.packing : () -> !attn.packing<1, 3>
// CHECK-NEXT:    %t = einsum.weight ["table"] : tensor<9x4xf32>
// CHECK-NEXT:    %g = einsum.weight ["gamma"] : tensor<4xf32>
// CHECK-NEXT:    %b = einsum.weight ["beta"] : tensor<4xf32>
// CHECK-NEXT:    %i = attn.pack %x, %p : (tensor<1x3xi64>, !attn.packing<1, 3>) -> tensor<?xi64>
// CHECK-NEXT:    %q = host.task (%ta = %t : tensor<9x4xf32>, %ia = %i : tensor<?xi64>, %ga = %g : tensor<4xf32>, %ba = %b : tensor<4xf32>) -> (tensor<?x4x!fixed.q<16, 14>>) {
// CHECK-NEXT:      %e = nn.embedding %ta, %ia : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf64>
// CHECK-NEXT:      %m = nn.layer_norm %e, %ga, %ba {eps = 1.000000e-12 : f64} : (tensor<?x4xf64>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf64>
// CHECK-NEXT:      %0 = fixed.quantize %m : tensor<?x4xf64> to tensor<?x4x!fixed.q<16, 14>>
// CHECK-NEXT:      host.yield %0 : tensor<?x4x!fixed.q<16, 14>>
// CHECK-NEXT:    }
// CHECK-NEXT:    %w0 = einsum.weight ["zeros"] : tensor<4x4x!fixed.q<16, 15>>
// CHECK-NEXT:    %0 = einsum.contract "ti,oi->to" %q, %w0 : (tensor<?x4x!fixed.q<16, 14>>, tensor<4x4x!fixed.q<16, 15>>) -> tensor<?x4x!fixed.q<48, 29>>
// CHECK-NEXT:    %y0 = fixed.requantize %0 : tensor<?x4x!fixed.q<48, 29>> to tensor<?x4x!fixed.q<16, 28>>
// CHECK-NEXT:    %w1 = einsum.weight ["tiny"] : tensor<4x4x!fixed.q<16, 22>>
// CHECK-NEXT:    %1 = einsum.contract "ti,oi->to" %q, %w1 : (tensor<?x4x!fixed.q<16, 14>>, tensor<4x4x!fixed.q<16, 22>>) -> tensor<?x4x!fixed.q<48, 36>>
// CHECK-NEXT:    %c = einsum.weight ["thousand"] : tensor<4x!fixed.q<32, 21>>
// CHECK-NEXT:    %2 = nn.add %1, %c : (tensor<?x4x!fixed.q<48, 36>>, tensor<4x!fixed.q<32, 21>>) -> tensor<?x4x!fixed.q<48, 36>>
// CHECK-NEXT:    %y1 = fixed.requantize %2 : tensor<?x4x!fixed.q<48, 36>> to tensor<?x4x!fixed.q<16, 5>>
// CHECK-NEXT:    %w1_1 = einsum.weight ["tiny"] : tensor<4x4x!fixed.q<16, 40>>
// CHECK-NEXT:    %3 = einsum.contract "ti,oi->to" %q, %w1_1 : (tensor<?x4x!fixed.q<16, 14>>, tensor<4x4x!fixed.q<16, 40>>) -> tensor<?x4x!fixed.q<48, 54>>
// CHECK-NEXT:    %y2 = fixed.requantize %3 : tensor<?x4x!fixed.q<48, 54>> to tensor<?x4x!fixed.q<16, 40>>
// CHECK-NEXT:    %4 = host.task (%5 = %y0 : tensor<?x4x!fixed.q<16, 28>>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %6 = fixed.dequantize %5 : tensor<?x4x!fixed.q<16, 28>> to tensor<?x4xf64>
// CHECK-NEXT:      %7 = nn.cast %6 : (tensor<?x4xf64>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %7 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %5 = host.task (%6 = %y1 : tensor<?x4x!fixed.q<16, 5>>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %7 = fixed.dequantize %6 : tensor<?x4x!fixed.q<16, 5>> to tensor<?x4xf64>
// CHECK-NEXT:      %8 = nn.cast %7 : (tensor<?x4xf64>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %8 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %6 = host.task (%7 = %y2 : tensor<?x4x!fixed.q<16, 40>>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %8 = fixed.dequantize %7 : tensor<?x4x!fixed.q<16, 40>> to tensor<?x4xf64>
// CHECK-NEXT:      %9 = nn.cast %8 : (tensor<?x4xf64>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %9 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %4, %5, %6 : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>
func.func @extremes(%x: tensor<1x3xi64>) -> (tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>) {
  %p = attn.packing : () -> !attn.packing<1, 3>
  %t = einsum.weight ["table"] : tensor<9x4xf32>
  %g = einsum.weight ["gamma"] : tensor<4xf32>
  %b = einsum.weight ["beta"] : tensor<4xf32>
  %w0 = einsum.weight ["zeros"] : tensor<4x4xf32>
  %w1 = einsum.weight ["tiny"] : tensor<4x4xf32>
  %c = einsum.weight ["thousand"] : tensor<4xf32>
  %i = attn.pack %x, %p : (tensor<1x3xi64>, !attn.packing<1, 3>) -> tensor<?xi64>
  %q = host.task (%ta = %t : tensor<9x4xf32>, %ia = %i : tensor<?xi64>, %ga = %g : tensor<4xf32>, %ba = %b : tensor<4xf32>) -> (tensor<?x4xf32>) {
    %e = nn.embedding %ta, %ia : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
    %m = nn.layer_norm %e, %ga, %ba {eps = 1.0e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
    host.yield %m : tensor<?x4xf32>
  }
  %y0 = einsum.contract "ti,oi->to" %q, %w0 : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %l1 = einsum.contract "ti,oi->to" %q, %w1 : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %y1 = nn.add %c, %l1 : (tensor<4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %y2 = einsum.contract "ti,oi->to" %q, %w1 : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  func.return %y0, %y1, %y2 : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>
}

// -----

// The linear layer of a norm close to 2, with a bias that takes the 2 away, is close to 0: 20
// fraction bits. The row of a masked first token is 0, and leaves the bias: 13 bits.

// CHECK-LABEL: func.func @masked_token(%x: tensor<2x3xi64>, %m: tensor<2x3xi64>) -> (tensor<?x4xf32>, tensor<2x4xf32>) {
// CHECK-NEXT:    %p = attn.packing %m : (tensor<2x3xi64>) -> !attn.packing<2, 3>
// CHECK-NEXT:    %t = einsum.weight ["table"] : tensor<9x4xf32>
// CHECK-NEXT:    %g = einsum.weight ["hundredth"] : tensor<4xf32>
// CHECK-NEXT:    %b = einsum.weight ["two"] : tensor<4xf32>
// CHECK-NEXT:    %i = attn.pack %x, %p : (tensor<2x3xi64>, !attn.packing<2, 3>) -> tensor<?xi64>
// CHECK-NEXT:    %n = host.task (%ta = %t : tensor<9x4xf32>, %ia = %i : tensor<?xi64>, %ga = %g : tensor<4xf32>, %ba = %b : tensor<4xf32>) -> (tensor<?x4x!fixed.q<16, 13>>) {
// CHECK-NEXT:      %e = nn.embedding %ta, %ia : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf64>
// CHECK-NEXT:      %l = nn.layer_norm %e, %ga, %ba {eps = 1.000000e-12 : f64} : (tensor<?x4xf64>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf64>
// CHECK-NEXT:      %0 = fixed.quantize %l : tensor<?x4xf64> to tensor<?x4x!fixed.q<16, 13>>
// CHECK-NEXT:      host.yield %0 : tensor<?x4x!fixed.q<16, 13>>
// CHECK-NEXT:    }
// CHECK-NEXT:    %w = einsum.weight ["identity"] : tensor<4x4x!fixed.q<16, 14>>
// CHECK-NEXT:    %0 = einsum.contract "ti,oi->to" %n, %w : (tensor<?x4x!fixed.q<16, 13>>, tensor<4x4x!fixed.q<16, 14>>) -> tensor<?x4x!fixed.q<48, 27>>
// CHECK-NEXT:    %c = einsum.weight ["minus_two"] : tensor<4x!fixed.q<32, 27>>
// CHECK-NEXT:    %1 = nn.add %0, %c : (tensor<?x4x!fixed.q<48, 27>>, tensor<4x!fixed.q<32, 27>>) -> tensor<?x4x!fixed.q<48, 27>>
// CHECK-NEXT:    %y = fixed.requantize %1 : tensor<?x4x!fixed.q<48, 27>> to tensor<?x4x!fixed.q<16, 20>>
// CHECK-NEXT:    %o = host.task (%na = %n : tensor<?x4x!fixed.q<16, 13>>, %pa = %p : !attn.packing<2, 3>) -> (tensor<2x4x!fixed.q<16, 13>>) {
// CHECK-NEXT:      %2 = fixed.dequantize %na : tensor<?x4x!fixed.q<16, 13>> to tensor<?x4xf64>
// CHECK-NEXT:      %r = attn.token %2, %pa {position = 0 : i64} : (tensor<?x4xf64>, !attn.packing<2, 3>) -> tensor<2x4xf64>
// CHECK-NEXT:      %3 = fixed.quantize %r : tensor<2x4xf64> to tensor<2x4x!fixed.q<16, 13>>
// CHECK-NEXT:      host.yield %3 : tensor<2x4x!fixed.q<16, 13>>
// CHECK-NEXT:    }
// CHECK-NEXT:    %w_1 = einsum.weight ["identity"] : tensor<4x4x!fixed.q<16, 14>>
// CHECK-NEXT:    %2 = einsum.contract "bi,oi->bo" %o, %w_1 : (tensor<2x4x!fixed.q<16, 13>>, tensor<4x4x!fixed.q<16, 14>>) -> tensor<2x4x!fixed.q<48, 27>>
// CHECK-NEXT:    %c_1 = einsum.weight ["minus_two"] : tensor<4x!fixed.q<32, 27>>
// CHECK-NEXT:    %3 = nn.add %2, %c_1 : (tensor<2x4x!fixed.q<48, 27>>, tensor<4x!fixed.q<32, 27>>) -> tensor<2x4x!fixed.q<48, 27>>
// CHECK-NEXT:    %z = fixed.requantize %3 : tensor<2x4x!fixed.q<48, 27>> to tensor<2x4x!fixed.q<16, 13>>
// CHECK-NEXT:    %4 = host.task (%5 = %y : tensor<?x4x!fixed.q<16, 20>>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %6 = fixed.dequantize %5 : tensor<?x4x!fixed.q<16, 20>> to tensor<?x4xf64>
// CHECK-NEXT:      %7 = nn.cast %6 : (tensor<?x4xf64>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %7 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %5 = host.task (%6 = %z : tensor<2x4x!fixed.q<16, 13>>) -> (tensor<2x4xf32>) {
// CHECK-NEXT:      %7 = fixed.dequantize %6 : tensor<2x4x!fixed.q<16, 13>> to tensor<2x4xf64>
// CHECK-NEXT:      %8 = nn.cast %7 : (tensor<2x4xf64>) -> tensor<2x4xf32>
// CHECK-NEXT:      host.yield %8 : tensor<2x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %4, %5 : tensor<?x4xf32>, tensor<2x4xf32>
func.func @masked_token(%x: tensor<2x3xi64>, %m: tensor<2x3xi64>) -> (tensor<?x4xf32>, tensor<2x4xf32>) {
  %p = attn.packing %m : (tensor<2x3xi64>) -> !attn.packing<2, 3>
  %t = einsum.weight ["table"] : tensor<9x4xf32>
  %g = einsum.weight ["hundredth"] : tensor<4xf32>
  %b = einsum.weight ["two"] : tensor<4xf32>
  %w = einsum.weight ["identity"] : tensor<4x4xf32>
  %c = einsum.weight ["minus_two"] : tensor<4xf32>
  %i = attn.pack %x, %p : (tensor<2x3xi64>, !attn.packing<2, 3>) -> tensor<?xi64>
  %n = host.task (%ta = %t : tensor<9x4xf32>, %ia = %i : tensor<?xi64>, %ga = %g : tensor<4xf32>, %ba = %b : tensor<4xf32>) -> (tensor<?x4xf32>) {
    %e = nn.embedding %ta, %ia : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
    %l = nn.layer_norm %e, %ga, %ba {eps = 1.0e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
    host.yield %l : tensor<?x4xf32>
  }
  %y0 = einsum.contract "ti,oi->to" %n, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %y = nn.add %y0, %c : (tensor<?x4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
  %o = host.task (%na = %n : tensor<?x4xf32>, %pa = %p : !attn.packing<2, 3>) -> (tensor<2x4xf32>) {
    %r = attn.token %na, %pa {position = 0 : i64} : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x4xf32>
    host.yield %r : tensor<2x4xf32>
  }
  %z0 = einsum.contract "bi,oi->bo" %o, %w : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32>
  %z = nn.add %z0, %c : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  func.return %y, %z : tensor<?x4xf32>, tensor<2x4xf32>
}
