// RUN: python %S/Inputs/heat_weights.py %t.safetensors %t.npz
// RUN: heatc-opt %s -p 'apply-plan,heat-decompose{init=plain},order-contractions,lower-contractions,fuse-einsums' --plan %S/Inputs/heat_plan.json --weights %t.safetensors | filecheck %s
// RUN: heatc-opt %s -p 'apply-plan,heat-decompose{init=plain},order-contractions,lower-contractions,fuse-einsums{cache=127}' --plan %S/Inputs/heat_plan.json --weights %t.safetensors --remarks=- 2>&1 | filecheck %s --check-prefix=SMALL

// The plan says each layer's path and what becomes of the results between its steps.

// CHECK-LABEL: func.func @main

// The weight is rebuilt first: one step of the activation is left, which leads to none.

// CHECK:      %[[W:.*]] = einsum.contract "Aa,mA->am" %{{.*}}, %{{.*}} : (tensor<3x8xf32>, tensor<12x3xf32>) -> tensor<8x12xf32>
// CHECK-NEXT: einsum.contract "ta,am->tm" %x, %[[W]] {decomposition

// 16 tokens at a time, where the pass would have taken all of them.

// CHECK:      einsum.contract "ta,Aa->tA" %{{.*}} {fuse = #einsum.fuse<tokens = 16>}
// CHECK-NEXT: einsum.contract "tA,mA->tm" %{{.*}} {decomposition
// SMALL:      mlp.down: 1 result(s) between steps stay in memory: results of 16 tokens need 128 bytes of the cache, which has 127 [fuse-einsums]

// Not fused, where the pass would have.

// CHECK-NOT:  fuse
// CHECK:      einsum.contract {{.*}} {decomposition = #einsum.decomposition<"ttm"
// SMALL:      head: 1 result(s) between steps stay in memory: the plan says so [fuse-einsums]

func.func @main(%x: tensor<?x8xf32>) -> (tensor<?x8xf32>) {
  %w = einsum.weight ["mlp.up.weight"] : tensor<12x8xf32>
  %h = einsum.contract "ti,oi->to" %x, %w : (tensor<?x8xf32>, tensor<12x8xf32>) -> tensor<?x12xf32>
  %r = nn.relu %h : (tensor<?x12xf32>) -> tensor<?x12xf32>
  %v = einsum.weight ["mlp.down.weight"] : tensor<8x12xf32>
  %y = einsum.contract "ti,oi->to" %r, %v : (tensor<?x12xf32>, tensor<8x12xf32>) -> tensor<?x8xf32>
  %s = nn.relu %y : (tensor<?x8xf32>) -> tensor<?x8xf32>
  %u = einsum.weight ["head.weight"] : tensor<8x8xf32>
  %z = einsum.contract "ti,oi->to" %s, %u : (tensor<?x8xf32>, tensor<8x8xf32>) -> tensor<?x8xf32>
  func.return %z : tensor<?x8xf32>
}
