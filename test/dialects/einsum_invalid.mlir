// RUN: heatc-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// CHECK: malformed equation 'ti,oi', expected e.g. 'ti,oi->to'
func.func @f(%a: tensor<2x4xf32>, %b: tensor<3x4xf32>) {
  %0 = einsum.contract "ti,oi" %a, %b : (tensor<2x4xf32>, tensor<3x4xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: result 'tz' of 'ti,oi->tz' repeats or invents an index
func.func @f(%a: tensor<2x4xf32>, %b: tensor<3x4xf32>) {
  %0 = einsum.contract "ti,oi->tz" %a, %b : (tensor<2x4xf32>, tensor<3x4xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: result 'tt' of 'ti,oi->tt' repeats or invents an index
func.func @f(%a: tensor<2x4xf32>, %b: tensor<3x4xf32>) {
  %0 = einsum.contract "ti,oi->tt" %a, %b : (tensor<2x4xf32>, tensor<3x4xf32>) -> tensor<2x2xf32>
  func.return
}

// -----

// CHECK: equation 'ti,oi->to' has 2 operands, got 1
func.func @f(%a: tensor<2x4xf32>) {
  %0 = einsum.contract "ti,oi->to" %a : (tensor<2x4xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: term 'oi' does not fit shape (3,)
func.func @f(%a: tensor<2x4xf32>, %b: tensor<3xf32>) {
  %0 = einsum.contract "ti,oi->to" %a, %b : (tensor<2x4xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: index 'i' has extents 4 and 5
func.func @f(%a: tensor<2x4xf32>, %b: tensor<3x5xf32>) {
  %0 = einsum.contract "ti,oi->to" %a, %b : (tensor<2x4xf32>, tensor<3x5xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: index 'o' has extents 3 and 7
func.func @f(%a: tensor<2x4xf32>, %b: tensor<3x4xf32>) {
  %0 = einsum.contract "ti,oi->to" %a, %b : (tensor<2x4xf32>, tensor<3x4xf32>) -> tensor<2x7xf32>
  func.return
}

// -----

// CHECK: expected at least one weight name
func.func @f() {
  %0 = einsum.weight [] : tensor<2x4xf32>
  func.return
}

// -----

// CHECK: (0, 2) is not a permutation of rank 2
func.func @f() {
  %0 = einsum.weight ["w"] {permutation = array<i64: 0, 2>} : tensor<2x4xf32>
  func.return
}

// -----

// CHECK: expected a path of 2 steps, got 1
func.func @f(%x: tensor<?x4xf32>, %a: tensor<2x4xf32>, %b: tensor<5x2xf32>) {
  %0 = einsum.contract "ti,ri,or->to" %x, %a, %b {path = #einsum.path<(0, 1)>} : (tensor<?x4xf32>, tensor<2x4xf32>, tensor<5x2xf32>) -> tensor<?x5xf32>
  func.return
}

// -----

// CHECK: step (0, 2) contracts what is not in [2, 3]
func.func @f(%x: tensor<?x4xf32>, %a: tensor<2x4xf32>, %b: tensor<5x2xf32>) {
  %0 = einsum.contract "ti,ri,or->to" %x, %a, %b {path = #einsum.path<(0, 1), (0, 2)>} : (tensor<?x4xf32>, tensor<2x4xf32>, tensor<5x2xf32>) -> tensor<?x5xf32>
  func.return
}

// -----

// CHECK: fuse: expected at least 1 token at a time, got 0
func.func @f(%x: tensor<?x8xf32>, %a: tensor<6x8xf32>, %b: tensor<5x6xf32>) {
  %0 = einsum.contract "ti,ri->tr" %x, %a {fuse = #einsum.fuse<tokens = 0>} : (tensor<?x8xf32>, tensor<6x8xf32>) -> tensor<?x6xf32>
  %2 = einsum.contract "tr,or->to" %0, %b : (tensor<?x6xf32>, tensor<5x6xf32>) -> tensor<?x5xf32>
  func.return
}

// -----

// CHECK: fuse: expected a step of packed tokens with what has none, its first axis the tokens, got 'ti,ri->rt' from tensor<?x8xf32>, tensor<6x8xf32> to tensor<6x?xf32>
func.func @f(%x: tensor<?x8xf32>, %a: tensor<6x8xf32>) {
  %0 = einsum.contract "ti,ri->rt" %x, %a {fuse = #einsum.fuse<tokens = 64>} : (tensor<?x8xf32>, tensor<6x8xf32>) -> tensor<6x?xf32>
  func.return
}

// -----

// CHECK: fuse: expected a step of packed tokens with what has none, its first axis the tokens, got 'ti,ri,r->tr' from tensor<?x8xf32>, tensor<6x8xf32>, tensor<6xf32> to tensor<?x6xf32>
func.func @f(%x: tensor<?x8xf32>, %a: tensor<6x8xf32>, %s: tensor<6xf32>) {
  %0 = einsum.contract "ti,ri,r->tr" %x, %a, %s {fuse = #einsum.fuse<tokens = 64>} : (tensor<?x8xf32>, tensor<6x8xf32>, tensor<6xf32>) -> tensor<?x6xf32>
  func.return
}

// -----

// CHECK: fuse: expected one contraction that reads the tensor<?x6xf32> as its first operand, through nothing but reshapes of each token, got nothing
func.func @f(%x: tensor<?x8xf32>, %a: tensor<6x8xf32>, %b: tensor<5x6xf32>) {
  %0 = einsum.contract "ti,ri->tr" %x, %a {fuse = #einsum.fuse<tokens = 64>} : (tensor<?x8xf32>, tensor<6x8xf32>) -> tensor<?x6xf32>
  func.return
}

// -----

// CHECK: fuse: expected one contraction that reads the tensor<?x6xf32> as its first operand, through nothing but reshapes of each token, got nn.gelu
func.func @f(%x: tensor<?x8xf32>, %a: tensor<6x8xf32>, %b: tensor<5x6xf32>) {
  %0 = einsum.contract "ti,ri->tr" %x, %a {fuse = #einsum.fuse<tokens = 64>} : (tensor<?x8xf32>, tensor<6x8xf32>) -> tensor<?x6xf32>
  %1 = nn.gelu %0 {approximate = "none"} : (tensor<?x6xf32>) -> tensor<?x6xf32>
  %2 = einsum.contract "tr,or->to" %1, %b : (tensor<?x6xf32>, tensor<5x6xf32>) -> tensor<?x5xf32>
  func.return
}

// -----

// CHECK: fuse: expected one contraction that reads the tensor<?x6xf32> as its first operand, through nothing but reshapes of each token, got einsum.contract, einsum.contract
func.func @f(%x: tensor<?x8xf32>, %a: tensor<6x8xf32>, %b: tensor<5x6xf32>) {
  %0 = einsum.contract "ti,ri->tr" %x, %a {fuse = #einsum.fuse<tokens = 64>} : (tensor<?x8xf32>, tensor<6x8xf32>) -> tensor<?x6xf32>
  %2 = einsum.contract "tr,or->to" %0, %b : (tensor<?x6xf32>, tensor<5x6xf32>) -> tensor<?x5xf32>
  %3 = einsum.contract "tr,or->to" %0, %b : (tensor<?x6xf32>, tensor<5x6xf32>) -> tensor<?x5xf32>
  func.return
}

// -----

// CHECK: fuse: expected one contraction that reads the tensor<?x6xf32> as its first operand, through nothing but reshapes of each token, got einsum.contract
func.func @f(%x: tensor<?x8xf32>, %a: tensor<6x8xf32>, %b: tensor<5x6xf32>) {
  %0 = einsum.contract "ti,ri->tr" %x, %a {fuse = #einsum.fuse<tokens = 64>} : (tensor<?x8xf32>, tensor<6x8xf32>) -> tensor<?x6xf32>
  %1 = einsum.contract "oi,ti->to" %b, %0 : (tensor<5x6xf32>, tensor<?x6xf32>) -> tensor<?x5xf32>
  func.return
}

// -----

// CHECK: fuse: expected one number of tokens in a group, got 64 and 32
func.func @f(%x: tensor<?x8xf32>, %a: tensor<6x8xf32>, %b: tensor<5x6xf32>, %c: tensor<4x5xf32>) {
  %0 = einsum.contract "ti,ri->tr" %x, %a {fuse = #einsum.fuse<tokens = 64>} : (tensor<?x8xf32>, tensor<6x8xf32>) -> tensor<?x6xf32>
  %2 = einsum.contract "tr,or->to" %0, %b {fuse = #einsum.fuse<tokens = 32>} : (tensor<?x6xf32>, tensor<5x6xf32>) -> tensor<?x5xf32>
  %3 = einsum.contract "tc,dc->td" %2, %c : (tensor<?x5xf32>, tensor<4x5xf32>) -> tensor<?x4xf32>
  func.return
}

// -----

// CHECK: expected modes as '8x12|12x8', got '4x|5'
"test.op"() {a = #einsum.format<"low-rank", "4x|5", [2]>} : () -> ()

// -----

// CHECK: expected ranks from 1 on, got [2, 0]
"test.op"() {a = #einsum.format<"tt", "2x2|5", [2, 0]>} : () -> ()

// -----

// CHECK: expected ranks from 1 on, got []
"test.op"() {a = #einsum.format<"tt", "2x2|5", []>} : () -> ()

// -----

// CHECK: format: expected an activation and a weight, got 3 operands
func.func @f(%x: tensor<?x4xf32>, %a: tensor<2x4xf32>, %b: tensor<5x2xf32>) {
  %2 = einsum.contract "ti,ri,or->to" %x, %a, %b {format = #einsum.format<"low-rank", "4|5", [2]>} : (tensor<?x4xf32>, tensor<2x4xf32>, tensor<5x2xf32>) -> tensor<?x5xf32>
  func.return
}
