// RUN: python %S/Inputs/heat_weights.py %t.safetensors %t.npz
// RUN: heatc-opt %s -p 'heat-decompose{format=ttm rank=2 init=plain layers="*.up"}' --weights %t.safetensors | filecheck %s --check-prefixes CHECK,TTM
// RUN: heatc-opt %s -p 'heat-decompose{format=cp modes=2 rank=5 init=plain layers="*.up"}' --weights %t.safetensors | filecheck %s --check-prefixes CHECK,CP
// RUN: heatc-opt %s -p 'heat-decompose{format=tucker modes=2 rank=2 init=plain layers="*.up"}' --weights %t.safetensors | filecheck %s --check-prefixes CHECK,TUCKER

// One layer of two; the other stays as it is.

// CHECK-LABEL: func.func @main

// TTM:      einsum.weight ["mlp.up.0"] : tensor<3x2x2xf32>
// TTM-NEXT: einsum.weight ["mlp.up.1"] : tensor<2x4x4xf32>
// TTM-NEXT: einsum.contract "tab,maA,Anb->tmn"
// TTM:      einsum.weight ["mlp.down.weight"]

// CP:      einsum.weight ["mlp.up.3"] : tensor<4x5xf32>
// CP-NEXT: einsum.contract "tab,aA,bA,mA,nA->tmn"

// TUCKER:      einsum.weight ["mlp.up.2"] : tensor<2x2x2x2xf32>
// TUCKER:      einsum.contract "tab,aA,bB,ABCD,mC,nD->tmn"

func.func @main(%ids: tensor<1x6xi64> {heatc.name = "ids"}, %mask: tensor<1x6xi64> {heatc.name = "attention_mask"}) -> (tensor<?x8xf32>) {
  %p = attn.packing %mask : (tensor<1x6xi64>) -> !attn.packing<1, 6>
  %i = attn.pack %ids, %p : (tensor<1x6xi64>, !attn.packing<1, 6>) -> tensor<?xi64>
  %t = einsum.weight ["words.weight"] : tensor<30x8xf32>
  %x = nn.embedding %t, %i : (tensor<30x8xf32>, tensor<?xi64>) -> tensor<?x8xf32>
  %w = einsum.weight ["mlp.up.weight"] : tensor<12x8xf32>
  %h = einsum.contract "ti,oi->to" %x, %w : (tensor<?x8xf32>, tensor<12x8xf32>) -> tensor<?x12xf32>
  %b = einsum.weight ["mlp.up.bias"] : tensor<12xf32>
  %u = nn.add %h, %b : (tensor<?x12xf32>, tensor<12xf32>) -> tensor<?x12xf32>
  %r = nn.relu %u : (tensor<?x12xf32>) -> tensor<?x12xf32>
  %v = einsum.weight ["mlp.down.weight"] : tensor<8x12xf32>
  %y = einsum.contract "ti,oi->to" %r, %v : (tensor<?x12xf32>, tensor<8x12xf32>) -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}
