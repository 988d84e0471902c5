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

// What a fill of -100 leaves is no hidden score.

// CHECK: insert_hdp_refused.mlir:{{[0-9]+}}: hdp attention takes masks of truth values that hide, with a fill of -10000 or less; this one makes scores -100
func.func @filled(%q: tensor<?x4xf32>, %p: !attn.packing<1, 8>, %b: tensor<8x8xi1>) -> tensor<?x4xf32> {
  %o = attn.sdpa %q, %q, %q packed %p : !attn.packing<1, 8> masks %b : tensor<8x8xi1> {heads = 1 : i64, scale = 0.5 : f64, fills = [-100.0 : f64], keyless = "zero"} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return %o : tensor<?x4xf32>
}

// -----

// CHECK: insert_hdp_refused.mlir:{{[0-9]+}}: hdp attention needs one stream of tokens that attends to itself
func.func @not_packed(%q: tensor<1x8x4xf32>) -> tensor<1x8x4xf32> {
  %o = attn.sdpa %q, %q, %q {heads = 1 : i64, scale = 0.5 : f64} : tensor<1x8x4xf32>, tensor<1x8x4xf32>, tensor<1x8x4xf32> -> tensor<1x8x4xf32>
  func.return %o : tensor<1x8x4xf32>
}

// -----

// Low-bit codes predict nothing of scores that a mask changes.

// CHECK: insert_hdp_refused.mlir:{{[0-9]+}}: the machine has no unit for predictions by low-bit codes where the model has a mask of its own
func.func @predicted(%q: tensor<?x4xf32>, %p: !attn.packing<1, 8>, %b: tensor<8x8xi1>) -> tensor<?x4xf32> {
  %o = attn.sdpa %q, %q, %q packed %p : !attn.packing<1, 8> masks %b : tensor<8x8xi1> {heads = 1 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero", rule = #attn.rule<"energon", {}>} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return %o : tensor<?x4xf32>
}
