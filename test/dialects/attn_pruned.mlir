// RUN: %roundtrip

// An attention is one op with its rule and its steps; what later attentions read leaves it, too.

// CHECK-LABEL: func.func @ranked(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>, %before: tensor<1x2xf64>) -> (tensor<?x4xf32>, tensor<1x2xf64>) {
// CHECK-NEXT:    %o, %sums = attn.pruned (%q = %x : tensor<?x4xf32>, %r = %p : !attn.packing<1, 6>, %b = %before : tensor<1x2xf64>) -> (tensor<?x4xf32>, tensor<1x2xf64>) attributes {rule = #attn.rule<"spatten", {ratio = 4.000000e-01 : f64}>, plan = #hdp.attention_plan<length = 128, cores = 8, parts = 8, rows = 16, keys = 128, slots = 2, shared>} {
// CHECK-NEXT:      %s = attn.scores %q, %q, %r {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// CHECK-NEXT:      %w = attn.softmax %s, %r {scale = 5.000000e-01 : f64} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
// CHECK-NEXT:      %y = attn.weighted_values %w, %q, %r {heads = 2 : i64} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<?x4xf32>
// CHECK-NEXT:      %i = attn.head_importance %y, %r, %b {heads = 2 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>, tensor<1x2xf64>) -> tensor<1x2xf64>
// CHECK-NEXT:      attn.yield %y, %i : tensor<?x4xf32>, tensor<1x2xf64>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %o, %sums : tensor<?x4xf32>, tensor<1x2xf64>
func.func @ranked(%x: tensor<?x4xf32>, %p: !attn.packing<1, 6>, %before: tensor<1x2xf64>) -> (tensor<?x4xf32>, tensor<1x2xf64>) {
  %o, %sums = attn.pruned (%q = %x : tensor<?x4xf32>, %r = %p : !attn.packing<1, 6>, %b = %before : tensor<1x2xf64>) -> (tensor<?x4xf32>, tensor<1x2xf64>) attributes {rule = #attn.rule<"spatten", {ratio = 0.4 : f64}>, plan = #hdp.attention_plan<length = 128, cores = 8, parts = 8, rows = 16, keys = 128, slots = 2, shared>} {
    %s = attn.scores %q, %q, %r {heads = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
    %w = attn.softmax %s, %r {scale = 0.5 : f64} : (tensor<1x2x6x6xf32>, !attn.packing<1, 6>) -> tensor<1x2x6x6xf32>
    %y = attn.weighted_values %w, %q, %r {heads = 2 : i64} : (tensor<1x2x6x6xf32>, tensor<?x4xf32>, !attn.packing<1, 6>) -> tensor<?x4xf32>
    %i = attn.head_importance %y, %r, %b {heads = 2 : i64} : (tensor<?x4xf32>, !attn.packing<1, 6>, tensor<1x2xf64>) -> tensor<1x2xf64>
    attn.yield %y, %i : tensor<?x4xf32>, tensor<1x2xf64>
  }
  func.return %o, %sums : tensor<?x4xf32>, tensor<1x2xf64>
}
