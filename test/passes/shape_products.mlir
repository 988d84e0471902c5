// RUN: heatc-opt %s -p shape-products | filecheck %s

// The weight comes from the left while an axis stands behind what is summed, then from the right.

// CHECK-LABEL: func.func @ttm
// CHECK:         %[[A:.*]] = nn.transpose %a {permutation = array<i64: 0, 2, 1>} : (tensor<3x2x5xf32>) -> tensor<3x5x2xf32>
// CHECK-NEXT:    %[[W:.*]] = nn.reshape %[[A]] : (tensor<3x5x2xf32>) -> tensor<15x2xf32>
// CHECK-NEXT:    %[[H:.*]] = einsum.contract "taq,oa->toq" %x, %[[W]] : (tensor<?x2x4xf32>, tensor<15x2xf32>) -> tensor<?x15x4xf32>
// CHECK-NEXT:    %[[R:.*]] = nn.reshape %[[H]] : (tensor<?x15x4xf32>) -> tensor<?x3x20xf32>
// CHECK:         %y = einsum.contract "tpa,oa->tpo" %[[R]], %{{.*}} {decomposition = #einsum.decomposition<"ttm", "2x4|3x6", [5], 0.100000>} : (tensor<?x3x20xf32>, tensor<6x20xf32>) -> tensor<?x3x6xf32>
// CHECK-NEXT:    func.return %y
func.func @ttm(%x: tensor<?x2x4xf32>) -> tensor<?x3x6xf32> {
  %a = einsum.weight ["d.0"] : tensor<3x2x5xf32>
  %b = einsum.weight ["d.1"] : tensor<5x6x4xf32>
  %h = einsum.contract "tab,maA->tmAb" %x, %a : (tensor<?x2x4xf32>, tensor<3x2x5xf32>) -> tensor<?x3x5x4xf32>
  %y = einsum.contract "tmAb,Anb->tmn" %h, %b {decomposition = #einsum.decomposition<"ttm", "2x4|3x6", [5], 0.1>} : (tensor<?x3x5x4xf32>, tensor<5x6x4xf32>) -> tensor<?x3x6xf32>
  func.return %y : tensor<?x3x6xf32>
}

// A step that keeps an index of its weight is no product.

// CHECK-LABEL: func.func @kept
// CHECK:         einsum.contract "tab,Aa->tAb"
// CHECK-NEXT:    einsum.contract "tAb,Ab->tA"
func.func @kept(%x: tensor<?x2x4xf32>) -> tensor<?x5xf32> {
  %a = einsum.weight ["d.0"] : tensor<5x2xf32>
  %b = einsum.weight ["d.1"] : tensor<5x4xf32>
  %h = einsum.contract "tab,Aa->tAb" %x, %a : (tensor<?x2x4xf32>, tensor<5x2xf32>) -> tensor<?x5x4xf32>
  %y = einsum.contract "tAb,Ab->tA" %h, %b : (tensor<?x5x4xf32>, tensor<5x4xf32>) -> tensor<?x5xf32>
  func.return %y : tensor<?x5xf32>
}
