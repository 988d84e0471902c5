// RUN: heatc-opt %s -p apply-plan,insert-hdp --plan %S/Inputs/plan.json 2>&1 | filecheck %s --check-prefix=PLAN
// RUN: heatc-opt %s -p 'insert-hdp{rule=spatten ratio=0.4}' | filecheck %s --check-prefix=SPATTEN

// Layers that differ: by a plan, and by what the heads of the layers before put out.

// PLAN: layer.0.attention (model.py:10): remark: attention rule ours (finer 3, importance positive, rho-b 0.25,-0.5, tau-h 0,0.5, pruned-score mean, gated col, block 2x2): by {{.*}}plan.json
// PLAN-NEXT: layer.1.attention (model.py:10): remark: attention rule none: not named in {{.*}}plan.json
// PLAN-NEXT: layer.2.attention (model.py:10): remark: attention rule topk (finer 0, density 0.5, pruned-score neginf, block 2x2): by {{.*}}plan.json
// PLAN: attn.block_mask {{.*}}rho_b = array<f64: 2.500000e-01, -5.000000e-01>
// PLAN: attn.head_gate {{.*}}tau_h = array<f64: 0.000000e+00, 5.000000e-01>
// PLAN: attn.scores
// PLAN: attn.topk_mask {{.*}}density = 5.000000e-01
//
// SPATTEN-LABEL: func.func @three(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>) -> tensor<?x4xf32> {
// SPATTEN-NEXT:    %0, %1 = attn.pruned (%x_1 = %x : tensor<?x4xf32>, %p_1 = %p : !attn.packing<1, 6>) -> (tensor<?x4xf32>, tensor<1x2xf64>) attributes {rule = #attn.rule<"spatten", {ratio = 4.000000e-01 : f64}>} {
// SPATTEN-NEXT:      %2 = attn.scores %x_1, %x_1, %p_1 {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// SPATTEN-NEXT:      %3 = attn.softmax %2, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// SPATTEN-NEXT:      %4 = attn.weighted_values %3, %x_1, %p_1 {heads = 2 : i64} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<?x4xf32>
// SPATTEN-NEXT:      %5 = attn.head_importance %4, %p_1 {heads = 2 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2xf64>
// SPATTEN-NEXT:      attn.yield %4, %5 : tensor<?x4xf32>, tensor<1x2xf64>
// SPATTEN-NEXT:    }
// SPATTEN-NEXT:    %2, %3 = attn.pruned (%4 = %0 : tensor<?x4xf32>, %p_1 = %p : !attn.packing<1, 6>, %5 = %1 : tensor<1x2xf64>) -> (tensor<?x4xf32>, tensor<1x2xf64>) attributes {rule = #attn.rule<"spatten", {ratio = 4.000000e-01 : f64}>} {
// SPATTEN-NEXT:      %6 = attn.scores %4, %4, %p_1 {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// SPATTEN-NEXT:      %7 = attn.softmax %6, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// SPATTEN-NEXT:      %8 = attn.weighted_values %7, %4, %p_1 {heads = 2 : i64} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<?x4xf32>
// SPATTEN-NEXT:      %9 = attn.head_importance %8, %p_1, %5 {heads = 2 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>, tensor<1x2xf64>) -> tensor<1x2xf64>
// SPATTEN-NEXT:      attn.yield %8, %9 : tensor<?x4xf32>, tensor<1x2xf64>
// SPATTEN-NEXT:    }
// SPATTEN-NEXT:    %4 = attn.pruned (%5 = %3 : tensor<1x2xf64>, %6 = %2 : tensor<?x4xf32>, %p_1 = %p : !attn.packing<1, 6>) -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"spatten", {ratio = 4.000000e-01 : f64}>} {
// SPATTEN-NEXT:      %7 = attn.head_ranking %5 {keep = 1 : i64} : (tensor<1x2xf64>) -> tensor<1x2xi1>
// SPATTEN-NEXT:      %8 = attn.scores %6, %6, %p_1 {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// SPATTEN-NEXT:      %9 = attn.softmax %8, %p_1 {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// SPATTEN-NEXT:      %10 = attn.weighted_values %9, %6, %p_1, %7 {heads = 2 : i64, gated = "zero"} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, !attn.packing<1, 6>, tensor<1x2xi1>) -> tensor<?x4xf32>
// SPATTEN-NEXT:      attn.yield %10 : tensor<?x4xf32>
// SPATTEN-NEXT:    }
// SPATTEN-NEXT:    func.return %4 : tensor<?x4xf32>
func.func @three(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>) -> tensor<?x4xf32> {
  %0 = attn.sdpa %x, %x, %x packed %p : !attn.packing<1, 6> {heads = 2 : i64, scale = 0.5 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32> loc("layer.0.attention"("model.py":10:0))
  %1 = attn.sdpa %0, %0, %0 packed %p : !attn.packing<1, 6> {heads = 2 : i64, scale = 0.5 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32> loc("layer.1.attention"("model.py":10:0))
  %2 = attn.sdpa %1, %1, %1 packed %p : !attn.packing<1, 6> {heads = 2 : i64, scale = 0.5 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32> loc("layer.2.attention"("model.py":10:0))
  func.return %2 : tensor<?x4xf32>
}
