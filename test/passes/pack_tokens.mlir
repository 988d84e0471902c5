// RUN: heatc-opt %s -p pack-tokens --split-input-file 2>%t.err | filecheck %s
// RUN: filecheck %s --check-prefix=REMARK --input-file %t.err

// One layer from ids to tokens: embeddings, a position table that all sequences share, residual
// sum, layer norm, linear, attention. Padded values come back where they are returned.

// CHECK-LABEL: func.func @layer(%ids: tensor<2x3xi64>, %m: tensor<2x3xi64>) -> (tensor<2x3x4xf32> {heatc.padding = "zero"}) {
// CHECK-NEXT:    %0 = attn.packing %m {real = #attn.values<min : -1, 1 : max>, masked = #attn.values<0 : 0>} : (tensor<2x3xi64>) -> !attn.packing<2, 3>
// CHECK-NEXT:    %t = einsum.weight ["word"] : tensor<9x4xf32>
// CHECK-NEXT:    %u = einsum.weight ["position"] : tensor<3x4xf32>
// CHECK-NEXT:    %w = einsum.weight ["w"] : tensor<4x4xf32>
// CHECK-NEXT:    %b = einsum.weight ["b"] : tensor<4xf32>
// CHECK-NEXT:    %1 = attn.pack %ids, %0 : (tensor<2x3xi64>, !attn.packing<2, 3>) -> tensor<?xi64>
// CHECK-NEXT:    %e = nn.embedding %t, %1 : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
// CHECK-NEXT:    %i = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<3xi64>
// CHECK-NEXT:    %j = nn.reshape %i : (tensor<3xi64>) -> tensor<1x3xi64>
// CHECK-NEXT:    %2 = nn.expand %j : (tensor<1x3xi64>) -> tensor<2x3xi64>
// CHECK-NEXT:    %3 = attn.pack %2, %0 : (tensor<2x3xi64>, !attn.packing<2, 3>) -> tensor<?xi64>
// CHECK-NEXT:    %f = nn.embedding %u, %3 : (tensor<3x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
// CHECK-NEXT:    %x = nn.add %e, %f : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %n = nn.layer_norm %x, %b, %b {eps = 1.000000e-12 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %q0 = einsum.contract "ti,oi->to" %n, %w : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %q = nn.add %q0, %b : (tensor<?x4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %q, %n, %n packed %0 : !attn.packing<2, 3> {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %r = nn.add %a, %n : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %r_1 = attn.unpack %r, %0 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    func.return %r_1 : tensor<2x3x4xf32>
func.func @layer(%ids: tensor<2x3xi64>, %m: tensor<2x3xi64>) -> tensor<2x3x4xf32> {
  %t = einsum.weight ["word"] : tensor<9x4xf32>
  %u = einsum.weight ["position"] : tensor<3x4xf32>
  %w = einsum.weight ["w"] : tensor<4x4xf32>
  %b = einsum.weight ["b"] : tensor<4xf32>
  %e = nn.embedding %t, %ids : (tensor<9x4xf32>, tensor<2x3xi64>) -> tensor<2x3x4xf32>
  %i = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<3xi64>
  %j = nn.reshape %i : (tensor<3xi64>) -> tensor<1x3xi64>
  %f = nn.embedding %u, %j : (tensor<3x4xf32>, tensor<1x3xi64>) -> tensor<1x3x4xf32>
  %x = nn.add %e, %f : (tensor<2x3x4xf32>, tensor<1x3x4xf32>) -> tensor<2x3x4xf32>
  %n = nn.layer_norm %x, %b, %b {eps = 1.0e-12 : f64} : (tensor<2x3x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x3x4xf32>
  %q0 = einsum.contract "abi,oi->abo" %n, %w : (tensor<2x3x4xf32>, tensor<4x4xf32>) -> tensor<2x3x4xf32>
  %q = nn.add %q0, %b : (tensor<2x3x4xf32>, tensor<4xf32>) -> tensor<2x3x4xf32>
  %keys1 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %keep1 = nn.cast %keys1 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %q, %n, %n masks %keep1 : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %r = nn.add %a, %n : (tensor<2x3x4xf32>, tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
  func.return %r : tensor<2x3x4xf32>
}

// -----

// The first position of every sequence is read from the packed rows.

// CHECK-LABEL: func.func @first_token(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> (tensor<2x4xf32>) {
// CHECK-NEXT:    %0 = attn.packing %m {real = #attn.values<min : -1, 1 : max>, masked = #attn.values<0 : 0>} : (tensor<2x3xi64>) -> !attn.packing<2, 3, reads [1]>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3, reads [1]>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 3, reads [1]> {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %y = attn.token %a, %0 {position = 1 : i64} : (tensor<?x4xf32>, !attn.packing<2, 3, reads [1]>) -> tensor<2x4xf32>
// CHECK-NEXT:    func.return %y : tensor<2x4xf32>
func.func @first_token(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> tensor<2x4xf32> {
  %keys2 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %keep2 = nn.cast %keys2 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %x, %x, %x masks %keep2 : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %s = nn.slice %a {starts = array<i64: 0, 1, 0>, steps = array<i64: 1, 1, 1>} : (tensor<2x3x4xf32>) -> tensor<2x1x4xf32>
  %y = nn.reshape %s : (tensor<2x1x4xf32>) -> tensor<2x4xf32>
  func.return %y : tensor<2x4xf32>
}

// -----

// Channels are cut from packed rows; positions are not.

// CHECK-LABEL: func.func @slices(%x: tensor<1x3x4xf32>) -> (tensor<1x3x2xf32>, tensor<1x2x4xf32>) {
// CHECK-NEXT:    %0 = attn.packing : () -> !attn.packing<1, 3>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<1x3x4xf32>, !attn.packing<1, 3>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<1, 3> {heads = 1 : i64, scale = 5.000000e-01 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %a_1 = attn.unpack %a, %0 : (tensor<?x4xf32>, !attn.packing<1, 3>) -> tensor<1x3x4xf32>
// CHECK-NEXT:    %c = nn.slice %a {starts = array<i64: 0, 1>, steps = array<i64: 1, 2>} : (tensor<?x4xf32>) -> tensor<?x2xf32>
// CHECK-NEXT:    %c_1 = attn.unpack %c, %0 : (tensor<?x2xf32>, !attn.packing<1, 3>) -> tensor<1x3x2xf32>
// CHECK-NEXT:    %p = nn.slice %a_1 {starts = array<i64: 0, 1, 0>, steps = array<i64: 1, 1, 1>} : (tensor<1x3x4xf32>) -> tensor<1x2x4xf32>
// CHECK-NEXT:    func.return %c_1, %p : tensor<1x3x2xf32>, tensor<1x2x4xf32>
func.func @slices(%x: tensor<1x3x4xf32>) -> (tensor<1x3x2xf32>, tensor<1x2x4xf32>) {
  %a = attn.sdpa %x, %x, %x {heads = 1 : i64, scale = 0.5 : f64} : tensor<1x3x4xf32>, tensor<1x3x4xf32>, tensor<1x3x4xf32> -> tensor<1x3x4xf32>
  %c = nn.slice %a {starts = array<i64: 0, 0, 1>, steps = array<i64: 1, 1, 2>} : (tensor<1x3x4xf32>) -> tensor<1x3x2xf32>
  %p = nn.slice %a {starts = array<i64: 0, 1, 0>, steps = array<i64: 1, 1, 1>} : (tensor<1x3x4xf32>) -> tensor<1x2x4xf32>
  func.return %c, %p : tensor<1x3x2xf32>, tensor<1x2x4xf32>
}

// -----

// Without a mask all tokens are real; a bias on the scores stays.

// CHECK-LABEL: func.func @no_mask(%x: tensor<2x3x4xf32>, %b: tensor<2x1x3x3xf32>) -> tensor<2x3x4xf32> {
// CHECK-NEXT:    %0 = attn.packing : () -> !attn.packing<2, 3>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 3> masks %b : tensor<2x1x3x3xf32> {heads = 2 : i64, scale = 5.000000e-01 : f64, keyless = "zero"} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %a_1 = attn.unpack %a, %0 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    func.return %a_1 : tensor<2x3x4xf32>
func.func @no_mask(%x: tensor<2x3x4xf32>, %b: tensor<2x1x3x3xf32>) -> tensor<2x3x4xf32> {
  %a = attn.sdpa %x, %x, %x masks %b : tensor<2x1x3x3xf32> {heads = 2 : i64, scale = 0.5 : f64, keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  func.return %a : tensor<2x3x4xf32>
}

// -----

// A value that is read packed and padded, and one that mixes tokens in between.

// CHECK-LABEL: func.func @mixed(%x: tensor<2x3x4xf32>, %z: tensor<3x3xf32>) -> tensor<2x3x4xf32> {
// CHECK-NEXT:    %0 = attn.packing : () -> !attn.packing<2, 3>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 3> {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %a_1 = attn.unpack %a, %0 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %t = einsum.contract "bsd,ts->btd" %a_1, %z : (tensor<2x3x4xf32>, tensor<3x3xf32>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %g = nn.gelu %a {approximate = "none"} : (tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %2 = attn.pack %t, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3>) -> tensor<?x4xf32>
// CHECK-NEXT:    %r = nn.add %2, %g : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %r_1 = attn.unpack %r, %0 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    func.return %r_1 : tensor<2x3x4xf32>
func.func @mixed(%x: tensor<2x3x4xf32>, %z: tensor<3x3xf32>) -> tensor<2x3x4xf32> {
  %a = attn.sdpa %x, %x, %x {heads = 2 : i64, scale = 0.5 : f64} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %t = einsum.contract "bsd,ts->btd" %a, %z : (tensor<2x3x4xf32>, tensor<3x3xf32>) -> tensor<2x3x4xf32>
  %g = nn.gelu %a {approximate = "none"} : (tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
  %r = nn.add %t, %g : (tensor<2x3x4xf32>, tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
  func.return %r : tensor<2x3x4xf32>
}

// -----

// Weights of a position are not the same for all tokens.

// CHECK-LABEL: func.func @per_position(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>, %z: tensor<3x4xf32>) -> (tensor<2x3x4xf32> {heatc.padding = "zero"}) {
// CHECK-NEXT:    %0 = attn.packing %m {real = #attn.values<min : -1, 1 : max>, masked = #attn.values<0 : 0>} : (tensor<2x3xi64>) -> !attn.packing<2, 3>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 3> {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %a_1 = attn.unpack %a, %0 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %t = einsum.contract "bsd,sd->bsd" %a_1, %z : (tensor<2x3x4xf32>, tensor<3x4xf32>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %2 = nn.expand %z : (tensor<3x4xf32>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %3 = attn.pack %2, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3>) -> tensor<?x4xf32>
// CHECK-NEXT:    %r = nn.mul %a, %3 : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %4 = attn.pack %t, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3>) -> tensor<?x4xf32>
// CHECK-NEXT:    %u = nn.sub %r, %4 : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %u_1 = attn.unpack %u, %0 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    func.return %u_1 : tensor<2x3x4xf32>
func.func @per_position(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>, %z: tensor<3x4xf32>) -> tensor<2x3x4xf32> {
  %keys3 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %keep3 = nn.cast %keys3 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %x, %x, %x masks %keep3 : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %t = einsum.contract "bsd,sd->bsd" %a, %z : (tensor<2x3x4xf32>, tensor<3x4xf32>) -> tensor<2x3x4xf32>
  %r = nn.mul %a, %z : (tensor<2x3x4xf32>, tensor<3x4xf32>) -> tensor<2x3x4xf32>
  %u = nn.sub %r, %t : (tensor<2x3x4xf32>, tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
  func.return %u : tensor<2x3x4xf32>
}

// -----

// Attentions that disagree about the mask are left, with a remark.

// REMARK: pack_tokens.mlir:{{[0-9]+}}: remark: attentions disagree about the mask: every position is computed
// CHECK-LABEL: func.func @disagree(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>, %n: tensor<2x3xi64>) -> tensor<2x3x4xf32> {
// CHECK-NEXT:    %0 = attn.packing : () -> !attn.packing<2, 3>
// CHECK-NEXT:    %keys4 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
// CHECK-NEXT:    %keep4 = nn.cast %keys4 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 3> masks %keep4 : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 5.000000e-01 : f64, fills = [0xfff0000000000000 : f64], keyless = "zero"} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %keys5 = nn.reshape %n : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
// CHECK-NEXT:    %keep5 = nn.cast %keys5 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
// CHECK-NEXT:    %b = attn.sdpa %a, %a, %a packed %0 : !attn.packing<2, 3> masks %keep5 : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 5.000000e-01 : f64, fills = [0xfff0000000000000 : f64], keyless = "zero"} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %b_1 = attn.unpack %b, %0 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    func.return %b_1 : tensor<2x3x4xf32>
func.func @disagree(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>, %n: tensor<2x3xi64>) -> tensor<2x3x4xf32> {
  %keys4 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %keep4 = nn.cast %keys4 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %x, %x, %x masks %keep4 : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %keys5 = nn.reshape %n : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %keep5 = nn.cast %keys5 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %b = attn.sdpa %a, %a, %a masks %keep5 : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  func.return %b : tensor<2x3x4xf32>
}

// -----

// REMARK-NEXT: pack_tokens.mlir:{{[0-9]+}}: remark: the mask is not provably key padding: every position is computed
// CHECK-LABEL: func.func @padding_and_bias(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>, %b: tensor<3x3xf32>) -> tensor<2x3x4xf32> {
// CHECK-NEXT:    %0 = attn.packing : () -> !attn.packing<2, 3>
// CHECK-NEXT:    %keys6 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
// CHECK-NEXT:    %keep6 = nn.cast %keys6 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 3> masks %keep6, %b : tensor<2x1x1x3xi1>, tensor<3x3xf32> {heads = 2 : i64, scale = 5.000000e-01 : f64, fills = [0xfff0000000000000 : f64, 0.000000e+00 : f64], keyless = "zero"} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %a_1 = attn.unpack %a, %0 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    func.return %a_1 : tensor<2x3x4xf32>
func.func @padding_and_bias(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>, %b: tensor<3x3xf32>) -> tensor<2x3x4xf32> {
  %keys6 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %keep6 = nn.cast %keys6 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %x, %x, %x masks %keep6, %b : tensor<2x1x1x3xi1>, tensor<3x3xf32> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64, 0.0 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  func.return %a : tensor<2x3x4xf32>
}

// -----

// A mask that is true where a token is padding: real is where its value is 0.

// CHECK-LABEL: func.func @inverted(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi1>) -> (tensor<2x3x4xf32> {heatc.padding = "zero"}) {
// CHECK-NEXT:    %0 = attn.packing %m {real = #attn.values<0 : 0>, masked = #attn.values<1 : 1>} : (tensor<2x3xi1>) -> !attn.packing<2, 3>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 3> {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %a_1 = attn.unpack %a, %0 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    func.return %a_1 : tensor<2x3x4xf32>
func.func @inverted(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi1>) -> tensor<2x3x4xf32> {
  %n = nn.not %m : (tensor<2x3xi1>) -> tensor<2x3xi1>
  %k = nn.reshape %n : (tensor<2x3xi1>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %x, %x, %x masks %k : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [-1.0e9 : f64], keyless = "nan"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  func.return %a : tensor<2x3x4xf32>
}

// -----

// A fill of -1e4 is taken to hide a key, and a remark says what that assumes.

// REMARK-NEXT: pack_tokens.mlir:{{[0-9]+}}: remark: a key with a score of -10000 is taken to be hidden: scores of thousands would need a lower fill
// CHECK-LABEL: func.func @doubted(
// CHECK-NEXT:    %0 = attn.packing %m {real = #attn.values<1 : 1>, masked = #attn.values<0 : 0>} : (tensor<2x3xi1>) -> !attn.packing<2, 3>
func.func @doubted(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi1>) -> tensor<2x3x4xf32> {
  %k = nn.reshape %m : (tensor<2x3xi1>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %x, %x, %x masks %k : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [-1.0e4 : f64], keyless = "nan"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  func.return %a : tensor<2x3x4xf32>
}

// -----

// The mean over the tokens reads all of them; what is returned as well is 0 where it is masked.

// CHECK-LABEL: func.func @mean(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> (tensor<2x3x4xf32> {heatc.padding = "zero"}, tensor<2x4xf32>) {
// CHECK-NEXT:    %0 = attn.packing %m {real = #attn.values<min : -1, 1 : max>, masked = #attn.values<0 : 0>} : (tensor<2x3xi64>) -> !attn.packing<2, 3, reads all>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3, reads all>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 3, reads all> {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %a_1 = attn.unpack %a, %0 {read} : (tensor<?x4xf32>, !attn.packing<2, 3, reads all>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %a_2 = attn.unpack %a, %0 : (tensor<?x4xf32>, !attn.packing<2, 3, reads all>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %s = einsum.contract "btd->bd" %a_1 : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:    func.return %a_2, %s : tensor<2x3x4xf32>, tensor<2x4xf32>
func.func @mean(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> (tensor<2x3x4xf32>, tensor<2x4xf32>) {
  %k0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %k = nn.cast %k0 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %x, %x, %x masks %k : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %s = einsum.contract "btd->bd" %a : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
  func.return %a, %s : tensor<2x3x4xf32>, tensor<2x4xf32>
}

// -----

// An op that is not row by row computes an output of tokens: it is made 0 where it is masked. It is of
// one token each, so that masked ones are not read.

// CHECK-LABEL: func.func @cleared(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> (tensor<2x3xf32> {heatc.padding = "zero"}) {
// CHECK-NEXT:    %0 = attn.packing %m {real = #attn.values<min : -1, 1 : max>, masked = #attn.values<0 : 0>} : (tensor<2x3xi64>) -> !attn.packing<2, 3>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x3x4xf32>, !attn.packing<2, 3>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 3> {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %a_1 = attn.unpack %a, %0 : (tensor<?x4xf32>, !attn.packing<2, 3>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    %s = einsum.contract "btd->bt" %a_1 : (tensor<2x3x4xf32>) -> tensor<2x3xf32>
// CHECK-NEXT:    %2 = attn.real %0 : (!attn.packing<2, 3>) -> tensor<2x3xi1>
// CHECK-NEXT:    %3 = nn.reshape %2 : (tensor<2x3xi1>) -> tensor<2x3xi1>
// CHECK-NEXT:    %4 = nn.full {value = 0.000000e+00 : f64} : tensor<f32>
// CHECK-NEXT:    %5 = nn.where %3, %s, %4 : (tensor<2x3xi1>, tensor<2x3xf32>, tensor<f32>) -> tensor<2x3xf32>
// CHECK-NEXT:    func.return %5 : tensor<2x3xf32>
func.func @cleared(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> tensor<2x3xf32> {
  %k0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %k = nn.cast %k0 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %x, %x, %x masks %k : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %s = einsum.contract "btd->bt" %a : (tensor<2x3x4xf32>) -> tensor<2x3xf32>
  func.return %s : tensor<2x3xf32>
}

// -----

// Batch and tokens are told apart by where they come from, not by their extents.

// CHECK-LABEL: func.func @turned(%x: tensor<2x2x4xf32>, %m: tensor<2x2xi64>) -> (tensor<2x2x4xf32> {heatc.padding = "zero"}) {
// CHECK-NEXT:    %0 = attn.packing %m {real = #attn.values<min : -1, 1 : max>, masked = #attn.values<0 : 0>} : (tensor<2x2xi64>) -> !attn.packing<2, 2>
// CHECK-NEXT:    %1 = attn.pack %x, %0 : (tensor<2x2x4xf32>, !attn.packing<2, 2>) -> tensor<?x4xf32>
// CHECK-NEXT:    %a = attn.sdpa %1, %1, %1 packed %0 : !attn.packing<2, 2> {heads = 2 : i64, scale = 5.000000e-01 : f64} : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
// CHECK-NEXT:    %g = nn.gelu %a {approximate = "none"} : (tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:    %g_1 = attn.unpack %g, %0 : (tensor<?x4xf32>, !attn.packing<2, 2>) -> tensor<2x2x4xf32>
// CHECK-NEXT:    %2 = nn.transpose %g_1 {permutation = array<i64: 1, 0, 2>} : (tensor<2x2x4xf32>) -> tensor<2x2x4xf32>
// CHECK-NEXT:    func.return %2 : tensor<2x2x4xf32>
func.func @turned(%x: tensor<2x2x4xf32>, %m: tensor<2x2xi64>) -> tensor<2x2x4xf32> {
  %k0 = nn.reshape %m : (tensor<2x2xi64>) -> tensor<2x1x1x2xi64>
  %k = nn.cast %k0 : (tensor<2x1x1x2xi64>) -> tensor<2x1x1x2xi1>
  %a = attn.sdpa %x, %x, %x masks %k : tensor<2x1x1x2xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x2x4xf32>, tensor<2x2x4xf32>, tensor<2x2x4xf32> -> tensor<2x2x4xf32>
  %t = nn.transpose %a {permutation = array<i64: 1, 0, 2>} : (tensor<2x2x4xf32>) -> tensor<2x2x4xf32>
  %g = nn.gelu %t {approximate = "none"} : (tensor<2x2x4xf32>) -> tensor<2x2x4xf32>
  func.return %g : tensor<2x2x4xf32>
}

// -----

// Queries of another stream of as many tokens are no rows of this one.

// REMARK-NEXT: pack_tokens.mlir:{{[0-9]+}}: remark: attentions are of other streams of tokens: padding is not packed away
// CHECK-LABEL: func.func @labels(%x: tensor<2x3x4xf32>, %l: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x4xf32> {
// CHECK-NEXT:    %k0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
// CHECK-NEXT:    %k = nn.cast %k0 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
// CHECK-NEXT:    %a = attn.sdpa %l, %x, %x masks %k : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 5.000000e-01 : f64, fills = [0xfff0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
// CHECK-NEXT:    func.return %a : tensor<2x3x4xf32>
func.func @labels(%x: tensor<2x3x4xf32>, %l: tensor<2x3x4xf32>, %m: tensor<2x3xi64>) -> tensor<2x3x4xf32> {
  %k0 = nn.reshape %m : (tensor<2x3xi64>) -> tensor<2x1x1x3xi64>
  %k = nn.cast %k0 : (tensor<2x1x1x3xi64>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %l, %x, %x masks %k : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  func.return %a : tensor<2x3x4xf32>
}

// -----

// Attention without a mask: all tokens are real, and there is no score to remark on.

// CHECK-LABEL: func.func @unmasked(%x: tensor<2x3x4xf32>) -> tensor<2x3x4xf32> {
// CHECK-NEXT:    %0 = attn.packing : () -> !attn.packing<2, 3>
func.func @unmasked(%x: tensor<2x3x4xf32>) -> tensor<2x3x4xf32> {
  %a = attn.sdpa %x, %x, %x {heads = 2 : i64, scale = 0.5 : f64} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  func.return %a : tensor<2x3x4xf32>
}

// -----

// The window hides by -inf what padding does not: at the left end a masked position may see no key and
// be NaN. The second attention would multiply that NaN with 0, so that every position stays a key.

// CHECK-LABEL: func.func @carried(
// CHECK-NEXT:    [[P:%.+]] = attn.packing : () -> !attn.packing<2, 3>
// CHECK:         attn.sdpa {{.*}} packed [[P]] : !attn.packing<2, 3> masks %both
// CHECK:         attn.sdpa {{.*}} packed [[P]] : !attn.packing<2, 3> masks %both
// REMARK: remark: masked positions matter, and may see no key that is real: every position is computed
func.func @carried(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi1>) -> tensor<2x3x4xf32> {
  %q = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<3xi64>
  %c = nn.reshape %q : (tensor<3xi64>) -> tensor<3x1xi64>
  %d = nn.sub %q, %c : (tensor<3xi64>, tensor<3x1xi64>) -> tensor<3x3xi64>
  %one = nn.full {value = 1.0 : f64} : tensor<i64>
  %ahead = nn.compare %one, %d {predicate = "gt"} : (tensor<i64>, tensor<3x3xi64>) -> tensor<3x3xi1>
  %k = nn.reshape %m : (tensor<2x3xi1>) -> tensor<2x1x1x3xi1>
  %both = nn.and %ahead, %k : (tensor<3x3xi1>, tensor<2x1x1x3xi1>) -> tensor<2x1x3x3xi1>
  %a = attn.sdpa %x, %x, %x masks %both : tensor<2x1x3x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "nan"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %b = attn.sdpa %a, %a, %a masks %both : tensor<2x1x3x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "nan"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  func.return %b : tensor<2x3x4xf32>
}

// -----

// A mask of floats that is added weighs keys by numbers from 1/2 to 1: it stays, and padding has no rows.

// CHECK-LABEL: func.func @weighs(
// CHECK-NEXT:    [[P:%.+]] = attn.packing %m {real = #attn.values<0.5 : 1>, masked = #attn.values<0 : 0>} : (tensor<2x3xf32>) -> !attn.packing<2, 3>
// CHECK:         [[B:%.+]] = nn.mul {{.*}} -> tensor<2x1x1x3xf32>
// CHECK:         attn.sdpa {{.*}} packed [[P]] : !attn.packing<2, 3> masks [[B]] : tensor<2x1x1x3xf32>
// REMARK: remark: a key with a score of -10000 is taken to be hidden
func.func @weighs(%x: tensor<2x3x4xf32>, %m: tensor<2x3xf32>) -> tensor<2x3x4xf32> {
  %one = nn.full {value = 1.0 : f64} : tensor<f32>
  %low = nn.full {value = -1.0e4 : f64} : tensor<f32>
  %k = nn.reshape %m : (tensor<2x3xf32>) -> tensor<2x1x1x3xf32>
  %d = nn.sub %one, %k : (tensor<f32>, tensor<2x1x1x3xf32>) -> tensor<2x1x1x3xf32>
  %b = nn.mul %d, %low : (tensor<2x1x1x3xf32>, tensor<f32>) -> tensor<2x1x1x3xf32>
  %a = attn.sdpa %x, %x, %x masks %b : tensor<2x1x1x3xf32> {heads = 2 : i64, scale = 0.5 : f64, keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  func.return %a : tensor<2x3x4xf32>
}

// -----

// A function without attention has no padding to speak of.

// CHECK-LABEL: func.func @no_attention(%x: tensor<2x3x4xf32>) -> tensor<2x3x4xf32> {
// CHECK-NEXT:    %a = nn.gelu %x {approximate = "none"} : (tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
// CHECK-NEXT:    func.return %a : tensor<2x3x4xf32>
func.func @no_attention(%x: tensor<2x3x4xf32>) -> tensor<2x3x4xf32> {
  %a = nn.gelu %x {approximate = "none"} : (tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
  func.return %a : tensor<2x3x4xf32>
}

// REMARK-NOT: remark

// -----

// Key padding and a sliding window in one: the window stays, as truth values that hide what they are
// false for; padding has no rows. The second attention has another window under the same padding.

// CHECK-LABEL: func.func @windows(
// CHECK-NEXT:    [[P:%.+]] = attn.packing %m {{.*}} -> !attn.packing<2, 3>
// CHECK:         attn.sdpa {{.*}} packed [[P]] : !attn.packing<2, 3> masks %near : tensor<3x3xi1> {{.*}}fills = [-1.000000e+09 : f64]
// CHECK:         attn.sdpa {{.*}} packed [[P]] : !attn.packing<2, 3> masks %ahead : tensor<3x3xi1> {{.*}}fills = [0xfff0000000000000 : f64]
func.func @windows(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi1>) -> tensor<2x3x4xf32> {
  %q = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<3xi64>
  %c = nn.reshape %q : (tensor<3xi64>) -> tensor<3x1xi64>
  %d = nn.sub %q, %c : (tensor<3xi64>, tensor<3x1xi64>) -> tensor<3x3xi64>
  %one = nn.full {value = 1.0 : f64} : tensor<i64>
  %near = nn.compare %d, %one {predicate = "le"} : (tensor<3x3xi64>, tensor<i64>) -> tensor<3x3xi1>
  %ahead = nn.compare %one, %d {predicate = "gt"} : (tensor<i64>, tensor<3x3xi64>) -> tensor<3x3xi1>
  %k = nn.reshape %m : (tensor<2x3xi1>) -> tensor<2x1x1x3xi1>
  %both = nn.and %near, %k : (tensor<3x3xi1>, tensor<2x1x1x3xi1>) -> tensor<2x1x3x3xi1>
  %zero = nn.full {value = 0.0 : f64} : tensor<f32>
  %low = nn.full {value = -1.0e9 : f64} : tensor<f32>
  %added = nn.where %both, %zero, %low : (tensor<2x1x3x3xi1>, tensor<f32>, tensor<f32>) -> tensor<2x1x3x3xf32>
  %a = attn.sdpa %x, %x, %x masks %added : tensor<2x1x3x3xf32> {heads = 2 : i64, scale = 0.5 : f64, keyless = "nan"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %other = nn.and %ahead, %k : (tensor<3x3xi1>, tensor<2x1x1x3xi1>) -> tensor<2x1x3x3xi1>
  %b = attn.sdpa %a, %a, %a masks %other : tensor<2x1x3x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  func.return %b : tensor<2x3x4xf32>
}

// -----

// Numbers that are finite leave a masked position the mean of what it sees, and no NaN: padding goes.

// CHECK-LABEL: func.func @finite(
// CHECK-NEXT:    [[P:%.+]] = attn.packing %m {{.*}} -> !attn.packing<2, 3>
// CHECK:         attn.sdpa {{.*}} packed [[P]] : !attn.packing<2, 3> masks %near
// CHECK:         attn.sdpa {{.*}} packed [[P]] : !attn.packing<2, 3> masks %near
func.func @finite(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi1>) -> tensor<2x3x4xf32> {
  %q = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<3xi64>
  %c = nn.reshape %q : (tensor<3xi64>) -> tensor<3x1xi64>
  %d = nn.sub %q, %c : (tensor<3xi64>, tensor<3x1xi64>) -> tensor<3x3xi64>
  %f = nn.cast %d : (tensor<3x3xi64>) -> tensor<3x3xf32>
  %zero = nn.full {value = 0.0 : f64} : tensor<f32>
  %low = nn.full {value = -1.0e9 : f64} : tensor<f32>
  %ahead = nn.maximum %f, %zero : (tensor<3x3xf32>, tensor<f32>) -> tensor<3x3xf32>
  %near = nn.mul %ahead, %low : (tensor<3x3xf32>, tensor<f32>) -> tensor<3x3xf32>
  %k = nn.reshape %m : (tensor<2x3xi1>) -> tensor<2x1x1x3xi1>
  %added = nn.where %k, %zero, %low : (tensor<2x1x1x3xi1>, tensor<f32>, tensor<f32>) -> tensor<2x1x1x3xf32>
  %both = nn.add %near, %added : (tensor<3x3xf32>, tensor<2x1x1x3xf32>) -> tensor<2x1x3x3xf32>
  %a = attn.sdpa %x, %x, %x masks %both : tensor<2x1x3x3xf32> {heads = 2 : i64, scale = 0.5 : f64, keyless = "nan"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %b = attn.sdpa %a, %a, %a masks %both : tensor<2x1x3x3xf32> {heads = 2 : i64, scale = 0.5 : f64, keyless = "nan"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  func.return %b : tensor<2x3x4xf32>
}

// -----

// A sum that weighs masked positions with 0 is NaN where a sequence has no real token: the first
// position has a row, so that such a sequence is refused.

// CHECK-LABEL: func.func @weighed(
// CHECK-NEXT:    attn.packing %m {{.*}} -> !attn.packing<2, 3, reads [0]>
func.func @weighed(%x: tensor<2x3x4xf32>, %m: tensor<2x3xi1>) -> tensor<2x4xf32> {
  %k = nn.reshape %m : (tensor<2x3xi1>) -> tensor<2x1x1x3xi1>
  %a = attn.sdpa %x, %x, %x masks %k : tensor<2x1x1x3xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "nan"} : tensor<2x3x4xf32>, tensor<2x3x4xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %w = nn.cast %m : (tensor<2x3xi1>) -> tensor<2x3xf32>
  %s = einsum.contract "btd,bt->bd" %a, %w : (tensor<2x3x4xf32>, tensor<2x3xf32>) -> tensor<2x4xf32>
  func.return %s : tensor<2x4xf32>
}
