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
// CHECK-NEXT:    }
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

// A sum and what reads it are one task: nothing is rounded between them, and two results leave.

// CHECK-LABEL: func.func @two_readers(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>) {
// CHECK-NEXT:    %g = einsum.weight ["gamma"] : tensor<4xf32>
// CHECK-NEXT:    %n, %h = host.task (%x_1 = %x : tensor<?x4xf32>, %y_1 = %y : tensor<?x4xf32>, %g_1 = %g : tensor<4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>) {
// CHECK-NEXT:      %s = nn.add %x_1, %y_1 : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      %n_1 = nn.layer_norm %s, %g_1, %g_1 {eps = 1.000000e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      %h_1 = nn.gelu %s {approximate = "none"} : (tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %n_1, %h_1 : tensor<?x4xf32>, tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %n, %h : tensor<?x4xf32>, tensor<?x4xf32>
// CHECK-NEXT:    }
func.func @two_readers(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>) {
  %g = einsum.weight ["gamma"] : tensor<4xf32>
  %s = nn.add %x, %y : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %n = nn.layer_norm %s, %g, %g {eps = 1.0e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
  %h = nn.gelu %s {approximate = "none"} : (tensor<?x4xf32>) -> tensor<?x4xf32>
  func.return %n, %h : tensor<?x4xf32>, tensor<?x4xf32>
}

// -----

// A row of each sequence is read from memory: a task ends before it, and one begins with it.

// CHECK-LABEL: func.func @order(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>, %p: !attn.packing<2, 3>) -> tensor<2x4xf32> {
// CHECK-NEXT:    %g = einsum.weight ["gamma"] : tensor<4xf32>
// CHECK-NEXT:    %n = host.task (%x_1 = %x : tensor<?x4xf32>, %y_1 = %y : tensor<?x4xf32>, %g_1 = %g : tensor<4xf32>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %s = nn.add %x_1, %y_1 : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      %h = nn.relu %y_1 : (tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      %u = nn.add %s, %h : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      %n_1 = nn.layer_norm %u, %g_1, %g_1 {eps = 1.000000e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %n_1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %t = host.task (%n_1 = %n : tensor<?x4xf32>, %p_1 = %p : !attn.packing<2, 3>) -> (tensor<2x4xf32>) {
// CHECK-NEXT:      %o = attn.token %n_1, %p_1 {position = 0 : i64} : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x4xf32>
// CHECK-NEXT:      %t_1 = nn.tanh %o : (tensor<2x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:      host.yield %t_1 : tensor<2x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %t : tensor<2x4xf32>
// CHECK-NEXT:    }
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
// linear layer that something else reads, too. A float input that a product reads is rounded first.

// CHECK-LABEL: func.func @sums(%x: tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>) {
// CHECK-NEXT:    %w = einsum.weight ["w"] : tensor<4x4xf32>
// CHECK-NEXT:    %b = einsum.weight ["b"] : tensor<4xf32>
// CHECK-NEXT:    %s = host.task (%x_1 = %x : tensor<?x4xf32>, %b_1 = %b : tensor<4xf32>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %s_1 = nn.add %x_1, %b_1 : (tensor<?x4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %s_1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %0 = host.task (%x_1 = %x : tensor<?x4xf32>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %1 = nn.cast %x_1 : (tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %l = einsum.contract "ti,oi->to" %0, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %m = host.task (%b_1 = %b : tensor<4xf32>, %l_1 = %l : tensor<?x4xf32>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %m_1 = nn.add %b_1, %l_1 : (tensor<4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %m_1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %s, %l, %m : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>
// CHECK-NEXT:    }
func.func @sums(%x: tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>) {
  %w = einsum.weight ["w"] : tensor<4x4xf32>
  %b = einsum.weight ["b"] : tensor<4xf32>
  %s = nn.add %x, %b : (tensor<?x4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
  %l = einsum.contract "ti,oi->to" %x, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %m = nn.add %b, %l : (tensor<4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  func.return %s, %l, %m : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>
}

// -----

// Integers that inputs decide are host work, and a number is written into each task that reads it. Positions
// by a running sum are a task; the table is looked up where its rows are summed. Ids that are computed are
// checked: -1 is no row.

// CHECK-LABEL: func.func @positions(%ids: tensor<2x3xi64>, %m: tensor<2x3xi64>) -> tensor<2x3x4xf32> {
// CHECK-NEXT:    %p = attn.packing %m : (tensor<2x3xi64>) -> !attn.packing<2, 3>
// CHECK-NEXT:    %t = einsum.weight ["word"] : tensor<9x4xf32>
// CHECK-NEXT:    %u = einsum.weight ["position"] : tensor<5x4xf32>
// CHECK-NEXT:    %i = attn.pack %ids, %p : (tensor<2x3xi64>, !attn.packing<2, 3>) -> tensor<?xi64>
// CHECK-NEXT:    %0 = host.task (%ids_1 = %ids : tensor<2x3xi64>) -> (tensor<2x3xi64>) {
// CHECK-NEXT:      %one = nn.full {value = 1.000000e+00 : f64} : tensor<i64>
// CHECK-NEXT:      %1 = nn.full {value = 0.000000e+00 : f64} : tensor<i64>
// CHECK-NEXT:      %2 = nn.full {value = -2.000000e+00 : f64} : tensor<i64>
// CHECK-NEXT:      %b = nn.compare %ids_1, %one {predicate = "ne"} : (tensor<2x3xi64>, tensor<i64>) -> tensor<2x3xi1>
// CHECK-NEXT:      %n = nn.cast %b : (tensor<2x3xi1>) -> tensor<2x3xi64>
// CHECK-NEXT:      %c = nn.cumsum %n {axis = 1 : i64} : (tensor<2x3xi64>) -> tensor<2x3xi64>
// CHECK-NEXT:      %s = nn.add %c, %one : (tensor<2x3xi64>, tensor<i64>) -> tensor<2x3xi64>
// CHECK-NEXT:      %3 = nn.compare %s, %1 {predicate = "lt"} : (tensor<2x3xi64>, tensor<i64>) -> tensor<2x3xi1>
// CHECK-NEXT:      %4 = nn.where %3, %2, %s : (tensor<2x3xi1>, tensor<i64>, tensor<2x3xi64>) -> tensor<2x3xi64>
// CHECK-NEXT:      host.yield %4 : tensor<2x3xi64>
// CHECK-NEXT:    }
// CHECK-NEXT:    %j = attn.pack %0, %p : (tensor<2x3xi64>, !attn.packing<2, 3>) -> tensor<?xi64>
// CHECK-NEXT:    %x = host.task (%t_1 = %t : tensor<9x4xf32>, %i_1 = %i : tensor<?xi64>, %u_1 = %u : tensor<5x4xf32>, %j_1 = %j : tensor<?xi64>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %e = nn.embedding %t_1, %i_1 : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
// CHECK-NEXT:      %f = nn.embedding %u_1, %j_1 : (tensor<5x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
// CHECK-NEXT:      %x_1 = nn.add %e, %f : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %x_1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %o = host.task (%x_1 = %x : tensor<?x4xf32>, %p_1 = %p : !attn.packing<2, 3>) -> (tensor<2x3x4xf32>) {
// CHECK-NEXT:      %o_1 = attn.unpack %x_1, %p_1 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:      host.yield %o_1 : tensor<2x3x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %o : tensor<2x3x4xf32>
// CHECK-NEXT:    }
func.func @positions(%ids: tensor<2x3xi64>, %m: tensor<2x3xi64>) -> tensor<2x3x4xf32> {
  %p = attn.packing %m : (tensor<2x3xi64>) -> !attn.packing<2, 3>
  %t = einsum.weight ["word"] : tensor<9x4xf32>
  %u = einsum.weight ["position"] : tensor<5x4xf32>
  %one = nn.full {value = 1.0 : f64} : tensor<i64>
  %b = nn.compare %ids, %one {predicate = "ne"} : (tensor<2x3xi64>, tensor<i64>) -> tensor<2x3xi1>
  %n = nn.cast %b : (tensor<2x3xi1>) -> tensor<2x3xi64>
  %c = nn.cumsum %n {axis = 1 : i64} : (tensor<2x3xi64>) -> tensor<2x3xi64>
  %s = nn.add %c, %one : (tensor<2x3xi64>, tensor<i64>) -> tensor<2x3xi64>
  %i = attn.pack %ids, %p : (tensor<2x3xi64>, !attn.packing<2, 3>) -> tensor<?xi64>
  %j = attn.pack %s, %p : (tensor<2x3xi64>, !attn.packing<2, 3>) -> tensor<?xi64>
  %e = nn.embedding %t, %i : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
  %f = nn.embedding %u, %j : (tensor<5x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
  %x = nn.add %e, %f : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %o = attn.unpack %x, %p : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
  func.return %o : tensor<2x3x4xf32>
}

// -----

// A row that a computed index picks is a gather; the product with a mask is of rows that are back, so that
// a mean over tokens is one task. A view that only the co-processor reads stays outside.

// CHECK-LABEL: func.func @pooled(%x: tensor<?x4xf32>, %ids: tensor<2x3xi64>, %m: tensor<2x3x1xf32>, %p: !attn.packing<2, 3>) -> (tensor<2x4xf32>, tensor<2x4xf32>) {
// CHECK-NEXT:    %c = host.task (%x_1 = %x : tensor<?x4xf32>, %p_1 = %p : !attn.packing<2, 3>, %m_1 = %m : tensor<2x3x1xf32>) -> (tensor<2x4xf32>) {
// CHECK-NEXT:      %0 = attn.unpack %x_1, %p_1 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:      %z = nn.mul %0, %m_1 : (tensor<2x3x4xf32>, tensor<2x3x1xf32>) -> tensor<2x3x4xf32>
// CHECK-NEXT:      %a = nn.reduce %z {kind = "sum", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:      %b = nn.reduce %m_1 {kind = "sum", axes = array<i64: 1>} : (tensor<2x3x1xf32>) -> tensor<2x1xf32>
// CHECK-NEXT:      %c_1 = nn.div %a, %b : (tensor<2x4xf32>, tensor<2x1xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:      host.yield %c_1 : tensor<2x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %g = host.task (%x_1 = %x : tensor<?x4xf32>, %p_1 = %p : !attn.packing<2, 3>) -> (tensor<2x3x4xf32>) {
// CHECK-NEXT:      %g_1 = attn.unpack %x_1, %p_1 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:      host.yield %g_1 : tensor<2x3x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %r = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<2xi64>
// CHECK-NEXT:    %0 = nn.full {value = 3.000000e+00 : f64} : tensor<i64>
// CHECK-NEXT:    %1 = nn.mul %r, %0 : (tensor<2xi64>, tensor<i64>) -> tensor<2xi64>
// CHECK-NEXT:    %2 = host.task (%ids_1 = %ids : tensor<2x3xi64>, %3 = %1 : tensor<2xi64>) -> (tensor<2xi64>) {
// CHECK-NEXT:      %k = nn.argmax %ids_1 {axis = 1 : i64} : (tensor<2x3xi64>) -> tensor<2xi64>
// CHECK-NEXT:      %4 = nn.add %3, %k : (tensor<2xi64>, tensor<2xi64>) -> tensor<2xi64>
// CHECK-NEXT:      host.yield %4 : tensor<2xi64>
// CHECK-NEXT:    }
// CHECK-NEXT:    %3 = nn.reshape %g : (tensor<2x3x4xf32>) -> tensor<6x4xf32>
// CHECK-NEXT:    %h = host.task (%4 = %3 : tensor<6x4xf32>, %5 = %2 : tensor<2xi64>) -> (tensor<2x4xf32>) {
// CHECK-NEXT:      %6 = nn.embedding %4, %5 : (tensor<6x4xf32>, tensor<2xi64>) -> tensor<2x4xf32>
// CHECK-NEXT:      %h_1 = nn.reshape %6 : (tensor<2x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:      host.yield %h_1 : tensor<2x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %c, %h : tensor<2x4xf32>, tensor<2x4xf32>
// CHECK-NEXT:    }
func.func @pooled(%x: tensor<?x4xf32>, %ids: tensor<2x3xi64>, %m: tensor<2x3x1xf32>, %p: !attn.packing<2, 3>) -> (tensor<2x4xf32>, tensor<2x4xf32>) {
  %w = attn.pack %m, %p : (tensor<2x3x1xf32>, !attn.packing<2, 3>) -> tensor<?x1xf32>
  %y = nn.mul %x, %w : (tensor<?x4xf32>, tensor<?x1xf32>) -> tensor<?x4xf32>
  %z = attn.unpack %y, %p : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
  %a = nn.reduce %z {kind = "sum", axes = array<i64: 1>} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
  %b = nn.reduce %m {kind = "sum", axes = array<i64: 1>} : (tensor<2x3x1xf32>) -> tensor<2x1xf32>
  %c = nn.div %a, %b : (tensor<2x4xf32>, tensor<2x1xf32>) -> tensor<2x4xf32>
  %g = attn.unpack %x, %p : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
  %k = nn.argmax %ids {axis = 1 : i64} : (tensor<2x3xi64>) -> tensor<2xi64>
  %r = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<2xi64>
  %h = nn.index %g, %r, %k : (tensor<2x3x4xf32>, tensor<2xi64>, tensor<2xi64>) -> tensor<2x4xf32>
  func.return %c, %h : tensor<2x4xf32>, tensor<2x4xf32>
}

// -----

// Where every position has a row, a fill by a mask is done behind the rows that come back; where not, a
// product alone is, and one of two packed values is not.

// CHECK-LABEL: func.func @filled(%q: tensor<2x3x4xf32>, %m: tensor<2x3x1xi1>) -> tensor<2x3x4xf32> {
// CHECK-NEXT:    %p = attn.packing : () -> !attn.packing<2, 3>
// CHECK-NEXT:    %x = host.task (%q_1 = %q : tensor<2x3x4xf32>, %p_1 = %p : !attn.packing<2, 3>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %k = attn.pack %q_1, %p_1 : (tensor<2x3x4xf32>, !attn.packing<2, 3>) -> tensor<?x4xf32>
// CHECK-NEXT:      %x_1 = nn.tanh %k : (tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %x_1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %z = host.task (%x_1 = %x : tensor<?x4xf32>, %p_1 = %p : !attn.packing<2, 3>, %m_1 = %m : tensor<2x3x1xi1>) -> (tensor<2x3x4xf32>) {
// CHECK-NEXT:      %f = nn.full {value = -1.000000e+09 : f64} : tensor<f32>
// CHECK-NEXT:      %0 = attn.unpack %x_1, %p_1 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:      %z_1 = nn.where %m_1, %0, %f : (tensor<2x3x1xi1>, tensor<2x3x4xf32>, tensor<f32>) -> tensor<2x3x4xf32>
// CHECK-NEXT:      host.yield %z_1 : tensor<2x3x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %z : tensor<2x3x4xf32>
// CHECK-NEXT:    }
func.func @filled(%q: tensor<2x3x4xf32>, %m: tensor<2x3x1xi1>) -> tensor<2x3x4xf32> {
  %p = attn.packing : () -> !attn.packing<2, 3>
  %k = attn.pack %q, %p : (tensor<2x3x4xf32>, !attn.packing<2, 3>) -> tensor<?x4xf32>
  %x = nn.tanh %k : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %f = nn.full {value = -1.0e9 : f64} : tensor<f32>
  %w = attn.pack %m, %p : (tensor<2x3x1xi1>, !attn.packing<2, 3>) -> tensor<?x1xi1>
  %y = nn.where %w, %x, %f : (tensor<?x1xi1>, tensor<?x4xf32>, tensor<f32>) -> tensor<?x4xf32>
  %z = attn.unpack %y, %p : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
  func.return %z : tensor<2x3x4xf32>
}

// -----



// CHECK-LABEL: func.func @two_masks(%m: tensor<2x3x1xf32>, %k: tensor<2x3xi64>) -> tensor<2x3x1xf32> {
// CHECK-NEXT:    %p = attn.packing %k : (tensor<2x3xi64>) -> !attn.packing<2, 3>
// CHECK-NEXT:    %y = host.task (%m_1 = %m : tensor<2x3x1xf32>, %p_1 = %p : !attn.packing<2, 3>) -> (tensor<?x1xf32>) {
// CHECK-NEXT:      %w = attn.pack %m_1, %p_1 : (tensor<2x3x1xf32>, !attn.packing<2, 3>) -> tensor<?x1xf32>
// CHECK-NEXT:      %y_1 = nn.mul %w, %w : (tensor<?x1xf32>, tensor<?x1xf32>) -> tensor<?x1xf32>
// CHECK-NEXT:      host.yield %y_1 : tensor<?x1xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %z = host.task (%y_1 = %y : tensor<?x1xf32>, %p_1 = %p : !attn.packing<2, 3>) -> (tensor<2x3x1xf32>) {
// CHECK-NEXT:      %z_1 = attn.unpack %y_1, %p_1 : (tensor<?x1xf32>, !attn.packing<2, 3>) -> tensor<2x3x1xf32>
// CHECK-NEXT:      host.yield %z_1 : tensor<2x3x1xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %z : tensor<2x3x1xf32>
// CHECK-NEXT:    }
func.func @two_masks(%m: tensor<2x3x1xf32>, %k: tensor<2x3xi64>) -> tensor<2x3x1xf32> {
  %p = attn.packing %k : (tensor<2x3xi64>) -> !attn.packing<2, 3>
  %w = attn.pack %m, %p : (tensor<2x3x1xf32>, !attn.packing<2, 3>) -> tensor<?x1xf32>
  %y = nn.mul %w, %w : (tensor<?x1xf32>, tensor<?x1xf32>) -> tensor<?x1xf32>
  %z = attn.unpack %y, %p : (tensor<?x1xf32>, !attn.packing<2, 3>) -> tensor<2x3x1xf32>
  func.return %z : tensor<2x3x1xf32>
}

// -----

// What hides has no good codes: the task behind the product makes the mask once more, of its input.

// CHECK-LABEL: func.func @fills
// CHECK:         host.yield %a{{.*}} : tensor<2x3x4xf32>
// CHECK:       einsum.contract
// CHECK-NEXT:  host.task
// CHECK-NOT:   %a
// CHECK:         nn.full {value = -1.000000e+09 : f64}
// CHECK:         nn.mul
// CHECK:         [[A:%.+]] = nn.add
// CHECK:         nn.add {{.+}}, [[A]]
func.func @fills(%x: tensor<2x3x4xf32>, %m: tensor<2x3x4xi1>) -> (tensor<2x3x4xf32>, tensor<2x3x4xf32>) {
  %w = einsum.weight ["w"] : tensor<4x4xf32>
  %b = einsum.weight ["b"] : tensor<4xf32>
  %low = nn.full {value = -1.0e9 : f64} : tensor<f32>
  %c = nn.cast %m : (tensor<2x3x4xi1>) -> tensor<2x3x4xf32>
  %l = nn.mul %c, %low : (tensor<2x3x4xf32>, tensor<f32>) -> tensor<2x3x4xf32>
  %a = nn.add %l, %b : (tensor<2x3x4xf32>, tensor<4xf32>) -> tensor<2x3x4xf32>
  %y = einsum.contract "bsi,oi->bso" %x, %w : (tensor<2x3x4xf32>, tensor<4x4xf32>) -> tensor<2x3x4xf32>
  %z = nn.add %y, %a : (tensor<2x3x4xf32>, tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
  func.return %a, %z : tensor<2x3x4xf32>, tensor<2x3x4xf32>
}
