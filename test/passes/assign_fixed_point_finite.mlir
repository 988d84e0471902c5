// RUN: python %S/Inputs/make_weights.py %t.safetensors
// RUN: not heatc-opt %s -p assign-fixed-point --weights %t.safetensors 2>&1 | filecheck %s

// CHECK: heatc-opt: error: mlp.up (model.py:7): weight 'nan' of 'mlp.up' holds 16 NaN at row 0, row 1, row 2, ...: fixed point has no code for it
// CHECK: note: use --target numpy, whose program computes with it as PyTorch does
func.func @f(%i: tensor<?xi64>) -> tensor<?x4xf32> {
  %t = einsum.weight ["table"] : tensor<9x4xf32>
  %w = einsum.weight ["nan"] : tensor<4x4xf32>
  %x = host.task (%ta = %t : tensor<9x4xf32>, %ia = %i : tensor<?xi64>) -> (tensor<?x4xf32>) {
    %e = nn.embedding %ta, %ia : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
    host.yield %e : tensor<?x4xf32>
  }
  %y = einsum.contract "ti,oi->to" %x, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32> loc("mlp.up"("model.py":7:0))
  func.return %y : tensor<?x4xf32>
}
