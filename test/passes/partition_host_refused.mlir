// RUN: heatc-opt %s -p partition-host --split-input-file --verify-diagnostics | filecheck %s

// Everything that has no unit is named at once, what is refused at one place again and again once. Ops that
// move rows whose number is known at run time alone are among them.

// CHECK: 3 op(s) that neither the co-processor nor its host has a unit for:
// CHECK-NEXT: attn.sdpa at {{.*}}partition_host_refused.mlir:{{[0-9]+}}: the host has no instruction for it
// CHECK-NEXT: nn.transpose at {{.*}}partition_host_refused.mlir:{{[0-9]+}}: it moves rows whose number is known at run time
// CHECK-NEXT: nn.and at {{.*}}partition_host_refused.mlir:{{[0-9]+}}: the host has it for truth values alone
// CHECK-NEXT: compile with --target numpy, which has all of them; or
func.func @f(%q: tensor<?x4xf32>, %i: tensor<3xi64>, %p: !attn.packing<1, 8>) -> (tensor<?x4xf32>, tensor<4x?xf32>, tensor<3xi64>) {
  %o = attn.sdpa %q, %q, %q packed %p : !attn.packing<1, 8> {heads = 1 : i64, scale = 0.5 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  %t = nn.transpose %q {permutation = array<i64: 1, 0>} : (tensor<?x4xf32>) -> tensor<4x?xf32>
  %a = nn.and %i, %i : (tensor<3xi64>, tensor<3xi64>) -> tensor<3xi64>
  func.return %o, %t, %a : tensor<?x4xf32>, tensor<4x?xf32>, tensor<3xi64>
}
