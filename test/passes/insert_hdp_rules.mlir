// RUN: heatc-opt %s -p 'insert-hdp{rule=ours rho-b=0.5 tau-h=0.1,0.2}' | filecheck %s --check-prefix=OURS
// RUN: heatc-opt %s -p 'insert-hdp{rule=ours finer=0 importance=abs pruned-score=int tau-h=0.5 gated=mean block=4,1}' | filecheck %s --check-prefix=MEAN
// RUN: heatc-opt %s -p 'insert-hdp{rule=topk density=0.5}' | filecheck %s --check-prefix=TOPK
// RUN: heatc-opt %s -p 'insert-hdp{rule=energon alpha=0.25,-0.25}' | filecheck %s --check-prefix=ENERGON
// RUN: heatc-opt %s -p 'insert-hdp{rule=sanger}' | filecheck %s --check-prefix=SANGER

// The rules beside `paper`, each as a chain of ops.

// OURS-LABEL: func.func @one(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>) -> tensor<?x4xf32> {
// OURS-NEXT:    %0, %1 = attn.split %x {finer = 2 : i64} : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// OURS-NEXT:    %2, %3 = attn.split %x {finer = 2 : i64} : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// OURS-NEXT:    %4 = attn.integer_scores %0, %2, %p {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// OURS-NEXT:    %5 = attn.block_importance %4, %p {block = array<i64: 2, 2>, importance = "positive"} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x3x3xf64>
// OURS-NEXT:    %6 = attn.block_mask %5, %p {rho_b = 5.000000e-01 : f64, block = array<i64: 2, 2>} : (tensor<1x2x3x3xf64>, !attn.packing<1, 6>) -> tensor<1x2x3x3xi1>
// OURS-NEXT:    %7 = attn.head_gate %5, %p {tau_h = array<f64: 1.000000e-01, 2.000000e-01>, importance = "positive", block = array<i64: 2, 2>} : (tensor<1x2x3x3xf64>, !attn.packing<1, 6>) -> tensor<1x2xi1>
// OURS-NEXT:    %8 = attn.merge_scores %4, %0, %1, %2, %3, %6, %p {heads = 2 : i64, block = array<i64: 2, 2>, pruned = "mean"} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<1x2x3x3xi1>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// OURS-NEXT:    %9 = attn.mean_query %8, %4, %7, %p : (tensor<1x2x6x6xf32>, tensor<1x2x6x6xf32>, tensor<1x2xi1>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// OURS-NEXT:    %10 = attn.softmax %9, %p {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// OURS-NEXT:    %11 = attn.weighted_values %10, %x, %p {heads = 2 : i64} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<?x4xf32>
// OURS-NEXT:    func.return %11 : tensor<?x4xf32>
//
// MEAN-LABEL: func.func @one(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>) -> tensor<?x4xf32> {
// MEAN-NEXT:    %0, %1 = attn.split %x : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// MEAN-NEXT:    %2, %3 = attn.split %x : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// MEAN-NEXT:    %4 = attn.integer_scores %0, %2, %p {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// MEAN-NEXT:    %5 = attn.block_importance %4, %p {block = array<i64: 4, 1>, importance = "abs"} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x2x6xf64>
// MEAN-NEXT:    %6 = attn.block_mask %5, %p {rho_b = 0.000000e+00 : f64, block = array<i64: 4, 1>} : (tensor<1x2x2x6xf64>, !attn.packing<1, 6>) -> tensor<1x2x2x6xi1>
// MEAN-NEXT:    %7 = attn.head_gate %5, %p {tau_h = 5.000000e-01 : f64, importance = "abs", block = array<i64: 4, 1>} : (tensor<1x2x2x6xf64>, !attn.packing<1, 6>) -> tensor<1x2xi1>
// MEAN-NEXT:    %8 = attn.merge_scores %4, %0, %1, %2, %3, %6, %p {heads = 2 : i64, block = array<i64: 4, 1>, pruned = "int"} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<1x2x2x6xi1>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// MEAN-NEXT:    %9 = attn.softmax %8, %p {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// MEAN-NEXT:    %10 = attn.weighted_values %9, %x, %p, %7 {heads = 2 : i64, gated = "mean"} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, !attn.packing<1, 6>, tensor<1x2xi1>) -> tensor<?x4xf32>
// MEAN-NEXT:    func.return %10 : tensor<?x4xf32>
//
// TOPK-LABEL: func.func @one(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>) -> tensor<?x4xf32> {
// TOPK-NEXT:    %0, %1 = attn.split %x : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// TOPK-NEXT:    %2, %3 = attn.split %x : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
// TOPK-NEXT:    %4 = attn.integer_scores %0, %2, %p {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// TOPK-NEXT:    %5 = attn.block_importance %4, %p {block = array<i64: 2, 2>, importance = "abs"} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x3x3xf64>
// TOPK-NEXT:    %6 = attn.topk_mask %5, %p {density = 5.000000e-01 : f64, block = array<i64: 2, 2>} : (tensor<1x2x3x3xf64>, !attn.packing<1, 6>) -> tensor<1x2x3x3xi1>
// TOPK-NEXT:    %7 = attn.merge_scores %4, %0, %1, %2, %3, %6, %p {heads = 2 : i64, block = array<i64: 2, 2>, pruned = "neginf"} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<1x2x3x3xi1>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// TOPK-NEXT:    %8 = attn.softmax %7, %p {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// TOPK-NEXT:    %9 = attn.weighted_values %8, %x, %p {heads = 2 : i64} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<?x4xf32>
// TOPK-NEXT:    func.return %9 : tensor<?x4xf32>
//
// ENERGON-LABEL: func.func @one(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>) -> tensor<?x4xf32> {
// ENERGON-NEXT:    %0 = attn.scores %x, %x, %p {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// ENERGON-NEXT:    %1, %2 = attn.low_bits %x, %p {heads = 2 : i64, bits = 2 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>) -> (tensor<?x4xi8>, tensor<1x2xi64>)
// ENERGON-NEXT:    %3, %4 = attn.low_bits %x, %p {heads = 2 : i64, bits = 2 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>) -> (tensor<?x4xi8>, tensor<1x2xi64>)
// ENERGON-NEXT:    %5 = attn.integer_scores %1, %3, %p {heads = 2 : i64} : (tensor<?x4xi8>, tensor<?x4xi8>, !attn.packing<1, 6>) -> tensor<1x2x6x6xi32>
// ENERGON-NEXT:    %6 = attn.block_mask %5, %p {rho_b = 2.500000e-01 : f64, block = array<i64: 1, 1>} : (tensor<1x2x6x6xi32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xi1>
// ENERGON-NEXT:    %7, %8 = attn.low_bits %x, %p {heads = 2 : i64, bits = 4 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>) -> (tensor<?x4xi8>, tensor<1x2xi64>)
// ENERGON-NEXT:    %9, %10 = attn.low_bits %x, %p {heads = 2 : i64, bits = 4 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>) -> (tensor<?x4xi8>, tensor<1x2xi64>)
// ENERGON-NEXT:    %11 = attn.integer_scores %7, %9, %p {heads = 2 : i64} : (tensor<?x4xi8>, tensor<?x4xi8>, !attn.packing<1, 6>) -> tensor<1x2x6x6xi32>
// ENERGON-NEXT:    %12 = attn.block_mask %11, %p, %6 {rho_b = -2.500000e-01 : f64, block = array<i64: 1, 1>} : (tensor<1x2x6x6xi32>, !attn.packing<1, 6>, tensor<1x2x6x6xi1>) -> tensor<1x2x6x6xi1>
// ENERGON-NEXT:    %13 = attn.exclude_scores %0, %12, %p : (tensor<1x2x6x6xf32>, tensor<1x2x6x6xi1>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// ENERGON-NEXT:    %14 = attn.softmax %13, %p {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// ENERGON-NEXT:    %15 = attn.weighted_values %14, %x, %p {heads = 2 : i64} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<?x4xf32>
// ENERGON-NEXT:    func.return %15 : tensor<?x4xf32>
//
// SANGER-LABEL: func.func @one(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>) -> tensor<?x4xf32> {
// SANGER-NEXT:    %0 = attn.scores %x, %x, %p {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// SANGER-NEXT:    %1, %2 = attn.low_bits %x, %p {heads = 2 : i64, bits = 4 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>) -> (tensor<?x4xi8>, tensor<1x2xi64>)
// SANGER-NEXT:    %3, %4 = attn.low_bits %x, %p {heads = 2 : i64, bits = 4 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>) -> (tensor<?x4xi8>, tensor<1x2xi64>)
// SANGER-NEXT:    %5 = attn.integer_scores %1, %3, %p {heads = 2 : i64} : (tensor<?x4xi8>, tensor<?x4xi8>, !attn.packing<1, 6>) -> tensor<1x2x6x6xi32>
// SANGER-NEXT:    %6 = attn.scale_scores %5, %2, %4, %p : (tensor<1x2x6x6xi32>, tensor<1x2xi64>, tensor<1x2xi64>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf64>
// SANGER-NEXT:    %7 = attn.softmax %6, %p {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf64>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf64>
// SANGER-NEXT:    %8 = attn.probability_mask %7, %p {threshold = 2.000000e-03 : f64} : (tensor<1x2x6x6xf64>, !attn.packing<1, 6>) -> tensor<1x2x6x6xi1>
// SANGER-NEXT:    %9 = attn.exclude_scores %0, %8, %p : (tensor<1x2x6x6xf32>, tensor<1x2x6x6xi1>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// SANGER-NEXT:    %10 = attn.softmax %9, %p {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// SANGER-NEXT:    %11 = attn.weighted_values %10, %x, %p {heads = 2 : i64} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<?x4xf32>
// SANGER-NEXT:    func.return %11 : tensor<?x4xf32>
func.func @one(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>) -> tensor<?x4xf32> {
  %0 = attn.sdpa %x, %x, %x packed %p : !attn.packing<1, 6> {heads = 2 : i64, scale = 0.5 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return %0 : tensor<?x4xf32>
}
