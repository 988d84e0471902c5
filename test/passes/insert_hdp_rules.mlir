// RUN: heatc-opt %s -p 'insert-hdp{rule=ours rho-b=0.5 tau-h=0.1,0.2}' | filecheck %s --check-prefix=OURS
// RUN: heatc-opt %s -p 'insert-hdp{rule=ours finer=0 importance=abs pruned-score=int tau-h=0.5 gated=mean block=4,1}' | filecheck %s --check-prefix=MEAN
// RUN: heatc-opt %s -p 'insert-hdp{rule=topk density=0.5}' | filecheck %s --check-prefix=TOPK
// RUN: heatc-opt %s -p 'insert-hdp{rule=energon alpha=0.25,-0.25}' | filecheck %s --check-prefix=ENERGON
// RUN: heatc-opt %s -p 'insert-hdp{rule=sanger}' | filecheck %s --check-prefix=SANGER

// The rules beside `paper`, each as a chain of ops.

// OURS-LABEL: func.func @one(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>) -> tensor<?x4xf32> {
// OURS-NEXT:    %0 = attn.pruned (%x_1 = %x : tensor<?x4xf32>, %p_1 = %p : !attn.packing<1, 6>) -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"ours", {finer = 2 : i64, importance = "positive", rho_b = 5.000000e-01 : f64, tau_h = array<f64: 1.000000e-01, 2.000000e-01>, pruned_score = "mean", gated = "col", block = array<i64: 2, 2>}>} {
// OURS-NEXT:      %1, %2 = attn.split %x_1 {finer = 2 : i64} : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// OURS-NEXT:      %3, %4 = attn.split %x_1 {finer = 2 : i64} : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// OURS-NEXT:      %5 = attn.integer_scores %1, %3, %p_1 {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// OURS-NEXT:      %6 = attn.block_importance %5, %p_1 {block = array<i64: 2, 2>, importance = "positive"} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x3x3xf64>
// OURS-NEXT:      %7 = attn.block_mask %6, %p_1 {rho_b = 5.000000e-01 : f64, block = array<i64: 2, 2>} : (tensor<1x2x3x3xf64>, !attn.packing<1, 6>) -> tensor<1x2x3x3xi1>
// OURS-NEXT:      %8 = attn.head_gate %6, %p_1 {tau_h = array<f64: 1.000000e-01, 2.000000e-01>, importance = "positive", block = array<i64: 2, 2>} : (tensor<1x2x3x3xf64>, !attn.packing<1, 6>) -> tensor<1x2xi1>
// OURS-NEXT:      %9 = attn.merge_scores %5, %1, %2, %3, %4, %7, %p_1 {heads = 2 : i64, block = array<i64: 2, 2>, pruned = "mean"} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<1x2x3x3xi1>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// OURS-NEXT:      %10 = attn.mean_query %9, %5, %8, %p_1 : (tensor<1x2x6x6xf32>, tensor<1x2x6x6xf32>, tensor<1x2xi1>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// OURS-NEXT:      %11 = attn.softmax %10, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// OURS-NEXT:      %12 = attn.weighted_values %11, %x_1, %p_1 {heads = 2 : i64} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<?x4xf32>
// OURS-NEXT:      attn.yield %12 : tensor<?x4xf32>
// OURS-NEXT:    }
// OURS-NEXT:    func.return %0 : tensor<?x4xf32>
//
// MEAN-LABEL: func.func @one(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>) -> tensor<?x4xf32> {
// MEAN-NEXT:    %0 = attn.pruned (%x_1 = %x : tensor<?x4xf32>, %p_1 = %p : !attn.packing<1, 6>) -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"ours", {finer = 0 : i64, importance = "abs", rho_b = 0.000000e+00 : f64, tau_h = 5.000000e-01 : f64, pruned_score = "int", gated = "mean", block = array<i64: 4, 1>}>} {
// MEAN-NEXT:      %1, %2 = attn.split %x_1 : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// MEAN-NEXT:      %3, %4 = attn.split %x_1 : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// MEAN-NEXT:      %5 = attn.integer_scores %1, %3, %p_1 {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// MEAN-NEXT:      %6 = attn.block_importance %5, %p_1 {block = array<i64: 4, 1>, importance = "abs"} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x2x6xf64>
// MEAN-NEXT:      %7 = attn.block_mask %6, %p_1 {rho_b = 0.000000e+00 : f64, block = array<i64: 4, 1>} : (tensor<1x2x2x6xf64>, !attn.packing<1, 6>) -> tensor<1x2x2x6xi1>
// MEAN-NEXT:      %8 = attn.head_gate %6, %p_1 {tau_h = 5.000000e-01 : f64, importance = "abs", block = array<i64: 4, 1>} : (tensor<1x2x2x6xf64>, !attn.packing<1, 6>) -> tensor<1x2xi1>
// MEAN-NEXT:      %9 = attn.merge_scores %5, %1, %2, %3, %4, %7, %p_1 {heads = 2 : i64, block = array<i64: 4, 1>, pruned = "int"} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<1x2x2x6xi1>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// MEAN-NEXT:      %10 = attn.softmax %9, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// MEAN-NEXT:      %11 = attn.weighted_values %10, %x_1, %p_1, %8 {heads = 2 : i64, gated = "mean"} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, !attn.packing<1, 6>, tensor<1x2xi1>) -> tensor<?x4xf32>
// MEAN-NEXT:      attn.yield %11 : tensor<?x4xf32>
// MEAN-NEXT:    }
// MEAN-NEXT:    func.return %0 : tensor<?x4xf32>
//
// TOPK-LABEL: func.func @one(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>) -> tensor<?x4xf32> {
// TOPK-NEXT:    %0 = attn.pruned (%x_1 = %x : tensor<?x4xf32>, %p_1 = %p : !attn.packing<1, 6>) -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"topk", {finer = 0 : i64, density = 5.000000e-01 : f64, pruned_score = "neginf", block = array<i64: 2, 2>}>} {
// TOPK-NEXT:      %1, %2 = attn.split %x_1 : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// TOPK-NEXT:      %3, %4 = attn.split %x_1 : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// TOPK-NEXT:      %5 = attn.integer_scores %1, %3, %p_1 {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// TOPK-NEXT:      %6 = attn.block_importance %5, %p_1 {block = array<i64: 2, 2>, importance = "abs"} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x3x3xf64>
// TOPK-NEXT:      %7 = attn.topk_mask %6, %p_1 {density = 5.000000e-01 : f64, block = array<i64: 2, 2>} : (tensor<1x2x3x3xf64>, !attn.packing<1, 6>) -> tensor<1x2x3x3xi1>
// TOPK-NEXT:      %8 = attn.merge_scores %5, %1, %2, %3, %4, %7, %p_1 {heads = 2 : i64, block = array<i64: 2, 2>, pruned = "neginf"} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<1x2x3x3xi1>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// TOPK-NEXT:      %9 = attn.softmax %8, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// TOPK-NEXT:      %10 = attn.weighted_values %9, %x_1, %p_1 {heads = 2 : i64} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<?x4xf32>
// TOPK-NEXT:      attn.yield %10 : tensor<?x4xf32>
// TOPK-NEXT:    }
// TOPK-NEXT:    func.return %0 : tensor<?x4xf32>
//
// ENERGON-LABEL: func.func @one(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>) -> tensor<?x4xf32> {
// ENERGON-NEXT:    %0 = attn.pruned (%x_1 = %x : tensor<?x4xf32>, %p_1 = %p : !attn.packing<1, 6>) -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"energon", {alpha = array<f64: 2.500000e-01, -2.500000e-01>}>} {
// ENERGON-NEXT:      %1 = attn.scores %x_1, %x_1, %p_1 {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// ENERGON-NEXT:      %2, %3 = attn.low_bits %x_1, %p_1 {heads = 2 : i64, bits = 2 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>) -> (tensor<?x4xi8>, tensor<1x2xi64>)
// ENERGON-NEXT:      %4, %5 = attn.low_bits %x_1, %p_1 {heads = 2 : i64, bits = 2 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>) -> (tensor<?x4xi8>, tensor<1x2xi64>)
// ENERGON-NEXT:      %6 = attn.integer_scores %2, %4, %p_1 {heads = 2 : i64} : (tensor<?x4xi8>, tensor<?x4xi8>, !attn.packing<1, 6>) -> tensor<1x2x6x6xi32>
// ENERGON-NEXT:      %7 = attn.block_mask %6, %p_1 {rho_b = 2.500000e-01 : f64, block = array<i64: 1, 1>} : (tensor<1x2x6x6xi32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xi1>
// ENERGON-NEXT:      %8, %9 = attn.low_bits %x_1, %p_1 {heads = 2 : i64, bits = 4 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>) -> (tensor<?x4xi8>, tensor<1x2xi64>)
// ENERGON-NEXT:      %10, %11 = attn.low_bits %x_1, %p_1 {heads = 2 : i64, bits = 4 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>) -> (tensor<?x4xi8>, tensor<1x2xi64>)
// ENERGON-NEXT:      %12 = attn.integer_scores %8, %10, %p_1 {heads = 2 : i64} : (tensor<?x4xi8>, tensor<?x4xi8>, !attn.packing<1, 6>) -> tensor<1x2x6x6xi32>
// ENERGON-NEXT:      %13 = attn.block_mask %12, %p_1, %7 {rho_b = -2.500000e-01 : f64, block = array<i64: 1, 1>} : (tensor<1x2x6x6xi32>, !attn.packing<1, 6>, tensor<1x2x6x6xi1>) -> tensor<1x2x6x6xi1>
// ENERGON-NEXT:      %14 = attn.exclude_scores %1, %13, %p_1 : (tensor<1x2x6x6xf32>, tensor<1x2x6x6xi1>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// ENERGON-NEXT:      %15 = attn.softmax %14, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// ENERGON-NEXT:      %16 = attn.weighted_values %15, %x_1, %p_1 {heads = 2 : i64} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<?x4xf32>
// ENERGON-NEXT:      attn.yield %16 : tensor<?x4xf32>
// ENERGON-NEXT:    }
// ENERGON-NEXT:    func.return %0 : tensor<?x4xf32>
//
// SANGER-LABEL: func.func @one(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>) -> tensor<?x4xf32> {
// SANGER-NEXT:    %0 = attn.pruned (%x_1 = %x : tensor<?x4xf32>, %p_1 = %p : !attn.packing<1, 6>) -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"sanger", {threshold = 2.000000e-03 : f64}>} {
// SANGER-NEXT:      %1 = attn.scores %x_1, %x_1, %p_1 {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// SANGER-NEXT:      %2, %3 = attn.low_bits %x_1, %p_1 {heads = 2 : i64, bits = 4 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>) -> (tensor<?x4xi8>, tensor<1x2xi64>)
// SANGER-NEXT:      %4, %5 = attn.low_bits %x_1, %p_1 {heads = 2 : i64, bits = 4 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>) -> (tensor<?x4xi8>, tensor<1x2xi64>)
// SANGER-NEXT:      %6 = attn.integer_scores %2, %4, %p_1 {heads = 2 : i64} : (tensor<?x4xi8>, tensor<?x4xi8>, !attn.packing<1, 6>) -> tensor<1x2x6x6xi32>
// SANGER-NEXT:      %7 = attn.scale_scores %6, %3, %5, %p_1 : (tensor<1x2x6x6xi32>, tensor<1x2xi64>, tensor<1x2xi64>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf64>
// SANGER-NEXT:      %8 = attn.softmax %7, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf64>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf64>
// SANGER-NEXT:      %9 = attn.probability_mask %8, %p_1 {threshold = 2.000000e-03 : f64} : (tensor<1x2x6x6xf64>, !attn.packing<1, 6>) -> tensor<1x2x6x6xi1>
// SANGER-NEXT:      %10 = attn.exclude_scores %1, %9, %p_1 : (tensor<1x2x6x6xf32>, tensor<1x2x6x6xi1>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// SANGER-NEXT:      %11 = attn.softmax %10, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// SANGER-NEXT:      %12 = attn.weighted_values %11, %x_1, %p_1 {heads = 2 : i64} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<?x4xf32>
// SANGER-NEXT:      attn.yield %12 : tensor<?x4xf32>
// SANGER-NEXT:    }
// SANGER-NEXT:    func.return %0 : tensor<?x4xf32>
func.func @one(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>) -> tensor<?x4xf32> {
  %0 = attn.sdpa %x, %x, %x packed %p : !attn.packing<1, 6> {heads = 2 : i64, scale = 0.5 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return %0 : tensor<?x4xf32>
}
