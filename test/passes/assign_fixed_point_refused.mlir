// RUN: python %S/Inputs/make_weights.py %t.safetensors
// RUN: heatc-opt %s -p assign-fixed-point --weights %t.safetensors --split-input-file --verify-diagnostics | filecheck %s
// RUN: not heatc-opt %s -p assign-fixed-point --split-input-file 2>&1 | filecheck %s --check-prefix=NONE
// RUN: not heatc-opt %s -p assign-fixed-point --weights %t.none --split-input-file 2>&1 | filecheck %s --check-prefix=MISSING

// NONE: {{.*}}error: {{.*}}this pass reads weights and has none
// NONE: note: give --weights file.safetensors
// MISSING: {{.*}}error: {{.*}}none: cannot open: no such file

// CHECK: scores of magnitude {{.*}} do not fit 32 bits
func.func @f(%i: tensor<?xi64>, %p: !attn.packing<1, 3>) -> tensor<?x4xf32> {
  %t = einsum.weight ["table"] : tensor<9x4xf32>
  %w = einsum.weight ["huge"] : tensor<4x4xf32>
  %x = host.task (%ta = %t : tensor<9x4xf32>, %ia = %i : tensor<?xi64>) -> (tensor<?x4xf32>) {
    %e = nn.embedding %ta, %ia : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
    host.yield %e : tensor<?x4xf32>
  }
  %q = einsum.contract "ti,oi->to" %x, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %o = attn.pruned (%q_1 = %q : tensor<?x4xf32>, %p_1 = %p : !attn.packing<1, 3>) -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"none", {}>} {
    %s = attn.scores %q_1, %q_1, %p_1 {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 3>) -> tensor<1x2x3x3xf32>
    %r = attn.softmax %s, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x2x3x3xf32>, !attn.packing<1, 3>) -> tensor<1x2x3x3xf32>
    %o_1 = attn.weighted_values %r, %q_1, %p_1 {heads = 2 : i64} : (tensor<1x2x3x3xf32>, tensor<?x4xf32>, !attn.packing<1, 3>) -> tensor<?x4xf32>
    attn.yield %o_1 : tensor<?x4xf32>
  }
  func.return %o : tensor<?x4xf32>
}

// -----

// CHECK: nn.layer_norm of a computed weight
func.func @f(%a: tensor<?x4xf32>, %g: tensor<4xf32>) -> tensor<?x4xf32> {
  %w = einsum.weight ["half"] : tensor<4x4xf32>
  %x = host.task (%aa = %a : tensor<?x4xf32>, %ga = %g : tensor<4xf32>) -> (tensor<?x4xf32>) {
    %e = nn.layer_norm %aa, %ga, %ga {eps = 1.0e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
    host.yield %e : tensor<?x4xf32>
  }
  %y = einsum.contract "ti,oi->to" %x, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  func.return %y : tensor<?x4xf32>
}

// -----

// CHECK: nothing says how large the result of nn.map can be, so that it has no fixed-point type; use --target numpy
func.func @f(%a: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %w = einsum.weight ["half"] : tensor<4x4xf32>
  %x = host.task (%aa = %a : tensor<?x4xf32>) -> (tensor<?x4xf32>) {
    %g = nn.map %aa {function = "log"} : (tensor<?x4xf32>) -> tensor<?x4xf32>
    host.yield %g : tensor<?x4xf32>
  }
  %y = einsum.contract "ti,oi->to" %x, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  func.return %y : tensor<?x4xf32>
}

// -----

// CHECK: assign_fixed_point_refused.mlir:{{[0-9]+}}: nothing says how large input 'a' can be, so that it has no fixed-point type; use --target numpy
func.func @f(%a: tensor<?x4xf32> {heatc.name = "a"}) -> tensor<?x4xf32> {
  %w = einsum.weight ["half"] : tensor<4x4xf32>
  %y = einsum.contract "ti,oi->to" %a, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  func.return %y : tensor<?x4xf32>
}

// -----

// CHECK: nothing is known of the values of tensor<?x4x!fixed.q<16, 10>>
func.func @f(%a: tensor<?x4x!fixed.q<16, 10>>) -> tensor<?x4xf32> {
  %w = einsum.weight ["half"] : tensor<4x4xf32>
  %y = einsum.contract "ti,oi->to" %a, %w : (tensor<?x4x!fixed.q<16, 10>>, tensor<4x4xf32>) -> tensor<?x4xf32>
  func.return %y : tensor<?x4xf32>
}
