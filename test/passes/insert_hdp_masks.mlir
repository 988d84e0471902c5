// RUN: heatc-opt %s -p 'insert-hdp{rule=paper pruned-score=mean}' | filecheck %s

// Truth values hide, numbers hide or are a bias in units of scores; decisions see what is visible. Numbers
// that an input gives may hide differently: a row that sees no key looks at the least hidden scores.

// CHECK-LABEL: func.func @masks
// CHECK: [[WIDE:%.+]] = nn.reshape %b : (tensor<6x6xf32>) -> tensor<1x1x6x6xf32>
// CHECK: [[FINITE:%.+]] = nn.compare [[WIDE]], {{.+}} {predicate = "ge"}
// CHECK: [[MAY:%.+]] = nn.and [[FINITE]], %m
// CHECK: [[TOTAL:%.+]] = nn.where [[MAY]], [[WIDE]]
// CHECK: [[MOST:%.+]] = nn.reduce [[TOTAL]] {kind = "max", axes = array<i64: 3>}
// CHECK: [[COLUMN:%.+]] = nn.reshape [[MOST]]
// CHECK: [[BLIND:%.+]] = nn.compare [[COLUMN]], {{.+}} {predicate = "le"}
// CHECK: [[APART:%.+]] = nn.sub [[TOTAL]], [[COLUMN]]
// CHECK: [[BELOW:%.+]] = nn.minimum [[APART]]
// CHECK: [[LEVEL:%.+]] = nn.where [[BLIND]], [[BELOW]], [[TOTAL]]
// CHECK: [[SHOWN:%.+]] = nn.compare [[LEVEL]], {{.+}} {predicate = "gt"}
// CHECK: [[LEAST:%.+]] = nn.and [[SHOWN]], [[MAY]]
// CHECK: [[KEPT:%.+]] = nn.compare [[COLUMN]], {{.+}} {predicate = "gt"}
// CHECK: [[SEEN:%.+]] = nn.and [[LEAST]], [[KEPT]]
// CHECK: [[ADDED:%.+]] = nn.where [[SHOWN]], [[LEVEL]]
// CHECK: [[TWO:%.+]] = nn.full {value = 2.000000e+00 : f64}
// CHECK: [[SCALED:%.+]] = nn.mul [[ADDED]], [[TWO]]
// CHECK: attn.pruned (%q_1 = %q : tensor<?x4xf32>, %p_1 = %p : !attn.packing<2, 6>, [[T:%.+]] = [[SEEN]] : tensor<2x1x6x6xi1>, [[B:%.+]] = [[SCALED]] : tensor<2x1x6x6xf32>, [[L:%.+]] = [[LEAST]] : tensor<2x1x6x6xi1>)
// CHECK: [[A:%.+]] = attn.integer_scores
// CHECK: [[V:%.+]] = attn.visible %p_1, [[T]] {heads = 2 : i64}
// CHECK: [[THETA:%.+]] = attn.block_importance [[A]], %p_1, [[V]]
// CHECK: [[SOME:%.+]] = attn.visible_blocks [[V]], %p_1 {block = array<i64: 2, 2>}
// CHECK: [[MASK:%.+]] = attn.block_mask [[THETA]], %p_1, [[SOME]]
// CHECK: [[S:%.+]] = attn.merge_scores [[A]], {{.+}}, [[MASK]], %p_1, [[V]] {heads = 2 : i64
// CHECK: [[LEFT:%.+]] = attn.hide_scores [[S]], [[V]], %p_1 {keyless = "mean"}
// CHECK: [[ON:%.+]] = attn.bias_scores [[LEFT]], [[B]], %p_1
// CHECK: [[U:%.+]] = attn.visible %p_1, [[L]] {heads = 2 : i64}
// CHECK: [[END:%.+]] = attn.hide_scores [[ON]], [[U]], %p_1 {keyless = "zero"}
// CHECK: attn.softmax [[END]], %p_1
func.func @masks(%q: tensor<?x4xf32>, %p: !attn.packing<2, 6>, %m: tensor<2x1x6x6xi1>, %b: tensor<6x6xf32>) -> tensor<?x4xf32> {
  %o = attn.sdpa %q, %q, %q packed %p : !attn.packing<2, 6> masks %m, %b : tensor<2x1x6x6xi1>, tensor<6x6xf32> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64, 0.0 : f64], keyless = "zero"} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return %o : tensor<?x4xf32>
}
