// RUN: heatc-opt %s -p partition-host --split-input-file --verify-diagnostics | filecheck %s

// Everything that has no unit is named at once.

// CHECK: 3 op(s) that neither the co-processor nor its host has a unit for:
// CHECK-NEXT: nn.div at {{.*}}partition_host_refused.mlir:{{[0-9]+}}
// CHECK-NEXT: einsum.contract at {{.*}}partition_host_refused.mlir:{{[0-9]+}}
// CHECK-NEXT: nn.softmax at {{.*}}partition_host_refused.mlir:{{[0-9]+}}
// CHECK-NEXT: use --target numpy for this model
func.func @f(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %d = nn.div %x, %y : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %c = einsum.contract "ti,to->io" %x, %d : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<4x4xf32>
  %s = nn.softmax %d {dim = -1 : i64} : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %g = nn.gelu %s {approximate = "none"} : (tensor<?x4xf32>) -> tensor<?x4xf32>
  func.return %g : tensor<?x4xf32>
}

// -----

// A product of two activations is no linear layer, nor is a diagonal.

// CHECK: 2 op(s) that neither the co-processor nor its host has a unit for:
// CHECK-NEXT: einsum.contract at {{.*}}partition_host_refused.mlir:{{[0-9]+}}
// CHECK-NEXT: einsum.contract at {{.*}}partition_host_refused.mlir:{{[0-9]+}}
// CHECK-NEXT: use --target numpy for this model
func.func @products(%x: tensor<?x4xf32>, %y: tensor<5x4xf32>) -> (tensor<?x5xf32>, tensor<4x5xf32>) {
  %w = einsum.weight ["w"] : tensor<5x4xf32>
  %a = einsum.contract "ti,oi->to" %x, %y : (tensor<?x4xf32>, tensor<5x4xf32>) -> tensor<?x5xf32>
  %q = einsum.weight ["q"] : tensor<4x4xf32>
  %b = einsum.contract "ii,oi->io" %q, %w : (tensor<4x4xf32>, tensor<5x4xf32>) -> tensor<4x5xf32>
  func.return %a, %b : tensor<?x5xf32>, tensor<4x5xf32>
}

// -----

// Attention that insert-hdp has not seen.

// CHECK: 1 op(s) that neither the co-processor nor its host has a unit for:
// CHECK-NEXT: attn.sdpa at {{.*}}partition_host_refused.mlir:{{[0-9]+}}
// CHECK-NEXT: use --target numpy for this model
func.func @attention(%q: tensor<?x4xf32>, %p: !attn.packing<1, 8>) -> tensor<?x4xf32> {
  %o = attn.sdpa %q, %q, %q packed %p : !attn.packing<1, 8> {heads = 1 : i64, scale = 0.5 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return %o : tensor<?x4xf32>
}
