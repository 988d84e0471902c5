// RUN: heatc-opt %s -p 'order-contractions{tokens=16}' --split-input-file | filecheck %s --check-prefixes CHECK,FEW
// RUN: heatc-opt %s -p 'order-contractions{tokens=128}' --split-input-file | filecheck %s --check-prefixes CHECK,MANY
// RUN: heatc-opt %s -p 'order-contractions{tokens=128}' --split-input-file --remarks=- 2>&1 | filecheck %s --check-prefix=TOLD

// Low-rank factors meet a token one after the other, however many tokens there are.

// CHECK-LABEL: func.func @low_rank
// CHECK:         einsum.contract "ta,Aa,mA->tm" {{.*}} {path = #einsum.path<(0, 1), (3, 2)>}
func.func @low_rank(%x: tensor<?x768xf32>) -> tensor<?x768xf32> {
  %a = einsum.weight ["d.0"] : tensor<96x768xf32>
  %b = einsum.weight ["d.1"] : tensor<768x96xf32>
  %y = einsum.contract "ta,Aa,mA->tm" %x, %a, %b : (tensor<?x768xf32>, tensor<96x768xf32>, tensor<768x96xf32>) -> tensor<?x768xf32>
  func.return %y : tensor<?x768xf32>
}

// -----

// A tensor-train matrix of high rank: with many tokens it pays to rebuild the weight first.

// TOLD: remark: d stays dense because its weight rebuilt takes least macs, 85524480 [order-contractions]

// CHECK-LABEL: func.func @ttm
// FEW:         einsum.contract "tab,maA,Anb->tmn" {{.*}} {path = #einsum.path<(0, 2), (3, 1)>}
// MANY:        einsum.contract "tab,maA,Anb->tmn" {{.*}} {path = #einsum.path<(1, 2), (0, 3)>}
func.func @ttm(%x: tensor<?x24x32xf32>) -> tensor<?x24x32xf32> {
  %a = einsum.weight ["d.0"] : tensor<24x24x17xf32>
  %b = einsum.weight ["d.1"] : tensor<17x32x32xf32>
  %y = einsum.contract "tab,maA,Anb->tmn" %x, %a, %b : (tensor<?x24x32xf32>, tensor<24x24x17xf32>, tensor<17x32x32xf32>) -> tensor<?x24x32xf32>
  func.return %y : tensor<?x24x32xf32>
}

// -----

// A path that is there stays; two operands need none.

// CHECK-LABEL: func.func @kept
// CHECK:         einsum.contract "ta,Aa,mA->tm" {{.*}} {path = #einsum.path<(1, 2), (0, 3)>}
// CHECK:         einsum.contract "ta,ma->tm" %x, %{{.*}} : (
func.func @kept(%x: tensor<?x8xf32>) -> (tensor<?x8xf32>, tensor<?x4xf32>) {
  %a = einsum.weight ["d.0"] : tensor<2x8xf32>
  %b = einsum.weight ["d.1"] : tensor<8x2xf32>
  %y = einsum.contract "ta,Aa,mA->tm" %x, %a, %b {path = #einsum.path<(1, 2), (0, 3)>} : (tensor<?x8xf32>, tensor<2x8xf32>, tensor<8x2xf32>) -> tensor<?x8xf32>
  %w = einsum.weight ["e"] : tensor<4x8xf32>
  %z = einsum.contract "ta,ma->tm" %x, %w : (tensor<?x8xf32>, tensor<4x8xf32>) -> tensor<?x4xf32>
  func.return %y, %z : tensor<?x8xf32>, tensor<?x4xf32>
}
