// RUN: heatc-opt %s -p 'insert-hdp{rule=paper rho-b=0.5}' | filecheck %s
// RUN: heatc-opt %s -p 'insert-hdp{rule=paper rho-b=0.5 tau-h=0.5}' | filecheck %s --check-prefix=GATE
// RUN: heatc-opt %s -p insert-hdp | filecheck %s --check-prefix=NONE
// RUN: heatc-opt %s -p 'insert-hdp{rule=paper pruned-score=neginf}' | filecheck %s --check-prefix=NEGINF
// RUN: heatc-opt %s -p 'insert-hdp{rule=paper pruned-score=int}' | filecheck %s --check-prefix=INT
// RUN: heatc-opt %s -p 'insert-hdp{rule=paper pruned-score=mean rho-b=-0.5}' | filecheck %s --check-prefix=MEAN

// The shapes of the paper's worked example: Q 8x4, K 4x8, blocks 2x2. The paper's own numbers are
// not public; these are ours, and test_worked_example.py computes every intermediate by hand.
//
//       Q                  K (a row a token)           A = I_Q I_K^T
//   0   1.5  0    0    0    1  0    0    0.5     1  2 |  0  0 |  0  0 |  1  0
//   1   0    1    0    0    2  0    0    0       0  0 |  1 -3 |  0  0 |  1  0
//       ------------------------------------
//   2   2    0    0    0.5  0  1    0    0       2  4 |  0  0 |  0  0 |  2  0
//   3   0   -1.5  0    0    0 -3.5  0    0       0  0 | -1  3 |  0  0 | -1  0
//       ------------------------------------
//   4   0    0    1    0    0  0    1    0       0  0 |  0  0 |  1  0 |  0  2
//   5   0    0    2.5  1    0  0    0    1       0  0 |  0  0 |  2  1 |  0  3
//       ------------------------------------
//   6   1    1    0    0    1  1    0.5  0       1  2 |  1 -3 |  0  0 |  2  0
//   7   0    0    0   -2    0  0    2   -1       0  0 |  0  0 |  0 -2 |  0  2
//
//   theta           mean   Theta = max / 2 + mean / 2   kept
//   3  4  0  2      2.25   3.125                        .  x  .  .
//   6  4  0  3      3.25   4.625                        x  .  .  .
//   0  0  4  5      2.25   3.625                        .  .  x  x
//   3  4  2  4      3.25   3.625                        .  x  .  x
//
//   theta_Head = 44, per score 44 / 64 = 0.6875

// CHECK-LABEL: func.func @worked_example(%q: tensor<?x4xf32>, %k: tensor<?x4xf32>, %v: tensor<?x4xf32>, %p: !attn.packing<1, 8>) -> tensor<?x4xf32> {
// CHECK-NEXT:    %o = attn.pruned (%q_1 = %q : tensor<?x4xf32>, %k_1 = %k : tensor<?x4xf32>, %p_1 = %p : !attn.packing<1, 8>, %v_1 = %v : tensor<?x4xf32>) -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"paper", {rho_b = 5.000000e-01 : f64, tau_h = 0.000000e+00 : f64, pruned_score = "zero", block = array<i64: 2, 2>}>} {
// CHECK-NEXT:      %0, %1 = attn.split %q_1 : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// CHECK-NEXT:      %2, %3 = attn.split %k_1 : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// CHECK-NEXT:      %4 = attn.integer_scores %0, %2, %p_1 {heads = 1 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 8>) -> tensor<1x1x8x8xf32>
// CHECK-NEXT:      %5 = attn.block_importance %4, %p_1 {block = array<i64: 2, 2>, importance = "abs"} : (tensor<1x1x8x8xf32>, !attn.packing<1, 8>) -> tensor<1x1x4x4xf64>
// CHECK-NEXT:      %6 = attn.block_mask %5, %p_1 {rho_b = 5.000000e-01 : f64, block = array<i64: 2, 2>} : (tensor<1x1x4x4xf64>, !attn.packing<1, 8>) -> tensor<1x1x4x4xi1>
// CHECK-NEXT:      %7 = attn.merge_scores %4, %0, %1, %2, %3, %6, %p_1 {heads = 1 : i64, block = array<i64: 2, 2>, pruned = "zero"} : (tensor<1x1x8x8xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<1x1x4x4xi1>, !attn.packing<1, 8>) -> tensor<1x1x8x8xf32>
// CHECK-NEXT:      %8 = attn.softmax %7, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x1x8x8xf32>, !attn.packing<1, 8>) -> tensor<1x1x8x8xf32>
// CHECK-NEXT:      %9 = attn.weighted_values %8, %v_1, %p_1 {heads = 1 : i64} : (tensor<1x1x8x8xf32>, tensor<?x4xf32>, !attn.packing<1, 8>) -> tensor<?x4xf32>
// CHECK-NEXT:      attn.yield %9 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %o : tensor<?x4xf32>
//
// GATE-LABEL: func.func @worked_example(
// GATE:            %5 = attn.block_importance
// GATE-NEXT:       %6 = attn.block_mask %5, %p_1 {rho_b = 5.000000e-01 : f64, block = array<i64: 2, 2>} : (tensor<1x1x4x4xf64>, !attn.packing<1, 8>) -> tensor<1x1x4x4xi1>
// GATE-NEXT:       %7 = attn.head_gate %5, %p_1 {tau_h = 5.000000e-01 : f64, importance = "abs", block = array<i64: 2, 2>} : (tensor<1x1x4x4xf64>, !attn.packing<1, 8>) -> tensor<1x1xi1>
// GATE-NEXT:       %8 = attn.merge_scores
// GATE-NEXT:       %9 = attn.softmax
// GATE-NEXT:       %10 = attn.weighted_values %9, %v_1, %p_1, %7 {heads = 1 : i64, gated = "zero"} : (tensor<1x1x8x8xf32>, tensor<?x4xf32>, !attn.packing<1, 8>, tensor<1x1xi1>) -> tensor<?x4xf32>
// GATE-NEXT:       attn.yield %10 : tensor<?x4xf32>
//
// NONE-LABEL: func.func @worked_example(%q: tensor<?x4xf32>, %k: tensor<?x4xf32>, %v: tensor<?x4xf32>, %p: !attn.packing<1, 8>) -> tensor<?x4xf32> {
// NONE-NEXT:    %o = attn.pruned (%q_1 = %q : tensor<?x4xf32>, %k_1 = %k : tensor<?x4xf32>, %p_1 = %p : !attn.packing<1, 8>, %v_1 = %v : tensor<?x4xf32>) -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"none", {}>} {
// NONE-NEXT:      %0 = attn.scores %q_1, %k_1, %p_1 {heads = 1 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 8>) -> tensor<1x1x8x8xf32>
// NONE-NEXT:      %1 = attn.softmax %0, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x1x8x8xf32>, !attn.packing<1, 8>) -> tensor<1x1x8x8xf32>
// NONE-NEXT:      %2 = attn.weighted_values %1, %v_1, %p_1 {heads = 1 : i64} : (tensor<1x1x8x8xf32>, tensor<?x4xf32>, !attn.packing<1, 8>) -> tensor<?x4xf32>
// NONE-NEXT:      attn.yield %2 : tensor<?x4xf32>
// NONE-NEXT:    }
// NONE-NEXT:    func.return %o : tensor<?x4xf32>
//
// NEGINF: rho_b = 0.000000e+00
// NEGINF: pruned = "neginf"
// INT: pruned = "int"
// MEAN: rho_b = -5.000000e-01
// MEAN: pruned = "mean"
func.func @worked_example(%q: tensor<?x4xf32>, %k: tensor<?x4xf32>, %v: tensor<?x4xf32>, %p: !attn.packing<1, 8>) -> tensor<?x4xf32> {
  %o = attn.sdpa %q, %k, %v packed %p : !attn.packing<1, 8> {heads = 1 : i64, scale = 0.5 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return %o : tensor<?x4xf32>
}

// Two heads of width 3 and 1 for values, odd length: partial blocks at the ends.

// CHECK-LABEL: func.func @odd(%q: tensor<?x6xf32>, %v: tensor<?x2xf32>, %p: !attn.packing<2, 5>) -> tensor<?x2xf32> {
// CHECK-NEXT:    %o = attn.pruned (%q_1 = %q : tensor<?x6xf32>, %p_1 = %p : !attn.packing<2, 5>, %v_1 = %v : tensor<?x2xf32>) -> (tensor<?x2xf32>) attributes {rule = #attn.rule<"paper", {rho_b = 5.000000e-01 : f64, tau_h = 0.000000e+00 : f64, pruned_score = "zero", block = array<i64: 2, 2>}>} {
// CHECK-NEXT:      %0, %1 = attn.split %q_1 : (tensor<?x6xf32>) -> (tensor<?x6xf32>, tensor<?x6xf32>)
// CHECK-NEXT:      %2, %3 = attn.split %q_1 : (tensor<?x6xf32>) -> (tensor<?x6xf32>, tensor<?x6xf32>)
// CHECK-NEXT:      %4 = attn.integer_scores %0, %2, %p_1 {heads = 2 : i64} : (tensor<?x6xf32>, tensor<?x6xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
// CHECK-NEXT:      %5 = attn.block_importance %4, %p_1 {block = array<i64: 2, 2>, importance = "abs"} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x3x3xf64>
// CHECK-NEXT:      %6 = attn.block_mask %5, %p_1 {rho_b = 5.000000e-01 : f64, block = array<i64: 2, 2>} : (tensor<2x2x3x3xf64>, !attn.packing<2, 5>) -> tensor<2x2x3x3xi1>
// CHECK-NEXT:      %7 = attn.merge_scores %4, %0, %1, %2, %3, %6, %p_1 {heads = 2 : i64, block = array<i64: 2, 2>, pruned = "zero"} : (tensor<2x2x5x5xf32>, tensor<?x6xf32>, tensor<?x6xf32>, tensor<?x6xf32>, tensor<?x6xf32>, tensor<2x2x3x3xi1>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
// CHECK-NEXT:      %8 = attn.softmax %7, %p_1 {scale = 2.500000e-01 : f64} : (tensor<2x2x5x5xf32>, !attn.packing<2, 5>) -> tensor<2x2x5x5xf32>
// CHECK-NEXT:      %9 = attn.weighted_values %8, %v_1, %p_1 {heads = 2 : i64} : (tensor<2x2x5x5xf32>, tensor<?x2xf32>, !attn.packing<2, 5>) -> tensor<?x2xf32>
// CHECK-NEXT:      attn.yield %9 : tensor<?x2xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %o : tensor<?x2xf32>
func.func @odd(%q: tensor<?x6xf32>, %v: tensor<?x2xf32>, %p: !attn.packing<2, 5>) -> tensor<?x2xf32> {
  %o = attn.sdpa %q, %q, %v packed %p : !attn.packing<2, 5> {heads = 2 : i64, scale = 0.25 : f64} : tensor<?x6xf32>, tensor<?x6xf32>, tensor<?x2xf32> -> tensor<?x2xf32>
  func.return %o : tensor<?x2xf32>
}
