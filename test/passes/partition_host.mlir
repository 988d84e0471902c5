// RUN: heatc-opt %s -p partition-host --split-input-file | filecheck %s

// The embeddings and their norm are one task, and so is a residual sum and its norm: each is
// rounded once. Ids, packing, linear layers with their biases, and attention stay outside.

// CHECK-LABEL: func.func @layer(%ids: tensor<2x3xi64>, %m: tensor<2x3xi64>) -> tensor<2x3x4xf32> {
// CHECK-NEXT:    %p = attn.packing %m : (tensor<2x3xi64>) -> !attn.packing<2, 3>
// CHECK-NEXT:    %t = einsum.weight ["word"] : tensor<9x4xf32>
// CHECK-NEXT:    %u = einsum.weight ["type"] : tensor<2x4xf32>
// CHECK-NEXT:    %g = einsum.weight ["gamma"] : tensor<4xf32>
// CHECK-NEXT:    %w = einsum.weight ["w"] : tensor<4x4xf32>
// CHECK-NEXT:    %b = einsum.weight ["b"] : tensor<4xf32>
// CHECK-NEXT:    %i = attn.pack %ids, %p : (tensor<2x3xi64>, !attn.packing<2, 3>) -> tensor<?xi64>
// CHECK-NEXT:    %n = host.task (%t_1 = %t : tensor<9x4xf32>, %i_1 = %i : tensor<?xi64>, %u_1 = %u : tensor<2x4xf32>, %g_1 = %g : tensor<4xf32>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %e = nn.embedding %t_1, %i_1 : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
// CHECK-NEXT:      %f = nn.embedding %u_1, %i_1 : (tensor<2x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
// CHECK-NEXT:      %x = nn.add %e, %f : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      %n_1 = nn.layer_norm %x, %g_1, %g_1 {eps = 1.000000e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %n_1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %q0 = einsum.contract "ti,oi->to" %n, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %q = nn.add %q0, %b : (tensor<?x4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.pruned (%q_1 = %q : tensor<?x4xf32>, %n_1 = %n : tensor<?x4xf32>, %p_1 = %p : !attn.packing<2, 3>) -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"none", {}>} {
// CHECK-NEXT:      %s = attn.scores %q_1, %n_1, %p_1 {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x2x3x3xf32>
// CHECK-NEXT:      %r = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x2x3x3xf32>, !attn.packing<2, 3>) -> tensor<2x2x3x3xf32>
// CHECK-NEXT:      %a_1 = attn.weighted_values %r, %n_1, %p_1 {heads = 2 : i64} : (tensor<2x2x3x3xf32>, tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<?x4xf32>
// CHECK-NEXT:      attn.yield %a_1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %z = host.task (%a_1 = %a : tensor<?x4xf32>, %n_1 = %n : tensor<?x4xf32>, %g_1 = %g : tensor<4xf32>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %y = nn.add %a_1, %n_1 : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      %z_1 = nn.layer_norm %y, %g_1, %g_1 {eps = 1.000000e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %z_1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %o = host.task (%z_1 = %z : tensor<?x4xf32>, %p_1 = %p : !attn.packing<2, 3>) -> (tensor<2x3x4xf32>) {
// CHECK-NEXT:      %o_1 = attn.unpack %z_1, %p_1 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:      host.yield %o_1 : tensor<2x3x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %o : tensor<2x3x4xf32>
func.func @layer(%ids: tensor<2x3xi64>, %m: tensor<2x3xi64>) -> tensor<2x3x4xf32> {
  %p = attn.packing %m : (tensor<2x3xi64>) -> !attn.packing<2, 3>
  %t = einsum.weight ["word"] : tensor<9x4xf32>
  %u = einsum.weight ["type"] : tensor<2x4xf32>
  %g = einsum.weight ["gamma"] : tensor<4xf32>
  %w = einsum.weight ["w"] : tensor<4x4xf32>
  %b = einsum.weight ["b"] : tensor<4xf32>
  %i = attn.pack %ids, %p : (tensor<2x3xi64>, !attn.packing<2, 3>) -> tensor<?xi64>
  %e = nn.embedding %t, %i : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
  %f = nn.embedding %u, %i : (tensor<2x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
  %x = nn.add %e, %f : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %n = nn.layer_norm %x, %g, %g {eps = 1.000000e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
  %q0 = einsum.contract "ti,oi->to" %n, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %q = nn.add %q0, %b : (tensor<?x4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
  %a = attn.pruned (%q_1 = %q : tensor<?x4xf32>, %n_1 = %n : tensor<?x4xf32>, %p_1 = %p : !attn.packing<2, 3>) -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"none", {}>} {
    %s = attn.scores %q_1, %n_1, %p_1 {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x2x3x3xf32>
    %r = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<2x2x3x3xf32>, !attn.packing<2, 3>) -> tensor<2x2x3x3xf32>
    %a_1 = attn.weighted_values %r, %n_1, %p_1 {heads = 2 : i64} : (tensor<2x2x3x3xf32>, tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<?x4xf32>
    attn.yield %a_1 : tensor<?x4xf32>
  }
  %y = nn.add %a, %n : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %z = nn.layer_norm %y, %g, %g {eps = 1.000000e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
  %o = attn.unpack %z, %p : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
  func.return %o : tensor<2x3x4xf32>
}

// -----

// A sum that two ops read is a task of its own.

// CHECK-LABEL: func.func @two_readers(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>) {
// CHECK-NEXT:    %g = einsum.weight ["gamma"] : tensor<4xf32>
// CHECK-NEXT:    %s = host.task (%x_1 = %x : tensor<?x4xf32>, %y_1 = %y : tensor<?x4xf32>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %s_1 = nn.add %x_1, %y_1 : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %s_1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %n = host.task (%s_1 = %s : tensor<?x4xf32>, %g_1 = %g : tensor<4xf32>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %n_1 = nn.layer_norm %s_1, %g_1, %g_1 {eps = 1.000000e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %n_1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %h = host.task (%s_1 = %s : tensor<?x4xf32>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %h_1 = nn.gelu %s_1 {approximate = "none"} : (tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %h_1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %n, %h : tensor<?x4xf32>, tensor<?x4xf32>
func.func @two_readers(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>) {
  %g = einsum.weight ["gamma"] : tensor<4xf32>
  %s = nn.add %x, %y : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %n = nn.layer_norm %s, %g, %g {eps = 1.0e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
  %h = nn.gelu %s {approximate = "none"} : (tensor<?x4xf32>) -> tensor<?x4xf32>
  func.return %n, %h : tensor<?x4xf32>, tensor<?x4xf32>
}

// -----

// An activation and a norm after it are two roundings, hence two tasks; a sum joins what reads it,
// whatever stands between the two.

// CHECK-LABEL: func.func @order(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>, %p: !attn.packing<2, 3>) -> tensor<2x4xf32> {
// CHECK-NEXT:    %g = einsum.weight ["gamma"] : tensor<4xf32>
// CHECK-NEXT:    %h = host.task (%y_1 = %y : tensor<?x4xf32>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %h_1 = nn.relu %y_1 : (tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %h_1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %n = host.task (%x_1 = %x : tensor<?x4xf32>, %y_1 = %y : tensor<?x4xf32>, %h_1 = %h : tensor<?x4xf32>, %g_1 = %g : tensor<4xf32>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %s = nn.add %x_1, %y_1 : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      %u = nn.add %s, %h_1 : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      %n_1 = nn.layer_norm %u, %g_1, %g_1 {eps = 1.000000e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %n_1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %o = host.task (%n_1 = %n : tensor<?x4xf32>, %p_1 = %p : !attn.packing<2, 3>) -> (tensor<2x4xf32>) {
// CHECK-NEXT:      %o_1 = attn.token %n_1, %p_1 {position = 0 : i64} : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x4xf32>
// CHECK-NEXT:      host.yield %o_1 : tensor<2x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %t = host.task (%o_1 = %o : tensor<2x4xf32>) -> (tensor<2x4xf32>) {
// CHECK-NEXT:      %t_1 = nn.tanh %o_1 : (tensor<2x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:      host.yield %t_1 : tensor<2x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %t : tensor<2x4xf32>
func.func @order(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>, %p: !attn.packing<2, 3>) -> tensor<2x4xf32> {
  %g = einsum.weight ["gamma"] : tensor<4xf32>
  %s = nn.add %x, %y : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %h = nn.relu %y : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %u = nn.add %s, %h : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %n = nn.layer_norm %u, %g, %g {eps = 1.0e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
  %o = attn.token %n, %p {position = 0 : i64} : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x4xf32>
  %t = nn.tanh %o : (tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return %t : tensor<2x4xf32>
}

// -----

// A bias that is added to something else than a linear layer is host work; so is the sum of a
// linear layer that something else reads, too.

// CHECK-LABEL: func.func @sums(%x: tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>) {
// CHECK-NEXT:    %w = einsum.weight ["w"] : tensor<4x4xf32>
// CHECK-NEXT:    %b = einsum.weight ["b"] : tensor<4xf32>
// CHECK-NEXT:    %s = host.task (%x_1 = %x : tensor<?x4xf32>, %b_1 = %b : tensor<4xf32>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %s_1 = nn.add %x_1, %b_1 : (tensor<?x4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %s_1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %l = einsum.contract "ti,oi->to" %x, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %m = host.task (%b_1 = %b : tensor<4xf32>, %l_1 = %l : tensor<?x4xf32>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %m_1 = nn.add %b_1, %l_1 : (tensor<4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %m_1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %s, %l, %m : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>
func.func @sums(%x: tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>) {
  %w = einsum.weight ["w"] : tensor<4x4xf32>
  %b = einsum.weight ["b"] : tensor<4xf32>
  %s = nn.add %x, %b : (tensor<?x4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
  %l = einsum.contract "ti,oi->to" %x, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %m = nn.add %b, %l : (tensor<4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  func.return %s, %l, %m : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>
}
