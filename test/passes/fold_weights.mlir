// RUN: python %S/Inputs/heat_weights.py %t.safetensors %t.npz
// RUN: heatc-opt %s -p fold-weights --weights %t.safetensors | filecheck %s

// What is done to weights alone is done once; what meets tokens stays, and so do untouched weights.

// CHECK-LABEL: func.func @main
// CHECK-NEXT:    %b = einsum.weight ["mlp.up.bias"] : tensor<12xf32>
// CHECK-NEXT:    %[[W:.*]] = einsum.weight ["mlp.down.weight*mlp.up.weight:4x2x8"] : tensor<4x2x8xf32>
// CHECK-NEXT:    %y = einsum.contract "ta,mna->tmn" %x, %[[W]]
// CHECK-NEXT:    %z = nn.add
func.func @main(%x: tensor<?x8xf32>, %s: tensor<?x12xf32>) -> (tensor<?x4x2xf32>, tensor<?x12xf32>) {
  %a = einsum.weight ["mlp.up.weight"] : tensor<12x8xf32>
  %c = einsum.weight ["mlp.down.weight"] : tensor<8x12xf32>
  %b = einsum.weight ["mlp.up.bias"] : tensor<12xf32>
  %v = einsum.contract "oi,ik->ok" %c, %a : (tensor<8x12xf32>, tensor<12x8xf32>) -> tensor<8x8xf32>
  %r = nn.reshape %v : (tensor<8x8xf32>) -> tensor<4x2x8xf32>
  %y = einsum.contract "ta,mna->tmn" %x, %r : (tensor<?x8xf32>, tensor<4x2x8xf32>) -> tensor<?x4x2xf32>
  %z = nn.add %s, %b : (tensor<?x12xf32>, tensor<12xf32>) -> tensor<?x12xf32>
  func.return %y, %z : tensor<?x4x2xf32>, tensor<?x12xf32>
}
