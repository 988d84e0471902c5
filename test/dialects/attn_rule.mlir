// RUN: %roundtrip

// The attribute of a pruning rule prints what it parses.

// CHECK: "test.op"() {a = #attn.rule<"none", {}>, b = #attn.rule<"paper", {rho_b = array<f64: 1.000000e-01, 0.12345678901234568>, tau_h = 1.300000e+00 : f64, pruned_score = "zero", block = array<i64: 2, 4>}>, c = #attn.rule<"ours", {finer = 2 : i64}>} : () -> ()
"test.op"() {a = #attn.rule<"none", {}>, b = #attn.rule<"paper", {rho_b = array<f64: 0.1, 0.12345678901234568>, tau_h = 1.3 : f64, pruned_score = "zero", block = array<i64: 2, 4>}>, c = #attn.rule<"ours", {finer = 2 : i64}>} : () -> ()
