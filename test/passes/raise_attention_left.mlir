// RUN: heatc-opt %s -p raise-attention --split-input-file | filecheck %s

// What looks like attention and is not, or not provably, stays.

// A softmax over the queries.

// CHECK-LABEL: func.func @other_axis(
// CHECK-NOT:     attn.
// CHECK:         nn.softmax
// CHECK-NOT:     attn.
func.func @other_axis(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>) -> tensor<2x3x8xf32> {
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
  %p = nn.softmax %s1 {dim = 2 : i64} : (tensor<2x2x3x3xf32>) -> tensor<2x2x3x3xf32>
  %o = nn.matmul %p, %vh : (tensor<2x2x3x3xf32>, tensor<2x2x3x4xf32>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// A softmax over all scores of a head at once.

// CHECK-LABEL: func.func @flattened_softmax(
// CHECK-NOT:     attn.
// CHECK:         nn.softmax
// CHECK-NOT:     attn.
func.func @flattened_softmax(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>) -> tensor<2x3x8xf32> {
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
  %s2 = nn.reshape %s1 : (tensor<2x2x3x3xf32>) -> tensor<2x2x9xf32>
  %p2 = nn.softmax %s2 {dim = -1 : i64} : (tensor<2x2x9xf32>) -> tensor<2x2x9xf32>
  %p = nn.reshape %p2 : (tensor<2x2x9xf32>) -> tensor<2x2x3x3xf32>
  %o = nn.matmul %p, %vh : (tensor<2x2x3x3xf32>, tensor<2x2x3x4xf32>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// A scale that is no constant.

// CHECK-LABEL: func.func @scale_computed(
// CHECK-NOT:     attn.
// CHECK:         nn.softmax
// CHECK-NOT:     attn.
func.func @scale_computed(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>, %c: tensor<f32>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %kt = nn.transpose %kh {permutation = array<i64: 0, 1, 3, 2>} : (tensor<2x2x3x4xf32>) -> tensor<2x2x4x3xf32>
  %s = nn.matmul %qh, %kt : (tensor<2x2x3x4xf32>, tensor<2x2x4x3xf32>) -> tensor<2x2x3x3xf32>
  %s1 = nn.mul %s, %c : (tensor<2x2x3x3xf32>, tensor<f32>) -> tensor<2x2x3x3xf32>
  %p = nn.softmax %s1 {dim = -1 : i64} : (tensor<2x2x3x3xf32>) -> tensor<2x2x3x3xf32>
  %o = nn.matmul %p, %vh : (tensor<2x2x3x3xf32>, tensor<2x2x3x4xf32>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// Cross-attention.

// CHECK-LABEL: func.func @cross(
// CHECK-NOT:     attn.
// CHECK:         nn.sdpa
// CHECK-NOT:     attn.
func.func @cross(%q: tensor<2x3x8xf32>, %k: tensor<2x5x8xf32>, %v: tensor<2x5x8xf32>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x5x8xf32>) -> tensor<2x5x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x5x2x4xf32>) -> tensor<2x2x5x4xf32>
  %vs = nn.reshape %v : (tensor<2x5x8xf32>) -> tensor<2x5x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x5x2x4xf32>) -> tensor<2x2x5x4xf32>
  %o = nn.sdpa %qh, %kh, %vh {scale = 0.5 : f64, is_causal = false} : (tensor<2x2x3x4xf32>, tensor<2x2x5x4xf32>, tensor<2x2x5x4xf32>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}

// -----

// A negative scale, which no softmax unit has.

// CHECK-LABEL: func.func @negative_scale(
// CHECK-NOT:     attn.
// CHECK:         nn.softmax
// CHECK-NOT:     attn.
func.func @negative_scale(%q: tensor<2x3x8xf32>, %k: tensor<2x3x8xf32>, %v: tensor<2x3x8xf32>) -> tensor<2x3x8xf32> {
  %qs = nn.reshape %q : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %qh = nn.transpose %qs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %ks = nn.reshape %k : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %kh = nn.transpose %ks {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %vs = nn.reshape %v : (tensor<2x3x8xf32>) -> tensor<2x3x2x4xf32>
  %vh = nn.transpose %vs {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x3x2x4xf32>) -> tensor<2x2x3x4xf32>
  %kt = nn.transpose %kh {permutation = array<i64: 0, 1, 3, 2>} : (tensor<2x2x3x4xf32>) -> tensor<2x2x4x3xf32>
  %s = nn.matmul %qh, %kt : (tensor<2x2x3x4xf32>, tensor<2x2x4x3xf32>) -> tensor<2x2x3x3xf32>
  %c = nn.full {value = -0.5 : f64} : tensor<f32>
  %s1 = nn.mul %s, %c : (tensor<2x2x3x3xf32>, tensor<f32>) -> tensor<2x2x3x3xf32>
  %p = nn.softmax %s1 {dim = -1 : i64} : (tensor<2x2x3x3xf32>) -> tensor<2x2x3x3xf32>
  %o = nn.matmul %p, %vh : (tensor<2x2x3x3xf32>, tensor<2x2x3x4xf32>) -> tensor<2x2x3x4xf32>
  %os = nn.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x2x3x4xf32>) -> tensor<2x3x2x4xf32>
  %om = nn.reshape %os : (tensor<2x3x2x4xf32>) -> tensor<2x3x8xf32>
  func.return %om : tensor<2x3x8xf32>
}
