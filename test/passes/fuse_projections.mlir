// RUN: heatc-opt %s -p fuse-projections | filecheck %s

// Queries, keys and values of one activation are one product.

// CHECK-LABEL: func.func @attention
// CHECK-NEXT:    %[[W:.*]] = einsum.weight ["q.weight", "k.weight", "v.weight"] : tensor<12x4xf32>
// CHECK-NEXT:    %[[C:.*]] = einsum.contract "ti,oi->to" %x, %[[W]] : (tensor<?x4xf32>, tensor<12x4xf32>) -> tensor<?x12xf32>
// CHECK-NEXT:    %[[B:.*]] = einsum.weight ["q.bias", "k.bias", "v.bias"] : tensor<12xf32>
// CHECK-NEXT:    %[[Y:.*]] = nn.add %[[C]], %[[B]] : (tensor<?x12xf32>, tensor<12xf32>) -> tensor<?x12xf32>
// CHECK-NEXT:    %q = nn.slice %[[Y]] {starts = array<i64: 0, 0>, steps = array<i64: 1, 1>} : (tensor<?x12xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %k = nn.slice %[[Y]] {starts = array<i64: 0, 4>, steps = array<i64: 1, 1>} : (tensor<?x12xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %v = nn.slice %[[Y]] {starts = array<i64: 0, 8>, steps = array<i64: 1, 1>} : (tensor<?x12xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %o = attn.sdpa %q, %k, %v packed %p
func.func @attention(%x: tensor<?x4xf32>, %p: !attn.packing<1, 8>) -> tensor<?x4xf32> {
  %wq = einsum.weight ["q.weight"] : tensor<4x4xf32>
  %bq = einsum.weight ["q.bias"] : tensor<4xf32>
  %q0 = einsum.contract "ti,oi->to" %x, %wq : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %q = nn.add %q0, %bq : (tensor<?x4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
  %wk = einsum.weight ["k.weight"] : tensor<4x4xf32>
  %bk = einsum.weight ["k.bias"] : tensor<4xf32>
  %k0 = einsum.contract "ti,oi->to" %x, %wk : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %k = nn.add %bk, %k0 : (tensor<4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %wv = einsum.weight ["v.weight"] : tensor<4x4xf32>
  %bv = einsum.weight ["v.bias"] : tensor<4xf32>
  %v0 = einsum.contract "ti,oi->to" %x, %wv : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %v = nn.add %v0, %bv : (tensor<?x4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
  %o = attn.sdpa %q, %k, %v packed %p : !attn.packing<1, 8> {heads = 2 : i64, scale = 1.0 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return %o : tensor<?x4xf32>
}

// Without biases, and on padded activations.

// CHECK-LABEL: func.func @no_bias
// CHECK:         einsum.contract "bsi,oi->bso" %x, %{{.*}} : (tensor<2x3x4xf32>, tensor<7x4xf32>) -> tensor<2x3x7xf32>
// CHECK-NEXT:    %a = nn.slice %{{.*}} {starts = array<i64: 0, 0, 0>, steps = array<i64: 1, 1, 1>} : (tensor<2x3x7xf32>) -> tensor<2x3x5xf32>
// CHECK-NEXT:    %b = nn.slice %{{.*}} {starts = array<i64: 0, 0, 5>, steps = array<i64: 1, 1, 1>} : (tensor<2x3x7xf32>) -> tensor<2x3x2xf32>
func.func @no_bias(%x: tensor<2x3x4xf32>) -> (tensor<2x3x5xf32>, tensor<2x3x2xf32>) {
  %wa = einsum.weight ["a"] : tensor<5x4xf32>
  %a = einsum.contract "bsi,oi->bso" %x, %wa : (tensor<2x3x4xf32>, tensor<5x4xf32>) -> tensor<2x3x5xf32>
  %wb = einsum.weight ["b"] : tensor<2x4xf32>
  %b = einsum.contract "bsi,oi->bso" %x, %wb : (tensor<2x3x4xf32>, tensor<2x4xf32>) -> tensor<2x3x2xf32>
  func.return %a, %b : tensor<2x3x5xf32>, tensor<2x3x2xf32>
}

// Another activation, a permuted weight, or a bias on one only: left alone.

// CHECK-LABEL: func.func @kept
// CHECK-COUNT-4: einsum.contract
// CHECK-NOT:     nn.slice
func.func @kept(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>) {
  %wa = einsum.weight ["a"] : tensor<4x4xf32>
  %a = einsum.contract "ti,oi->to" %x, %wa : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %b = einsum.contract "ti,oi->to" %y, %wa : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %wc = einsum.weight ["c"] {permutation = array<i64: 1, 0>} : tensor<4x4xf32>
  %c = einsum.contract "ti,oi->to" %x, %wc : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %wd = einsum.weight ["d"] : tensor<4x4xf32>
  %d0 = einsum.contract "ti,oi->to" %x, %wd : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %bd = einsum.weight ["d.bias"] : tensor<4xf32>
  %d = nn.add %d0, %bd : (tensor<?x4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
  func.return %a, %b, %c, %d : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>
}

// Results of fused steps are nowhere as a whole: no slice can read them.

// CHECK-LABEL: func.func @fused
// CHECK-NOT:     nn.slice
// CHECK:         func.return
func.func @fused(%x: tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>) {
  %wa = einsum.weight ["a.0"] : tensor<2x4xf32>
  %va = einsum.weight ["a.1"] : tensor<4x2xf32>
  %a0 = einsum.contract "ti,ri->tr" %x, %wa {fuse = #einsum.fuse<tokens = 16>} : (tensor<?x4xf32>, tensor<2x4xf32>) -> tensor<?x2xf32>
  %a = einsum.contract "tr,or->to" %a0, %va : (tensor<?x2xf32>, tensor<4x2xf32>) -> tensor<?x4xf32>
  %wb = einsum.weight ["b.0"] : tensor<2x4xf32>
  %vb = einsum.weight ["b.1"] : tensor<4x2xf32>
  %b0 = einsum.contract "ti,ri->tr" %x, %wb {fuse = #einsum.fuse<tokens = 16>} : (tensor<?x4xf32>, tensor<2x4xf32>) -> tensor<?x2xf32>
  %b = einsum.contract "tr,or->to" %b0, %vb : (tensor<?x2xf32>, tensor<4x2xf32>) -> tensor<?x4xf32>
  func.return %a, %b : tensor<?x4xf32>, tensor<?x4xf32>
}
