// RUN: heatc-opt %s -p apply-plan --plan %S/Inputs/apply_plan.json 2>%t.remarks | filecheck %s
// RUN: filecheck %s --input-file %t.remarks --check-prefix=REMARKS
// RUN: heatc-opt %s -p apply-plan --plan %S/Inputs/apply_plan.json 2>%t.remarks | heatc-opt -p 'insert-hdp{rule=paper}' | filecheck %s --check-prefix=RULES

// The attention that the plan does not name is not pruned, whatever an option says behind it.

// REMARKS: encoder.0 (m.py:4): remark: attention rule topk (finer 0, density 0.25, pruned-score neginf, block 2x2): by {{.*}}apply_plan.json
// REMARKS: encoder.1 (m.py:4): remark: attention rule none: not named in {{.*}}apply_plan.json
// RULES:      attn.topk_mask
// RULES-NOT:  attn.block_mask
// RULES:      attn.scores
// RULES-NOT:  attn.block_mask

// CHECK-LABEL: func.func @attention
// CHECK-NEXT:    attn.sdpa %x, %x, %x packed %p : !attn.packing<2, 5> {heads = 2 : i64, scale = 5.000000e-01 : f64, rule = #attn.rule<"topk", {finer = 0 : i64, density = 2.500000e-01 : f64, pruned_score = "neginf", block = array<i64: 2, 2>}>} :
// CHECK-NEXT:    attn.sdpa %0, %0, %0 packed %p : !attn.packing<2, 5> {heads = 2 : i64, scale = 5.000000e-01 : f64, rule = #attn.rule<"none", {}>} :
func.func @attention(%x: tensor<?x4xf32>, %p: !attn.packing<2, 5>) -> tensor<?x4xf32> {
  %0 = attn.sdpa %x, %x, %x packed %p : !attn.packing<2, 5> {heads = 2 : i64, scale = 0.5 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32> loc("encoder.0"("m.py":4:0))
  %1 = attn.sdpa %0, %0, %0 packed %p : !attn.packing<2, 5> {heads = 2 : i64, scale = 0.5 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32> loc("encoder.1"("m.py":4:0))
  func.return %1 : tensor<?x4xf32>
}

// A table, a linear with a path, one whose weight it shares, and one that the plan does not name.

// CHECK-LABEL: func.func @layers
// CHECK:         nn.embedding %t, %ids {format = #einsum.format<"ttm", "2x3|2x2", [2]>} :
// CHECK:         einsum.contract "ti,oi->to" %x, %w {format = #einsum.format<"low-rank", "4|4", [2], (0, 1), (3, 2)>} :
// CHECK-NEXT:    einsum.contract "ti,oi->to" %y, %w {format = #einsum.format<"low-rank", "4|4", [2], (0, 1), (3, 2)>} :
// CHECK:         einsum.contract "ti,oi->to" %z, %v :
func.func @layers(%ids: tensor<?xi64>) -> tensor<?x4xf32> {
  %t = einsum.weight ["words.weight"] : tensor<6x4xf32>
  %x = nn.embedding %t, %ids : (tensor<6x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
  %w = einsum.weight ["up.weight"] : tensor<4x4xf32>
  %y = einsum.contract "ti,oi->to" %x, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %z = einsum.contract "ti,oi->to" %y, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %v = einsum.weight ["down.weight"] : tensor<4x4xf32>
  %u = einsum.contract "ti,oi->to" %z, %v : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  func.return %u : tensor<?x4xf32>
}
