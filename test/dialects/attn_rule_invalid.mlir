// RUN: heatc-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// CHECK: unknown rule 'papre', expected one of none, paper, ours, topk, energon, sanger, spatten
"test.op"() {a = #attn.rule<"papre", {}>} : () -> ()

// -----

// CHECK: rule topk does not take rho-b; it takes finer, density, pruned-score, block
"test.op"() {a = #attn.rule<"topk", {rho_b = 0.5 : f64}>} : () -> ()

// -----

// CHECK: unknown option blocks
"test.op"() {a = #attn.rule<"paper", {blocks = array<i64: 2, 2>}>} : () -> ()

// -----

// CHECK: rho-b 1.5 is outside (-1, 1)
"test.op"() {a = #attn.rule<"paper", {rho_b = array<f64: 0.5, 1.5>}>} : () -> ()

// -----

// CHECK: option finer is no number, text or array of them: true
"test.op"() {a = #attn.rule<"ours", {finer = true}>} : () -> ()
