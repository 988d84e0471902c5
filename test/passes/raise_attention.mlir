// RUN: heatc-opt %s -p raise-attention --split-input-file | filecheck %s

// Attention in any spelling becomes one op on the linear outputs.

// PyTorch's fused op, heads split by reshape and transpose, a boolean mask: the operands are the
// linear outputs, the mask is the input, no layout op is left.

// CHECK-LABEL: func.func @fused(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x8xf32> {
// CHECK-NEXT:    %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
// CHECK-NEXT:    %m1 = nn.cast %m0 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
// CHECK-NEXT:    %m3 = nn.expand %m1 : (tensor<2x1x1x3xi1>) -> tensor<2x1x3x3xi1>
// CHECK-NEXT:    %om = attn.sdpa %q, %k, %v masks %m3 : tensor<2x1x3x3xi1> {heads = 2 : i64, scale = 5.000000e-01 : f64, fills = [0xfff0000000000000 : f64], keyless = "zero"} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %om : tensor<2x3x8xf32>
func.func @fused(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %m1 = nn.cast %m0 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %m3 = nn.expand %m1 : (tensor<2x1x1x3xi1>) -> tensor<2x1x3x3xi1>
  %o = nn.sdpa %qh, %kh, %vh, %m3 {scale = 0.5 : f64, is_causal = false} : (tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>, tensor<2x1x3x3xi1>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// The eager form: products, scale, additive mask of (1 - mask) * -10000, softmax.

// CHECK-LABEL: func.func @eager(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x8xf32> {
// CHECK-NEXT:    %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
// CHECK-NEXT:    %m1 = nn.cast %m0 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xf32>
// CHECK-NEXT:    %one = nn.full {value = 1.000000e+00 : f64} : tensor<f32>
// CHECK-NEXT:    %m2 = nn.sub %one, %m1 : (tensor<f32>, tensor<2x1x1x3xf32>) -> tensor<2x1x1x3xf32>
// CHECK-NEXT:    %low = nn.full {value = -1.000000e+04 : f64} : tensor<f32>
// CHECK-NEXT:    %m3 = nn.mul %m2, %low : (tensor<2x1x1x3xf32>, tensor<f32>) -> tensor<2x1x1x3xf32>
// CHECK-NEXT:    %om = attn.sdpa %q, %k, %v masks %m3 : tensor<2x1x1x3xf32> {heads = 2 : i64, scale = 5.000000e-01 : f64, keyless = "nan"} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %om : tensor<2x3x8xf32>
func.func @eager(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %m1 = nn.cast %m0 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xf32>
  %one = nn.full {value = 1.0 : f64} : tensor<f32>
  %m2 = nn.sub %one, %m1 : (tensor<f32>, tensor<2x1x1x3xf32>) -> tensor<2x1x1x3xf32>
  %low = nn.full {value = -1.0e4 : f64} : tensor<f32>
  %m3 = nn.mul %m2, %low : (tensor<2x1x1x3xf32>, tensor<f32>) -> tensor<2x1x1x3xf32>
  %kt = nn.transpose %kh {permutation = array<i64: 0, 1, 3, 2>} : (tensor<2x2x3x4xf32>) -> tensor<2x2x4x3xf32>
  %s = nn.matmul %qh, %kt : (tensor<2x2x3x4xf32>, tensor<2x2x4x3xf32>) -> tensor<2x2x3x3xf32>
  %c = nn.full {value = 0.5 : f64} : tensor<f32>
  %s1 = nn.mul %s, %c : (tensor<2x2x3x3xf32>, tensor<f32>) -> tensor<2x2x3x3xf32>
  %s2 = nn.add %s1, %m3 : (tensor<2x2x3x3xf32>, tensor<2x1x1x3xf32>) -> tensor<2x2x3x3xf32>
  %p = nn.softmax %s2 {dim = -1 : i64} : (tensor<2x2x3x3xf32>) -> tensor<2x2x3x3xf32>
  %o = nn.matmul %p, %vh : (tensor<2x2x3x3xf32>, tensor<2x2x3x4xf32>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// No mask; division by sqrt(d); keys transposed in one step; softmax named by its axis.

// CHECK-LABEL: func.func @division(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>) -> tensor<2x3x8xf32> {
// CHECK-NEXT:    %om = attn.sdpa %q, %k, %v {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %om : tensor<2x3x8xf32>
func.func @division(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kt = nn.transpose %ks {permutation = array<i64: 0, 2, 3, 1>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x4x3xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %s = nn.matmul %qh, %kt : (tensor<2x2x3x4xf32>, tensor<2x2x4x3xf32>) -> tensor<2x2x3x3xf32>
  %c = nn.full {value = 2.0 : f64} : tensor<f32>
  %s1 = nn.div %s, %c : (tensor<2x2x3x3xf32>, tensor<f32>) -> tensor<2x2x3x3xf32>
  %p = nn.softmax %s1 {dim = 3 : i64} : (tensor<2x2x3x3xf32>) -> tensor<2x2x3x3xf32>
  %o = nn.matmul %p, %vh : (tensor<2x2x3x3xf32>, tensor<2x2x3x4xf32>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// Written by hand: bmm on (B * heads, S, d), queries scaled before the product, the mask added at
// rank 4 between two reshapes, filled where masked.

// CHECK-LABEL: func.func @by_hand(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x8xf32> {
// CHECK-NEXT:    %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
// CHECK-NEXT:    %zero = nn.full {value = 0.000000e+00 : f64} : tensor<i64>
// CHECK-NEXT:    %hide = nn.compare %m0, %zero {predicate = "eq"} : (tensor<2x1x1x3xi64>, tensor<i64>) -> tensor<2x1x1x3xi1>
// CHECK-NEXT:    %0 = nn.not %hide : (tensor<2x1x1x3xi1>) -> tensor<2x1x1x3xi1>
// CHECK-NEXT:    %om = attn.sdpa %q, %k, %v masks %0 : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 5.000000e-01 : f64, fills = [-1.000000e+09 : f64], keyless = "nan"} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %om : tensor<2x3x8xf32>
func.func @by_hand(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x8xf32> {
  %c = nn.full {value = 0.5 : f64} : tensor<f32>
  %qc = nn.mul %q, %c : (tensor<2x3x8xf32>, tensor<f32>) -> tensor<2x3x8xf32>
  %qs = nn.reshape %qc : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %qf = nn.reshape %qh : (tensor<2x2x3x4xf32>) -> tensor<4x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %kf = nn.reshape %kh : (tensor<2x2x3x4xf32>) -> tensor<4x3x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %vf = nn.reshape %vh : (tensor<2x2x3x4xf32>) -> tensor<4x3x4xf32>
  %kt = nn.transpose %kf {permutation = array<i64: 0, 2, 1>} : (tensor<4x3x4xf32>) -> tensor<4x4x3xf32>
  %s = nn.matmul %qf, %kt : (tensor<4x3x4xf32>, tensor<4x4x3xf32>) -> tensor<4x3x3xf32>
  %s4 = nn.reshape %s : (tensor<4x3x3xf32>) -> tensor<2x2x3x3xf32>
  %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %zero = nn.full {value = 0.0 : f64} : tensor<i64>
  %hide = nn.compare %m0, %zero {predicate = "eq"} : (tensor<2x1x1x3xi64>, tensor<i64>) -> tensor<2x1x1x3xi1>
  %low = nn.full {value = -1.0e9 : f64} : tensor<f32>
  %s5 = nn.where %hide, %low, %s4 : (tensor<2x1x1x3xi1>, tensor<f32>, tensor<2x2x3x3xf32>) -> tensor<2x2x3x3xf32>
  %s6 = nn.reshape %s5 : (tensor<2x2x3x3xf32>) -> tensor<4x3x3xf32>
  %p = nn.softmax %s6 {dim = -1 : i64} : (tensor<4x3x3xf32>) -> tensor<4x3x3xf32>
  %o = nn.matmul %p, %vf : (tensor<4x3x3xf32>, tensor<4x3x4xf32>) -> tensor<4x3x4xf32>
  %o4 = nn.reshape %o : (tensor<4x3x4xf32>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o4 {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// A mask of (B * heads, 1, S), made by repeating the input for every head, at rank 3.

// CHECK-LABEL: func.func @mask_per_head(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x8xf32> {
// CHECK-NEXT:    %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
// CHECK-NEXT:    %m1 = nn.expand %m0 : (tensor<2x1x1x3xi64>) -> tensor<2x2x1x3xi64>
// CHECK-NEXT:    %m2 = nn.reshape %m1 : (tensor<2x2x1x3xi64>) -> tensor<4x1x3xi64>
// CHECK-NEXT:    %keep = nn.cast %m2 : (tensor<4x1x3xi64>) -> tensor<4x1x3xi1>
// CHECK-NEXT:    %0 = nn.reshape %keep : (tensor<4x1x3xi1>) -> tensor<2x2x1x3xi1>
// CHECK-NEXT:    %om = attn.sdpa %q, %k, %v masks %0 : tensor<2x2x1x3xi1> {heads = 2 : i64, scale = 1.000000e+00 : f64, fills = [0xfff0000000000000 : f64], keyless = "nan"} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %om : tensor<2x3x8xf32>
func.func @mask_per_head(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %qf = nn.reshape %qh : (tensor<2x2x3x4xf32>) -> tensor<4x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %kf = nn.reshape %kh : (tensor<2x2x3x4xf32>) -> tensor<4x3x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %vf = nn.reshape %vh : (tensor<2x2x3x4xf32>) -> tensor<4x3x4xf32>
  %kt = nn.transpose %kf {permutation = array<i64: 0, 2, 1>} : (tensor<4x3x4xf32>) -> tensor<4x4x3xf32>
  %s = nn.matmul %qf, %kt : (tensor<4x3x4xf32>, tensor<4x4x3xf32>) -> tensor<4x3x3xf32>
  %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %m1 = nn.expand %m0 : (tensor<2x1x1x3xi64>) -> tensor<2x2x1x3xi64>
  %m2 = nn.reshape %m1 : (tensor<2x2x1x3xi64>) -> tensor<4x1x3xi64>
  %keep = nn.cast %m2 : (tensor<4x1x3xi64>) -> tensor<4x1x3xi1>
  %low = nn.full {value = 0xFFF0000000000000 : f64} : tensor<f32>
  %s1 = nn.where %keep, %s, %low : (tensor<4x1x3xi1>, tensor<4x3x3xf32>, tensor<f32>) -> tensor<4x3x3xf32>
  %p = nn.softmax %s1 {dim = -1 : i64} : (tensor<4x3x3xf32>) -> tensor<4x3x3xf32>
  %o = nn.matmul %p, %vf : (tensor<4x3x3xf32>, tensor<4x3x4xf32>) -> tensor<4x3x4xf32>
  %o4 = nn.reshape %o : (tensor<4x3x4xf32>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o4 {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// A mask that attends everywhere is no mask.

// CHECK-LABEL: func.func @all_ones(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>) -> tensor<2x3x8xf32> {
// CHECK-NEXT:    %ones = nn.full {value = 1.000000e+00 : f64} : tensor<1x1x3x3xi1>
// CHECK-NEXT:    %om = attn.sdpa %q, %k, %v masks %ones : tensor<1x1x3x3xi1> {heads = 2 : i64, scale = 5.000000e-01 : f64, fills = [0xfff0000000000000 : f64], keyless = "zero"} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %om : tensor<2x3x8xf32>
func.func @all_ones(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %ones = nn.full {value = 1.0 : f64} : tensor<1x1x3x3xi1>
  %o = nn.sdpa %qh, %kh, %vh, %ones {scale = 0.5 : f64, is_causal = false} : (tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>, tensor<1x1x3x3xi1>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// Causal attention with a padding mask: both.

// CHECK-LABEL: func.func @causal(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x8xf32> {
// CHECK-NEXT:    %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
// CHECK-NEXT:    %m1 = nn.cast %m0 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
// CHECK-NEXT:    %m3 = nn.expand %m1 : (tensor<2x1x1x3xi1>) -> tensor<2x1x3x3xi1>
// CHECK-NEXT:    %0 = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<3xi64>
// CHECK-NEXT:    %1 = nn.reshape %0 : (tensor<3xi64>) -> tensor<3x1xi64>
// CHECK-NEXT:    %2 = nn.compare %1, %0 {predicate = "ge"} : (tensor<3x1xi64>, tensor<3xi64>) -> tensor<3x3xi1>
// CHECK-NEXT:    %om = attn.sdpa %q, %k, %v masks %m3, %2 : tensor<2x1x3x3xi1>, tensor<3x3xi1> {heads = 2 : i64, scale = 5.000000e-01 : f64, fills = [0xfff0000000000000 : f64, 0xfff0000000000000 : f64], keyless = "zero"} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %om : tensor<2x3x8xf32>
func.func @causal(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %m1 = nn.cast %m0 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %m3 = nn.expand %m1 : (tensor<2x1x1x3xi1>) -> tensor<2x1x3x3xi1>
  %o = nn.sdpa %qh, %kh, %vh, %m3 {scale = 0.5 : f64, is_causal = true} : (tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>, tensor<2x1x3x3xi1>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// A mask that is learned (a bias per head) is added, not skipped.

// CHECK-LABEL: func.func @bias(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %b: tensor<1x2x3x3xf32>) -> tensor<2x3x8xf32> {
// CHECK-NEXT:    %om = attn.sdpa %q, %k, %v masks %b : tensor<1x2x3x3xf32> {heads = 2 : i64, scale = 5.000000e-01 : f64, keyless = "nan"} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %om : tensor<2x3x8xf32>
func.func @bias(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %b: tensor<1x2x3x3xf32>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %kt = nn.transpose %kh {permutation = array<i64: 0, 1, 3, 2>} : (tensor<2x2x3x4xf32>) -> tensor<2x2x4x3xf32>
  %s = nn.matmul %qh, %kt : (tensor<2x2x3x4xf32>, tensor<2x2x4x3xf32>) -> tensor<2x2x3x3xf32>
  %c = nn.full {value = 0.5 : f64} : tensor<f32>
  %s1 = nn.mul %s, %c : (tensor<2x2x3x3xf32>, tensor<f32>) -> tensor<2x2x3x3xf32>
  %s2 = nn.add %b, %s1 : (tensor<1x2x3x3xf32>, tensor<2x2x3x3xf32>) -> tensor<2x2x3x3xf32>
  %p = nn.softmax %s2 {dim = -1 : i64} : (tensor<2x2x3x3xf32>) -> tensor<2x2x3x3xf32>
  %o = nn.matmul %p, %vh : (tensor<2x2x3x3xf32>, tensor<2x2x3x4xf32>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// A mask that depends on two inputs.

// CHECK-LABEL: func.func @two_inputs(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %m: tensor<2x3xi64>, %n: tensor<2x3xi64>) -> tensor<2x3x8xf32> {
// CHECK-NEXT:    %both = nn.and %m, %n : (tensor<2x3xi64>, tensor<2x3xi64>) -> tensor<2x3xi64>
// CHECK-NEXT:    %m0 = nn.reshape %both : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
// CHECK-NEXT:    %m1 = nn.cast %m0 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
// CHECK-NEXT:    %om = attn.sdpa %q, %k, %v masks %m1 : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 5.000000e-01 : f64, fills = [0xfff0000000000000 : f64], keyless = "zero"} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %om : tensor<2x3x8xf32>
func.func @two_inputs(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %m: tensor<2x3xi64>, %n: tensor<2x3xi64>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %both = nn.and %m, %n : (tensor<2x3xi64>, tensor<2x3xi64>) -> tensor<2x3xi64>
  %m0 = nn.reshape %both : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %m1 = nn.cast %m0 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %o = nn.sdpa %qh, %kh, %vh, %m1 {scale = 0.5 : f64, is_causal = false} : (tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>, tensor<2x1x1x3xi1>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// A mask of queries instead of keys.

// CHECK-LABEL: func.func @of_queries(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x8xf32> {
// CHECK-NEXT:    %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x3x1xi64>
// CHECK-NEXT:    %m1 = nn.cast %m0 : (tensor<2x1x3x1xi64>) -> tensor<2x1x3x1xi1>
// CHECK-NEXT:    %om = attn.sdpa %q, %k, %v masks %m1 : tensor<2x1x3x1xi1> {heads = 2 : i64, scale = 5.000000e-01 : f64, fills = [0xfff0000000000000 : f64], keyless = "zero"} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %om : tensor<2x3x8xf32>
func.func @of_queries(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x3x1xi64>
  %m1 = nn.cast %m0 : (tensor<2x1x3x1xi64>) -> tensor<2x1x3x1xi1>
  %o = nn.sdpa %qh, %kh, %vh, %m1 {scale = 0.5 : f64, is_causal = false} : (tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>, tensor<2x1x3x1xi1>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// A bias added to (B * heads, S, S) scores gets its heads apart.

// CHECK-LABEL: func.func @bias_at_rank_3(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %b: tensor<4x3x3xf32>) -> tensor<2x3x8xf32> {
// CHECK-NEXT:    %0 = nn.reshape %b : (tensor<4x3x3xf32>) -> tensor<2x2x3x3xf32>
// CHECK-NEXT:    %om = attn.sdpa %q, %k, %v masks %0 : tensor<2x2x3x3xf32> {heads = 2 : i64, scale = 1.000000e+00 : f64, keyless = "nan"} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %om : tensor<2x3x8xf32>
func.func @bias_at_rank_3(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %b: tensor<4x3x3xf32>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %qf = nn.reshape %qh : (tensor<2x2x3x4xf32>) -> tensor<4x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %kf = nn.reshape %kh : (tensor<2x2x3x4xf32>) -> tensor<4x3x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %vf = nn.reshape %vh : (tensor<2x2x3x4xf32>) -> tensor<4x3x4xf32>
  %kt = nn.transpose %kf {permutation = array<i64: 0, 2, 1>} : (tensor<4x3x4xf32>) -> tensor<4x4x3xf32>
  %s = nn.matmul %qf, %kt : (tensor<4x3x4xf32>, tensor<4x4x3xf32>) -> tensor<4x3x3xf32>
  %s1 = nn.add %s, %b : (tensor<4x3x3xf32>, tensor<4x3x3xf32>) -> tensor<4x3x3xf32>
  %p = nn.softmax %s1 {dim = -1 : i64} : (tensor<4x3x3xf32>) -> tensor<4x3x3xf32>
  %o = nn.matmul %p, %vf : (tensor<4x3x3xf32>, tensor<4x3x4xf32>) -> tensor<4x3x4xf32>
  %o4 = nn.reshape %o : (tensor<4x3x4xf32>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o4 {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}


// -----

// One head needs no split: scores are (B, S, S), and so is what masks them.

// CHECK-LABEL: func.func @one_head(%q: tensor<2x3x4xf32>, %k: tensor<2x3x4xf32>, %v: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x4xf32> {
// CHECK-NEXT:    %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x3xi64>
// CHECK-NEXT:    %m1 = nn.cast %m0 : (tensor<2x1x3xi64>) -> tensor<2x1x3xi1>
// CHECK-NEXT:    %0 = nn.reshape %m1 : (tensor<2x1x3xi1>) -> tensor<2x1x1x3xi1>
// CHECK-NEXT:    %o = attn.sdpa %q, %k, %v masks %0 : tensor<2x1x1x3xi1> {heads = 1 : i64, scale = 1.000000e+00 : f64, fills = [-1.000000e+09 : f64], keyless = "nan"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
// CHECK-NEXT:    func.return %o : tensor<2x3x4xf32>
func.func @one_head(%q: tensor<2x3x4xf32>, %k: tensor<2x3x4xf32>, %v: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x4xf32> {
  %kt = nn.transpose %k {permutation = array<i64: 0, 2, 1>} : (tensor<2x3x4xf32>) -> tensor<2x4x3xf32>
  %s = nn.matmul %q, %kt : (tensor<2x3x4xf32>, tensor<2x4x3xf32>) -> tensor<2x3x3xf32>
  %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x3xi64>
  %m1 = nn.cast %m0 : (tensor<2x1x3xi64>) -> tensor<2x1x3xi1>
  %low = nn.full {value = -1.0e9 : f64} : tensor<f32>
  %s1 = nn.where %m1, %s, %low : (tensor<2x1x3xi1>, tensor<2x3x3xf32>, tensor<f32>) -> tensor<2x3x3xf32>
  %p = nn.softmax %s1 {dim = -1 : i64} : (tensor<2x3x3xf32>) -> tensor<2x3x3xf32>
  %o = nn.matmul %p, %v : (tensor<2x3x3xf32>, tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
  func.return %o : tensor<2x3x4xf32>
}

// -----

// Heads that come split from outside are put side by side.

// CHECK-LABEL: func.func @split_outside(%q: tensor<2x2x3x4xf32>, %m: tensor<2x3xi64>) -> tensor<2x2x3x4xf32> {
// CHECK-NEXT:    %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
// CHECK-NEXT:    %m1 = nn.cast %m0 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
// CHECK-NEXT:    %0 = nn.transpose %q {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
// CHECK-NEXT:    %1 = nn.reshape %0 : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
// CHECK-NEXT:    %2 = nn.transpose %q {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
// CHECK-NEXT:    %3 = nn.reshape %2 : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
// CHECK-NEXT:    %4 = nn.transpose %q {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
// CHECK-NEXT:    %5 = nn.reshape %4 : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
// CHECK-NEXT:    %6 = attn.sdpa %1, %3, %5 masks %m1 : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 5.000000e-01 : f64, fills = [0xfff0000000000000 : f64], keyless = "zero"} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    %7 = nn.reshape %6 : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
// CHECK-NEXT:    %o = nn.transpose %7 {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
// CHECK-NEXT:    func.return %o : tensor<2x2x3x4xf32>
func.func @split_outside(%q: tensor<2x2x3x4xf32>, %m: tensor<2x3xi64>) -> tensor<2x2x3x4xf32> {
  %m0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %m1 = nn.cast %m0 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %o = nn.sdpa %q, %q, %q, %m1 {scale = 0.5 : f64, is_causal = false} : (tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>, tensor<2x1x1x3xi1>) -> tensor<2x2x3x4xf32>
  func.return %o : tensor<2x2x3x4xf32>
}

// -----

// A packed projection that is cut through a view, tokens or heads first: its parts are columns of it.

// CHECK-LABEL: func.func @packed(%x: tensor<2x3x24xf32>) -> tensor<2x2x3x4xf32> {
// CHECK-NEXT:    %0 = nn.slice %x {starts = array<i64: 0, 0, 0>, steps = array<i64: 1, 1, 1>} : (tensor<2x3x24xf32>) -> tensor<2x3x8xf32>
// CHECK-NEXT:    %1 = nn.slice %x {starts = array<i64: 0, 0, 8>, steps = array<i64: 1, 1, 1>} : (tensor<2x3x24xf32>) -> tensor<2x3x8xf32>
// CHECK-NEXT:    %2 = nn.slice %x {starts = array<i64: 0, 0, 16>, steps = array<i64: 1, 1, 1>} : (tensor<2x3x24xf32>) -> tensor<2x3x8xf32>
// CHECK-NEXT:    %3 = attn.sdpa %0, %1, %2 {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    %4 = nn.reshape %3 : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
// CHECK-NEXT:    %o = nn.transpose %4 {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
// CHECK-NEXT:    func.return %o : tensor<2x2x3x4xf32>
func.func @packed(%x: tensor<2x3x24xf32>) -> tensor<2x2x3x4xf32> {
  %qkv = nn.reshape %x : (tensor<2x3x24xf32>) -> tensor<2x3x3x2x4xf32>
  %t = nn.transpose %qkv {permutation = array<i64: 2, 0, 3, 1, 4>} : (tensor<2x3x3x2x4xf32>) -> tensor<3x2x2x3x4xf32>
  %q0 = nn.slice %t {starts = array<i64: 0, 0, 0, 0, 0>, steps = array<i64: 1, 1, 1, 1, 1>} : (tensor<3x2x2x3x4xf32>) -> tensor<1x2x2x3x4xf32>
  %q = nn.reshape %q0 : (tensor<1x2x2x3x4xf32>) -> tensor<2x2x3x4xf32>
  %k0 = nn.slice %t {starts = array<i64: 1, 0, 0, 0, 0>, steps = array<i64: 1, 1, 1, 1, 1>} : (tensor<3x2x2x3x4xf32>) -> tensor<1x2x2x3x4xf32>
  %k = nn.reshape %k0 : (tensor<1x2x2x3x4xf32>) -> tensor<2x2x3x4xf32>
  %w = nn.reshape %x : (tensor<2x3x24xf32>) -> tensor<2x3x3x8xf32>
  %v0 = nn.slice %w {starts = array<i64: 0, 0, 2, 0>, steps = array<i64: 1, 1, 1, 1>} : (tensor<2x3x3x8xf32>) -> tensor<2x3x1x8xf32>
  %v1 = nn.reshape %v0 : (tensor<2x3x1x8xf32>) -> tensor<2x3x2x4xf32>
  %v = nn.transpose %v1 {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %o = nn.sdpa %q, %k, %v {scale = 0.5 : f64, is_causal = false} : (tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>) -> tensor<2x2x3x4xf32>
  func.return %o : tensor<2x2x3x4xf32>
}

// -----

// Heads that lie interleaved in the last axis are put side by side.

// CHECK-LABEL: func.func @interleaved(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>) -> tensor<2x3x8xf32> {
// CHECK-NEXT:    %0 = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<6x4x2xf32>
// CHECK-NEXT:    %1 = nn.transpose %0 {permutation = array<i64: 0, 2, 1>} : (tensor<6x4x2xf32>) -> tensor<6x2x4xf32>
// CHECK-NEXT:    %2 = nn.reshape %1 : (tensor<6x2x4xf32>) -> tensor<2x3x8xf32>
// CHECK-NEXT:    %om = attn.sdpa %2, %k, %v {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %om : tensor<2x3x8xf32>
func.func @interleaved(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x4x2xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 3, 1, 2>} : (tensor<2x3x4x2xf32>) -> tensor<2x2x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %kt = nn.transpose %kh {permutation = array<i64: 0, 1, 3, 2>} : (tensor<2x2x3x4xf32>) -> tensor<2x2x4x3xf32>
  %s = nn.matmul %qh, %kt : (tensor<2x2x3x4xf32>, tensor<2x2x4x3xf32>) -> tensor<2x2x3x3xf32>
  %c = nn.full {value = 0.5 : f64} : tensor<f32>
  %s1 = nn.mul %s, %c : (tensor<2x2x3x3xf32>, tensor<f32>) -> tensor<2x2x3x3xf32>
  %p = nn.softmax %s1 {dim = -1 : i64} : (tensor<2x2x3x3xf32>) -> tensor<2x2x3x3xf32>
  %o = nn.matmul %p, %vh : (tensor<2x2x3x3xf32>, tensor<2x2x3x4xf32>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// Heads that change places between keys and values.

// CHECK-LABEL: func.func @heads_permuted(%q: tensor<2x2x4xf32>, %k: tensor<2x2x4xf32>, %v: tensor<2x2x4xf32>) -> tensor<2x2x4xf32> {
// CHECK-NEXT:    %0 = nn.reshape %v : (tensor<2x2x4xf32>) -> tensor<2x2x2x2xf32>
// CHECK-NEXT:    %1 = nn.transpose %0 {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x2x2xf32>) -> tensor<2x2x2x2xf32>
// CHECK-NEXT:    %2 = nn.reshape %1 : (tensor<2x2x2x2xf32>) -> tensor<2x2x4xf32>
// CHECK-NEXT:    %3 = attn.sdpa %q, %k, %2 {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<2x2x4xf32>, tensor<2x2x4xf32>, tensor<2x2x4xf32> -> tensor<2x2x4xf32>
// CHECK-NEXT:    %4 = nn.reshape %3 : (tensor<2x2x4xf32>) -> tensor<2x2x2x2xf32>
// CHECK-NEXT:    %o = nn.transpose %4 {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x2x2xf32>) -> tensor<2x2x2x2xf32>
// CHECK-NEXT:    %om = nn.reshape %o : (tensor<2x2x2x2xf32>) -> tensor<2x2x4xf32>
// CHECK-NEXT:    func.return %om : tensor<2x2x4xf32>
func.func @heads_permuted(%q: tensor<2x2x4xf32>, %k: tensor<2x2x4xf32>, %v: tensor<2x2x4xf32>) -> tensor<2x2x4xf32> {
  %qs = nn.reshape %q : (tensor<2x2x4xf32>) -> tensor<2x2x2x2xf32>
  %ks = nn.reshape %k : (tensor<2x2x4xf32>) -> tensor<2x2x2x2xf32>
  %vs = nn.reshape %v : (tensor<2x2x4xf32>) -> tensor<2x2x2x2xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x2x2xf32>) -> tensor<2x2x2x2xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x2x2xf32>) -> tensor<2x2x2x2xf32>
  %o = nn.sdpa %qh, %kh, %vs {scale = 0.5 : f64, is_causal = false} : (tensor<2x2x2x2xf32>, tensor<2x2x2x2xf32>, tensor<2x2x2x2xf32>) -> tensor<2x2x2x2xf32>
  %om = nn.reshape %o : (tensor<2x2x2x2xf32>) -> tensor<2x2x4xf32>
  func.return %om : tensor<2x2x4xf32>
}

// -----

// Scaled values stay scaled.

// CHECK-LABEL: func.func @values_scaled(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>) -> tensor<2x3x8xf32> {
// CHECK-NEXT:    %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
// CHECK-NEXT:    %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
// CHECK-NEXT:    %g = nn.full {value = 3.000000e+00 : f64} : tensor<f32>
// CHECK-NEXT:    %vg = nn.mul %vh, %g : (tensor<2x2x3x4xf32>, tensor<f32>) -> tensor<2x2x3x4xf32>
// CHECK-NEXT:    %0 = nn.transpose %vg {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
// CHECK-NEXT:    %1 = nn.reshape %0 : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
// CHECK-NEXT:    %om = attn.sdpa %q, %k, %1 {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %om : tensor<2x3x8xf32>
func.func @values_scaled(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %kt = nn.transpose %kh {permutation = array<i64: 0, 1, 3, 2>} : (tensor<2x2x3x4xf32>) -> tensor<2x2x4x3xf32>
  %s = nn.matmul %qh, %kt : (tensor<2x2x3x4xf32>, tensor<2x2x4x3xf32>) -> tensor<2x2x3x3xf32>
  %c = nn.full {value = 0.5 : f64} : tensor<f32>
  %s1 = nn.mul %s, %c : (tensor<2x2x3x3xf32>, tensor<f32>) -> tensor<2x2x3x3xf32>
  %p = nn.softmax %s1 {dim = -1 : i64} : (tensor<2x2x3x3xf32>) -> tensor<2x2x3x3xf32>
  %g = nn.full {value = 3.0 : f64} : tensor<f32>
  %vg = nn.mul %vh, %g : (tensor<2x2x3x4xf32>, tensor<f32>) -> tensor<2x2x3x4xf32>
  %o = nn.matmul %p, %vg : (tensor<2x2x3x3xf32>, tensor<2x2x3x4xf32>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// Keys that are not transposed are attention to channels: as many tokens as channels hides it from the
// shapes, and not from the axes.

// CHECK-LABEL: func.func @keys_not_transposed(%q: tensor<2x4x8xf32>, %k: tensor<2x4x8xf32>, %v: tensor<2x4x8xf32>) -> tensor<2x4x8xf32> {
// CHECK-NEXT:    %0 = nn.reshape %k : (tensor<2x4x8xf32>) -> tensor<2x4x2x4xf32>
// CHECK-NEXT:    %1 = nn.transpose %0 {permutation = array<i64: 0, 3, 2, 1>} : (tensor<2x4x2x4xf32>) -> tensor<2x4x2x4xf32>
// CHECK-NEXT:    %2 = nn.reshape %1 : (tensor<2x4x2x4xf32>) -> tensor<2x4x8xf32>
// CHECK-NEXT:    %om = attn.sdpa %q, %2, %v {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<2x4x8xf32>, tensor<2x4x8xf32>, tensor<2x4x8xf32> -> tensor<2x4x8xf32>
// CHECK-NEXT:    func.return %om : tensor<2x4x8xf32>
func.func @keys_not_transposed(%q: tensor<2x4x8xf32>, %k: tensor<2x4x8xf32>, %v: tensor<2x4x8xf32>) -> tensor<2x4x8xf32> {
  %qs = nn.reshape %q : (tensor<2x4x8xf32>) -> tensor<2x4x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x4x2x4xf32>) -> tensor<2x2x4x4xf32>
  %ks = nn.reshape %k : (tensor<2x4x8xf32>) -> tensor<2x4x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x4x2x4xf32>) -> tensor<2x2x4x4xf32>
  %vs = nn.reshape %v : (tensor<2x4x8xf32>) -> tensor<2x4x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x4x2x4xf32>) -> tensor<2x2x4x4xf32>
  %s = nn.matmul %qh, %kh : (tensor<2x2x4x4xf32>, tensor<2x2x4x4xf32>) -> tensor<2x2x4x4xf32>
  %c = nn.full {value = 0.5 : f64} : tensor<f32>
  %s1 = nn.mul %s, %c : (tensor<2x2x4x4xf32>, tensor<f32>) -> tensor<2x2x4x4xf32>
  %p = nn.softmax %s1 {dim = -1 : i64} : (tensor<2x2x4x4xf32>) -> tensor<2x2x4x4xf32>
  %o = nn.matmul %p, %vh : (tensor<2x2x4x4xf32>, tensor<2x2x4x4xf32>) -> tensor<2x2x4x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x4x4xf32>) -> tensor<2x4x2x4xf32>
  %om = nn.reshape %os : (tensor<2x4x2x4xf32>) -> tensor<2x4x8xf32>
  func.return %om : tensor<2x4x8xf32>
}

// -----

// A scale after the mask, which scales the mask too.

// CHECK-LABEL: func.func @mask_scaled(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %b: tensor<3x3xf32>) -> tensor<2x3x8xf32> {
// CHECK-NEXT:    %0 = nn.full {value = 5.000000e-01 : f64} : tensor<f32>
// CHECK-NEXT:    %1 = nn.mul %b, %0 : (tensor<3x3xf32>, tensor<f32>) -> tensor<3x3xf32>
// CHECK-NEXT:    %om = attn.sdpa %q, %k, %v masks %1 : tensor<3x3xf32> {heads = 2 : i64, scale = 5.000000e-01 : f64, keyless = "nan"} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %om : tensor<2x3x8xf32>
func.func @mask_scaled(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %b: tensor<3x3xf32>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %kt = nn.transpose %kh {permutation = array<i64: 0, 1, 3, 2>} : (tensor<2x2x3x4xf32>) -> tensor<2x2x4x3xf32>
  %s = nn.matmul %qh, %kt : (tensor<2x2x3x4xf32>, tensor<2x2x4x3xf32>) -> tensor<2x2x3x3xf32>
  %s1 = nn.add %s, %b : (tensor<2x2x3x3xf32>, tensor<3x3xf32>) -> tensor<2x2x3x3xf32>
  %c = nn.full {value = 0.5 : f64} : tensor<f32>
  %s2 = nn.mul %s1, %c : (tensor<2x2x3x3xf32>, tensor<f32>) -> tensor<2x2x3x3xf32>
  %p = nn.softmax %s2 {dim = -1 : i64} : (tensor<2x2x3x3xf32>) -> tensor<2x2x3x3xf32>
  %o = nn.matmul %p, %vh : (tensor<2x2x3x3xf32>, tensor<2x2x3x4xf32>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// Equations, tokens before heads; the softmax is over the keys wherever they stand.

// CHECK-LABEL: func.func @equations(
// CHECK-NEXT:    %r = attn.sdpa %q, %k, %v {heads = 2 : i64, scale = 1.000000e+00 : f64}
// CHECK-NEXT:    func.return %r : tensor<2x3x8xf32>
func.func @equations(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %s = einsum.contract "bkhd,bqhd->bkqh" %ks, %qs : (tensor<2x3x2x4xf32>, tensor<2x3x2x4xf32>) -> tensor<2x3x3x2xf32>
  %p = nn.softmax %s {dim = 1 : i64} : (tensor<2x3x3x2xf32>) -> tensor<2x3x3x2xf32>
  %o = einsum.contract "bkqh,bkhe->bqhe" %p, %vs : (tensor<2x3x3x2xf32>, tensor<2x3x2x4xf32>) -> tensor<2x3x2x4xf32>
  %r = nn.reshape %o : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %r : tensor<2x3x8xf32>
}

// -----

// Tokens first, heads in the axis of sequences: the operands are turned, and the result is turned back.

// CHECK-LABEL: func.func @tokens_first(
// CHECK-COUNT-3: nn.transpose {{.*}} : (tensor<3x2x8xf32>) -> tensor<2x3x8xf32>
// CHECK-NEXT:    [[O:%.+]] = attn.sdpa {{.*}} {heads = 2 : i64, scale = 1.000000e+00 : f64} : tensor<2x3x8xf32>, tensor<2x3x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    %r = nn.transpose [[O]] {permutation = array<i64: 1, 0, 2>}
// CHECK-NEXT:    func.return %r : tensor<3x2x8xf32>
func.func @tokens_first(%q: tensor<3x2x8xf32>, %k: tensor<3x2x8xf32>, %v: tensor<3x2x8xf32>) -> tensor<3x2x8xf32> {
  %qs = nn.reshape %q : (tensor<3x2x8xf32>) -> tensor<3x4x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 1, 0, 2>} : (tensor<3x4x4xf32>) -> tensor<4x3x4xf32>
  %ks = nn.reshape %k : (tensor<3x2x8xf32>) -> tensor<3x4x4xf32>
  %kt = nn.transpose %ks {permutation = array<i64: 1, 2, 0>} : (tensor<3x4x4xf32>) -> tensor<4x4x3xf32>
  %vs = nn.reshape %v : (tensor<3x2x8xf32>) -> tensor<3x4x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 1, 0, 2>} : (tensor<3x4x4xf32>) -> tensor<4x3x4xf32>
  %s = nn.matmul %qh, %kt : (tensor<4x3x4xf32>, tensor<4x4x3xf32>) -> tensor<4x3x3xf32>
  %p = nn.softmax %s {dim = -1 : i64} : (tensor<4x3x3xf32>) -> tensor<4x3x3xf32>
  %o = nn.matmul %p, %vh : (tensor<4x3x3xf32>, tensor<4x3x4xf32>) -> tensor<4x3x4xf32>
  %ot = nn.transpose %o {permutation = array<i64: 1, 0, 2>} : (tensor<4x3x4xf32>) -> tensor<3x4x4xf32>
  %r = nn.reshape %ot : (tensor<3x4x4xf32>) -> tensor<3x2x8xf32>
  func.return %r : tensor<3x2x8xf32>
}

// -----

// Two heads of keys and values for four of queries: their columns are put side by side for each.

// CHECK-LABEL: func.func @grouped(
// CHECK:         [[A:%.+]] = nn.slice %k {starts = array<i64: 0, 0, 0>
// CHECK-NEXT:    [[B:%.+]] = nn.slice %k {starts = array<i64: 0, 0, 4>
// CHECK-NEXT:    [[K:%.+]] = nn.concat [[A]], [[A]], [[B]], [[B]] {dim = 2 : i64}
// CHECK:         [[V:%.+]] = nn.concat {{.*}} {dim = 2 : i64}
// CHECK-NEXT:    attn.sdpa %q, [[K]], [[V]] {heads = 4 : i64
func.func @grouped(%q: tensor<2x3x16xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>) -> tensor<2x3x16xf32> {
  %qs = nn.reshape %q : (tensor<2x3x16xf32>) -> tensor<2x3x2x2x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %s = einsum.contract "bqhgd,bkhd->bhgqk" %qs, %ks : (tensor<2x3x2x2x4xf32>, tensor<2x3x2x4xf32>) -> tensor<2x2x2x3x3xf32>
  %p = nn.softmax %s {dim = -1 : i64} : (tensor<2x2x2x3x3xf32>) -> tensor<2x2x2x3x3xf32>
  %o = einsum.contract "bhgqk,bkhd->bqhgd" %p, %vs : (tensor<2x2x2x3x3xf32>, tensor<2x3x2x4xf32>) -> tensor<2x3x2x2x4xf32>
  %r = nn.reshape %o : (tensor<2x3x2x2x4xf32>) -> tensor<2x3x16xf32>
  func.return %r : tensor<2x3x16xf32>
}
