// RUN: not heatc-opt %s -p apply-plan 2>&1 | filecheck %s --check-prefix=NONE
// RUN: not heatc-opt %s -p apply-plan --plan missing.json 2>&1 | filecheck %s --check-prefix=MISSING
// RUN: echo '{"schema": 2, "layers": {"encoder.1": {"hdp": {"rule": "ours"}}}}' > %t.json
// RUN: not heatc-opt %s -p apply-plan --plan %t.json 2>&1 | filecheck %s --check-prefix=ATTENTION
// RUN: echo '{"schema": 2, "layers": {"encoder.0": {"hdp": {"rule": "ours", "rho_b": [0.1, 0.2, 0.3]}}}}' > %t.json
// RUN: not heatc-opt %s -p apply-plan --plan %t.json 2>&1 | filecheck %s --check-prefix=HEADS
// RUN: echo '{"schema": 2, "layers": {"upp": {"heat": {"format": "low-rank", "ranks": [2]}}}}' > %t.json
// RUN: not heatc-opt %s -p apply-plan --plan %t.json 2>&1 | filecheck %s --check-prefix=LAYER
// RUN: echo '{"schema": 2, "layers": {"up": {"heat": {"format": "low-rank", "ranks": [5]}}}}' > %t.json
// RUN: not heatc-opt %s -p apply-plan --plan %t.json 2>&1 | filecheck %s --check-prefix=RANKS

// NONE: there is no plan to apply
// NONE: note: give --plan plan.json
// MISSING: {{.*}}error: {{.*}}missing.json: cannot open: no such file
// ATTENTION: layers['encoder.1']: the model has no such attention
// ATTENTION: did you mean 'encoder.0'?
// HEADS: encoder.0 (m.py:4): rho-b has 3 values for 2 heads
// LAYER: layers['upp']: the model has no such layer
// LAYER: did you mean 'up'?
// RANKS: layers['up'].heat.ranks: 5 is above 4, all that low-rank of a layer of 4 to 4 can use
func.func @f(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>) -> tensor<?x4xf32> {
  %0 = attn.sdpa %x, %x, %x packed %p : !attn.packing<2, 5> {heads = 2 : i64, scale = 0.5 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32> loc("encoder.0"("m.py":4:0))
  %w = einsum.weight ["up.weight"] : tensor<4x4xf32>
  %y = einsum.contract "ti,oi->to" %0, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  func.return %y : tensor<?x4xf32>
}
