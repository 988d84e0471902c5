// RUN: heatc-opt %s -p raise-einsum --split-input-file | filecheck %s

// A linear layer: a contraction over the last axis of both, then the bias.

// CHECK-LABEL: func.func @linear(%x: tensor<1x16x4xf32>, %w: tensor<5x4xf32>, %b: tensor<5xf32>) -> tensor<1x16x5xf32> {
// CHECK-NEXT:    %y = einsum.contract "abi,oi->abo" %x, %w : (tensor<1x16x4xf32>, tensor<5x4xf32>) -> tensor<1x16x5xf32>
// CHECK-NEXT:    %y_1 = nn.add %y, %b : (tensor<1x16x5xf32>, tensor<5xf32>) -> tensor<1x16x5xf32>
// CHECK-NEXT:    func.return %y_1 : tensor<1x16x5xf32>
func.func @linear(%x: tensor<1x16x4xf32>, %w: tensor<5x4xf32>, %b: tensor<5xf32>) -> tensor<1x16x5xf32> {
  %y = nn.linear %x, %w, %b : (tensor<1x16x4xf32>, tensor<5x4xf32>, tensor<5xf32>) -> tensor<1x16x5xf32>
  func.return %y : tensor<1x16x5xf32>
}

// -----

// Without a bias, and on one matrix.

// CHECK-LABEL: func.func @no_bias(%x: tensor<3x4xf32>, %w: tensor<5x4xf32>) -> tensor<3x5xf32> {
// CHECK-NEXT:    %y = einsum.contract "ai,oi->ao" %x, %w : (tensor<3x4xf32>, tensor<5x4xf32>) -> tensor<3x5xf32>
// CHECK-NEXT:    func.return %y : tensor<3x5xf32>
func.func @no_bias(%x: tensor<3x4xf32>, %w: tensor<5x4xf32>) -> tensor<3x5xf32> {
  %y = nn.linear %x, %w : (tensor<3x4xf32>, tensor<5x4xf32>) -> tensor<3x5xf32>
  func.return %y : tensor<3x5xf32>
}

// -----

// A linear layer of a single vector has no leading axes.

// CHECK-LABEL: func.func @vector(%x: tensor<4xf32>, %w: tensor<5x4xf32>) -> tensor<5xf32> {
// CHECK-NEXT:    %y = einsum.contract "i,oi->o" %x, %w : (tensor<4xf32>, tensor<5x4xf32>) -> tensor<5xf32>
// CHECK-NEXT:    func.return %y : tensor<5xf32>
func.func @vector(%x: tensor<4xf32>, %w: tensor<5x4xf32>) -> tensor<5xf32> {
  %y = nn.linear %x, %w : (tensor<4xf32>, tensor<5x4xf32>) -> tensor<5xf32>
  func.return %y : tensor<5xf32>
}

// -----

// mm, bmm and a product whose right operand is one matrix for all.

// CHECK-LABEL: func.func @products(%a: tensor<3x4xf32>, %b: tensor<4x5xf32>, %c: tensor<2x3x4xf32>, %d: tensor<2x4x5xf32>) {
// CHECK-NEXT:    %0 = einsum.contract "mk,kn->mn" %a, %b : (tensor<3x4xf32>, tensor<4x5xf32>) -> tensor<3x5xf32>
// CHECK-NEXT:    %1 = einsum.contract "amk,akn->amn" %c, %d : (tensor<2x3x4xf32>, tensor<2x4x5xf32>) -> tensor<2x3x5xf32>
// CHECK-NEXT:    %2 = einsum.contract "amk,kn->amn" %c, %b : (tensor<2x3x4xf32>, tensor<4x5xf32>) -> tensor<2x3x5xf32>
// CHECK-NEXT:    func.return
func.func @products(%a: tensor<3x4xf32>, %b: tensor<4x5xf32>, %c: tensor<2x3x4xf32>, %d: tensor<2x4x5xf32>) {
  %0 = nn.matmul %a, %b : (tensor<3x4xf32>, tensor<4x5xf32>) -> tensor<3x5xf32>
  %1 = nn.matmul %c, %d : (tensor<2x3x4xf32>, tensor<2x4x5xf32>) -> tensor<2x3x5xf32>
  %2 = nn.matmul %c, %b : (tensor<2x3x4xf32>, tensor<4x5xf32>) -> tensor<2x3x5xf32>
  func.return
}

// -----

// An operand has the leading axes along which it is not repeated.

// CHECK-LABEL: func.func @broadcast(%a: tensor<3x4xf32>, %b: tensor<1x3x4xf32>, %c: tensor<2x4x5xf32>, %d: tensor<7x1x3x4xf32>) {
// CHECK-NEXT:    %0 = einsum.contract "mk,akn->amn" %a, %c : (tensor<3x4xf32>, tensor<2x4x5xf32>) -> tensor<2x3x5xf32>
// CHECK-NEXT:    %1 = nn.reshape %b : (tensor<1x3x4xf32>) -> tensor<3x4xf32>
// CHECK-NEXT:    %2 = einsum.contract "mk,akn->amn" %1, %c : (tensor<3x4xf32>, tensor<2x4x5xf32>) -> tensor<2x3x5xf32>
// CHECK-NEXT:    %3 = nn.reshape %d : (tensor<7x1x3x4xf32>) -> tensor<7x3x4xf32>
// CHECK-NEXT:    %4 = einsum.contract "amk,bkn->abmn" %3, %c : (tensor<7x3x4xf32>, tensor<2x4x5xf32>) -> tensor<7x2x3x5xf32>
// CHECK-NEXT:    func.return
func.func @broadcast(%a: tensor<3x4xf32>, %b: tensor<1x3x4xf32>, %c: tensor<2x4x5xf32>, %d: tensor<7x1x3x4xf32>) {
  %0 = nn.matmul %a, %c : (tensor<3x4xf32>, tensor<2x4x5xf32>) -> tensor<2x3x5xf32>
  %1 = nn.matmul %b, %c : (tensor<1x3x4xf32>, tensor<2x4x5xf32>) -> tensor<2x3x5xf32>
  %2 = nn.matmul %d, %c : (tensor<7x1x3x4xf32>, tensor<2x4x5xf32>) -> tensor<7x2x3x5xf32>
  func.return
}

// -----

// A matrix that is spread along the leading axes, as PyTorch takes linears apart, is taken once.

// CHECK-LABEL: func.func @spread(
// CHECK:         %y = einsum.contract "abmk,nk->abmn" %x, %w : (tensor<2x3x4x5xf32>, tensor<6x5xf32>) -> tensor<2x3x4x6xf32>
func.func @spread(%x: tensor<2x3x4x5xf32>, %w: tensor<6x5xf32>) -> tensor<2x3x4x6xf32> {
  %t = nn.transpose %w {permutation = array<i64: 1, 0>} : (tensor<6x5xf32>) -> tensor<5x6xf32>
  %r = nn.reshape %t : (tensor<5x6xf32>) -> tensor<1x1x5x6xf32>
  %e = nn.expand %r : (tensor<1x1x5x6xf32>) -> tensor<2x3x5x6xf32>
  %y = nn.matmul %x, %e : (tensor<2x3x4x5xf32>, tensor<2x3x5x6xf32>) -> tensor<2x3x4x6xf32>
  func.return %y : tensor<2x3x4x6xf32>
}
