// RUN: heatc-opt %s -p lower-contractions | filecheck %s

// Low-rank: two linears; the second has the provenance.

// CHECK-LABEL: func.func @low_rank
// CHECK:         %[[H:.*]] = einsum.contract "ta,Aa->tA" %x, %a : (tensor<?x8xf32>, tensor<2x8xf32>) -> tensor<?x2xf32>
// CHECK-NEXT:    %y = einsum.contract "tA,mA->tm" %[[H]], %b {decomposition = #einsum.decomposition<"low-rank", "8|6", [2], 0.100000>} : (tensor<?x2xf32>, tensor<6x2xf32>) -> tensor<?x6xf32>
func.func @low_rank(%x: tensor<?x8xf32>) -> tensor<?x6xf32> {
  %a = einsum.weight ["d.0"] : tensor<2x8xf32>
  %b = einsum.weight ["d.1"] : tensor<6x2xf32>
  %y = einsum.contract "ta,Aa,mA->tm" %x, %a, %b {path = #einsum.path<(0, 1), (3, 2)>, decomposition = #einsum.decomposition<"low-rank", "8|6", [2], 0.1>} : (tensor<?x8xf32>, tensor<2x8xf32>, tensor<6x2xf32>) -> tensor<?x6xf32>
  func.return %y : tensor<?x6xf32>
}

// A tensor train whose halves are joined first: two products of matrices, no reshape of tokens left.

// CHECK-LABEL: func.func @tt
// CHECK:         %[[G:.*]] = einsum.contract "aA,AbB->abB" %a, %b
// CHECK:         %[[W:.*]] = nn.reshape %[[G]] : (tensor<2x4x3xf32>) -> tensor<8x3xf32>
// CHECK-NEXT:    %[[H:.*]] = einsum.contract "ta,aB->tB" %x, %[[W]] : (tensor<?x8xf32>, tensor<8x3xf32>) -> tensor<?x3xf32>
// CHECK-NEXT:    %[[K:.*]] = einsum.contract "BmC,Cn->Bmn" %c, %d
// CHECK-NEXT:    %[[V:.*]] = nn.reshape %[[K]] : (tensor<3x2x3xf32>) -> tensor<3x6xf32>
// CHECK-NEXT:    %[[Y:.*]] = einsum.contract "tB,Bm->tm" %[[H]], %[[V]] : (tensor<?x3xf32>, tensor<3x6xf32>) -> tensor<?x6xf32>
// CHECK-NEXT:    func.return %[[Y]]
func.func @tt(%x: tensor<?x8xf32>) -> tensor<?x6xf32> {
  %a = einsum.weight ["d.0"] : tensor<2x2xf32>
  %b = einsum.weight ["d.1"] : tensor<2x4x3xf32>
  %c = einsum.weight ["d.2"] : tensor<3x2x2xf32>
  %d = einsum.weight ["d.3"] : tensor<2x3xf32>
  %s = nn.reshape %x : (tensor<?x8xf32>) -> tensor<?x2x4xf32>
  %y = einsum.contract "tab,aA,AbB,BmC,Cn->tmn" %s, %a, %b, %c, %d {path = #einsum.path<(1, 2), (0, 5), (3, 4), (6, 7)>} : (tensor<?x2x4xf32>, tensor<2x2xf32>, tensor<2x4x3xf32>, tensor<3x2x2xf32>, tensor<2x3xf32>) -> tensor<?x2x3xf32>
  %r = nn.reshape %y : (tensor<?x2x3xf32>) -> tensor<?x6xf32>
  func.return %r : tensor<?x6xf32>
}

// A tensor-train matrix: what a step sums lies side by side, the new axes take its place.

// CHECK-LABEL: func.func @ttm
// CHECK:         %[[H:.*]] = einsum.contract "tab,maA->tmAb" %x, %a : (tensor<?x2x4xf32>, tensor<3x2x5xf32>) -> tensor<?x3x5x4xf32>
// CHECK-NEXT:    %y = einsum.contract "tmAb,Anb->tmn" %[[H]], %b : (tensor<?x3x5x4xf32>, tensor<5x6x4xf32>) -> tensor<?x3x6xf32>
func.func @ttm(%x: tensor<?x2x4xf32>) -> tensor<?x3x6xf32> {
  %a = einsum.weight ["d.0"] : tensor<3x2x5xf32>
  %b = einsum.weight ["d.1"] : tensor<5x6x4xf32>
  %y = einsum.contract "tab,maA,Anb->tmn" %x, %a, %b {path = #einsum.path<(0, 1), (3, 2)>} : (tensor<?x2x4xf32>, tensor<3x2x5xf32>, tensor<5x6x4xf32>) -> tensor<?x3x6xf32>
  func.return %y : tensor<?x3x6xf32>
}
