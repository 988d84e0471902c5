// RUN: heatc-opt %s -p insert-hdp --split-input-file --verify-diagnostics | filecheck %s
// RUN: not heatc-opt %s -p 'insert-hdp{rule=paper rho-b=1.0}' --split-input-file 2>&1 | filecheck %s --check-prefix=RHO
// RUN: not heatc-opt %s -p 'insert-hdp{rule=sangre}' --split-input-file 2>&1 | filecheck %s --check-prefix=RULE
// RUN: not heatc-opt %s -p 'insert-hdp{rule=topk rho-b=0.5}' --split-input-file 2>&1 | filecheck %s --check-prefix=OPTION
// RUN: not heatc-opt %s -p 'insert-hdp{rule=paper rho-b=0.5,0.25}' --split-input-file 2>&1 | filecheck %s --check-prefix=HEADS
// RUN: not heatc-opt %s -p 'insert-hdp{pruned-score=one}' --split-input-file 2>&1 | filecheck %s --check-prefix=SCORE

// RHO: rho-b 1.0 is outside (-1, 1)
// RULE: pass 'insert-hdp': {{.*}}'sangre'
// OPTION: rule topk does not take rho-b; it takes finer, density, pruned-score, block
// HEADS: insert_hdp_refused.mlir:{{[0-9]+}}: rho-b has 2 values for 1 heads
// SCORE: pass 'insert-hdp': {{.*}}'one'

// The machine adds no bias to scores, and knows no padding but packed one.

// CHECK: insert_hdp_refused.mlir:{{[0-9]+}}: hdp attention needs a mask that is provably key padding (or none)
func.func @bias(%q: tensor<?x4xf32>, %p: !attn.packing<1, 8>, %b: tensor<8x8xf32>) -> tensor<?x4xf32> {
  %o = attn.sdpa %q, %q, %q packed %p : !attn.packing<1, 8> masks %b : tensor<8x8xf32> {heads = 1 : i64, scale = 0.5 : f64, keyless = "zero"} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return %o : tensor<?x4xf32>
}

// -----

// The one without a mask is named, not the first.

// CHECK: second (m.py:2): this attention has no mask, that of first (m.py:1) has one: hdp attention needs the same mask for all
func.func @one_without(%q: tensor<?x4xf32>, %p: !attn.packing<1, 8>, %b: tensor<8x8xf32>) -> tensor<?x4xf32> {
  %a = attn.sdpa %q, %q, %q packed %p : !attn.packing<1, 8> masks %b : tensor<8x8xf32> {heads = 1 : i64, scale = 0.5 : f64, keyless = "zero"} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32> loc("first"("m.py":1:0))
  %o = attn.sdpa %a, %a, %a packed %p : !attn.packing<1, 8> {heads = 1 : i64, scale = 0.5 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32> loc("second"("m.py":2:0))
  func.return %o : tensor<?x4xf32>
}

// -----

// CHECK: insert_hdp_refused.mlir:{{[0-9]+}}: hdp attention needs a mask that is provably key padding (or none)
func.func @not_packed(%q: tensor<1x8x4xf32>) -> tensor<1x8x4xf32> {
  %o = attn.sdpa %q, %q, %q {heads = 1 : i64, scale = 0.5 : f64} : tensor<1x8x4xf32>, tensor<1x8x4xf32>, tensor<1x8x4xf32> -> tensor<1x8x4xf32>
  func.return %o : tensor<1x8x4xf32>
}
