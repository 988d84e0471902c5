// RUN: python %S/Inputs/heat_weights.py %t.safetensors %t.npz
// RUN: heatc-opt %s -p 'heat-decompose{rank=3}' --weights %t.safetensors --calibrate %t.npz --factors %t.factors | filecheck %s --check-prefixes CHECK,LOWRANK
// RUN: heatc-opt %s -p 'heat-decompose{format=tt modes=2 rank=4 init=plain}' --weights %t.safetensors | filecheck %s --check-prefixes CHECK,TT
// RUN: heatc-opt %s -p 'heat-decompose{format=ttm modes=3 rank=2 tables=true init=plain}' --weights %t.safetensors | filecheck %s --check-prefixes CHECK,TABLE

// CHECK-LABEL: func.func @main

// Factors are named by the layer they come from; the bias that makes up for the means is the last.

// LOWRANK:      einsum.weight ["mlp.up.0"] : tensor<3x8xf32>
// LOWRANK-NEXT: einsum.weight ["mlp.up.1"] : tensor<12x3xf32>
// LOWRANK-NEXT: %[[C:.*]] = einsum.contract "ta,Aa,mA->tm" %x, %{{.*}}, %{{.*}} {decomposition = #einsum.decomposition<"low-rank", "8|12", [3], 0.{{[0-9]+}}>} : (tensor<?x8xf32>, tensor<3x8xf32>, tensor<12x3xf32>) -> tensor<?x12xf32>
// LOWRANK-NEXT: %[[B:.*]] = einsum.weight ["mlp.up.2"] : tensor<12xf32>
// LOWRANK-NEXT: nn.add %[[C]], %[[B]]
// LOWRANK:      einsum.contract "ta,Aa,mA->tm" {{.*}} {decomposition = #einsum.decomposition<"low-rank", "12|8", [3], 0.{{[0-9]+}}>}
// LOWRANK-NEXT: einsum.weight ["mlp.down.2"] : tensor<8xf32>
// LOWRANK-NEXT: nn.add

// A tensor train: modes are split before and joined after; ranks are no larger than they can be.

// TT:      %[[X:.*]] = nn.reshape %x : (tensor<?x8xf32>) -> tensor<?x2x4xf32>
// TT-NEXT: einsum.weight ["mlp.up.0"] : tensor<2x2xf32>
// TT-NEXT: einsum.weight ["mlp.up.1"] : tensor<2x4x4xf32>
// TT-NEXT: einsum.weight ["mlp.up.2"] : tensor<4x4x3xf32>
// TT-NEXT: einsum.weight ["mlp.up.3"] : tensor<3x3xf32>
// TT-NEXT: %[[C:.*]] = einsum.contract "tab,aA,AbB,BmC,Cn->tmn" %[[X]], {{.*}} {decomposition = #einsum.decomposition<"tt", "2x4|4x3", [2, 4, 3], 0.{{[0-9]+}}>}
// TT-NEXT: %[[Y:.*]] = nn.reshape %[[C]] : (tensor<?x4x3xf32>) -> tensor<?x12xf32>
// TT:      nn.add %[[Y]]

// A table of 30 rows has 3 x 3 x 4 = 36 places: rows of each core by a digit of the id.

// TABLE:      nn.full {value = 4.000000e+00 : f64} : tensor<f64>
// TABLE:      einsum.weight ["words.0"] : tensor<3x4xf32>
// TABLE-NEXT: %[[R:.*]] = nn.embedding %{{.*}}, %{{.*}} : (tensor<3x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
// TABLE-NEXT: %[[F:.*]] = nn.reshape %[[R]] : (tensor<?x4xf32>) -> tensor<?x2x2xf32>
// TABLE:      %[[C:.*]] = einsum.contract "tmA,tAnB,tBo->tmno" %[[F]]
// TABLE-NEXT: %[[Y:.*]] = nn.reshape %[[C]] : (tensor<?x2x2x2xf32>) -> tensor<?x8xf32>
// TABLE:      einsum.contract "ti,oi->to" %[[Y]]

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
