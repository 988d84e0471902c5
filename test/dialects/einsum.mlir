// RUN: %roundtrip

// Every op of `einsum` prints what it parses, in the custom and in the generic form.

// CHECK-LABEL: func.func @weights
func.func @weights() {
  // CHECK: %0 = einsum.weight ["encoder.layer.0.output.dense.weight"] : tensor<384x1536xf32>
  %0 = einsum.weight ["encoder.layer.0.output.dense.weight"] : tensor<384x1536xf32>
  // CHECK: %1 = einsum.weight ["q.weight", "k.weight"] {permutation = array<i64: 1, 0>, checksum = "crc32:0123abcd"} : tensor<384x768x!fixed.q<16, 14>>
  %1 = einsum.weight ["q.weight", "k.weight"] {permutation = array<i64: 1, 0>, checksum = "crc32:0123abcd"} : tensor<384x768x!fixed.q<16, 14>>
  func.return
}

// CHECK-LABEL: func.func @contract
func.func @contract(%x: tensor<?x4xf32>, %w: tensor<5x4xf32>, %s: tensor<5xf32>, %a: tensor<2x4xf32>, %b: tensor<5x2xf32>) {
  // CHECK: %0 = einsum.contract "ti,oi->to" %x, %w : (tensor<?x4xf32>, tensor<5x4xf32>) -> tensor<?x5xf32>
  %0 = einsum.contract "ti,oi->to" %x, %w : (tensor<?x4xf32>, tensor<5x4xf32>) -> tensor<?x5xf32>
  // CHECK: %1 = einsum.contract "ti,oi,o->t" %x, %w, %s : (tensor<?x4xf32>, tensor<5x4xf32>, tensor<5xf32>) -> tensor<?xf32>
  %1 = einsum.contract "ti,oi,o->t" %x, %w, %s : (tensor<?x4xf32>, tensor<5x4xf32>, tensor<5xf32>) -> tensor<?xf32>
  // CHECK: %2 = einsum.contract "ti,ri,or->to" %x, %a, %b {path = #einsum.path<(0, 1), (3, 2)>, decomposition = #einsum.decomposition<"low-rank", "4|5", [2], 0.062500>} : (tensor<?x4xf32>, tensor<2x4xf32>, tensor<5x2xf32>) -> tensor<?x5xf32>
  %2 = einsum.contract "ti,ri,or->to" %x, %a, %b {path = #einsum.path<(0, 1), (3, 2)>, decomposition = #einsum.decomposition<"low-rank", "4|5", [2], 0.0625>} : (tensor<?x4xf32>, tensor<2x4xf32>, tensor<5x2xf32>) -> tensor<?x5xf32>
  func.return
}

// Steps of one group; between them a token's row may be cut otherwise.

// CHECK-LABEL: func.func @fuse
func.func @fuse(%x: tensor<?x8xf32>, %a: tensor<6x8xf32>, %b: tensor<5x2x3xf32>, %c: tensor<4x5xf32>) {
  // CHECK: %0 = einsum.contract "ti,ri->tr" %x, %a {fuse = #einsum.fuse<tokens = 64>} : (tensor<?x8xf32>, tensor<6x8xf32>) -> tensor<?x6xf32>
  %0 = einsum.contract "ti,ri->tr" %x, %a {fuse = #einsum.fuse<tokens = 64>} : (tensor<?x8xf32>, tensor<6x8xf32>) -> tensor<?x6xf32>
  %1 = nn.reshape %0 : (tensor<?x6xf32>) -> tensor<?x2x3xf32>
  // CHECK: %2 = einsum.contract "tab,cab->tc" %1, %b {fuse = #einsum.fuse<tokens = 64>} : (tensor<?x2x3xf32>, tensor<5x2x3xf32>) -> tensor<?x5xf32>
  %2 = einsum.contract "tab,cab->tc" %1, %b {fuse = #einsum.fuse<tokens = 64>} : (tensor<?x2x3xf32>, tensor<5x2x3xf32>) -> tensor<?x5xf32>
  %3 = einsum.contract "tc,dc->td" %2, %c : (tensor<?x5xf32>, tensor<4x5xf32>) -> tensor<?x4xf32>
  func.return
}

// CHECK-LABEL: func.func @fuse_codes
func.func @fuse_codes(%x: tensor<?x8x!fixed.q<16, 9>>, %a: tensor<6x8x!fixed.q<16, 14>>, %b: tensor<5x6x!fixed.q<16, 14>>) {
  // CHECK: {fuse = #einsum.fuse<tokens = 1>}
  %0 = einsum.contract "ti,ri->tr" %x, %a {fuse = #einsum.fuse<tokens = 1>} : (tensor<?x8x!fixed.q<16, 9>>, tensor<6x8x!fixed.q<16, 14>>) -> tensor<?x6x!fixed.q<48, 23>>
  %1 = fixed.requantize %0 : tensor<?x6x!fixed.q<48, 23>> to tensor<?x6x!fixed.q<16, 9>>
  %2 = einsum.contract "tr,or->to" %1, %b : (tensor<?x6x!fixed.q<16, 9>>, tensor<5x6x!fixed.q<16, 14>>) -> tensor<?x5x!fixed.q<48, 23>>
  func.return
}

// CHECK-LABEL: func.func @format
func.func @format(%x: tensor<?x4xf32>, %w: tensor<5x4xf32>, %ids: tensor<?xi64>) {
  // CHECK: %0 = einsum.contract "ti,oi->to" %x, %w {format = #einsum.format<"low-rank", "4|5", [2], (0, 1), (3, 2)>} : (tensor<?x4xf32>, tensor<5x4xf32>) -> tensor<?x5xf32>
  %0 = einsum.contract "ti,oi->to" %x, %w {format = #einsum.format<"low-rank", "4|5", [2], (0, 1), (3, 2)>} : (tensor<?x4xf32>, tensor<5x4xf32>) -> tensor<?x5xf32>
  // CHECK: %1 = nn.embedding %w, %ids {format = #einsum.format<"ttm", "1x5|2x2", [2]>} : (tensor<5x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
  %1 = nn.embedding %w, %ids {format = #einsum.format<"ttm", "1x5|2x2", [2]>} : (tensor<5x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
  func.return
}
