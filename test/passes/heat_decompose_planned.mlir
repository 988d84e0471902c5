// RUN: python %S/Inputs/heat_weights.py %t.safetensors %t.npz
// RUN: heatc-opt %s -p 'heat-decompose{init=plain rank=1}' --weights %t.safetensors | filecheck %s
// RUN: not heatc-opt %s -p 'heat-decompose{init=plain joint=true}' --weights %t.safetensors 2>&1 | filecheck %s --check-prefix=JOINT
// RUN: not heatc-opt %s -p heat-decompose --weights %t.safetensors 2>&1 | filecheck %s --check-prefix=DATA

// A layer with a format is decomposed as that says, whatever the options say of others; those stay.

// JOINT: layers that have a format are not decomposed as one
// DATA: init=activation needs calibration inputs

// CHECK:     einsum.contract "ta,Aa,mA->tm" %x, %{{.*}} {decomposition = #einsum.decomposition<"low-rank", "8|12", [3], {{.*}}, path = #einsum.path<(1, 2), (0, 3)>}
// CHECK:     einsum.contract "ti,oi->to" %{{.*}} : (tensor<?x12xf32>, tensor<8x12xf32>)
func.func @main(%x: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %w = einsum.weight ["mlp.up.weight"] : tensor<12x8xf32>
  %h = einsum.contract "ti,oi->to" %x, %w {format = #einsum.format<"low-rank", "8|12", [3], (1, 2), (0, 3)>} : (tensor<?x8xf32>, tensor<12x8xf32>) -> tensor<?x12xf32>
  %v = einsum.weight ["mlp.down.weight"] : tensor<8x12xf32>
  %y = einsum.contract "ti,oi->to" %h, %v : (tensor<?x12xf32>, tensor<8x12xf32>) -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}
