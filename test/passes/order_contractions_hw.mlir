// RUN: heatc-opt %s -p 'order-contractions{objective=edp tokens=128}' --hw hdp-edge --split-input-file --remarks=%t | filecheck %s
// RUN: filecheck %s --check-prefix REMARKS < %t
// RUN: not heatc-opt %s -p 'order-contractions{objective=latency}' --split-input-file 2>&1 | filecheck %s --check-prefix NONE

// NONE: objective 'latency' needs a machine: give --hw

// Factors of a small rank meet the tokens one after the other.

// CHECK-LABEL: func.func @low_rank
// CHECK:         einsum.contract "ta,Aa,mA->tm" {{.*}} {path = #einsum.path<(0, 1), (3, 2)>}
// REMARKS: "layer": "low", {{.*}}"message": "low: the path of least edp takes {{[0-9]+}} cycles {{.*}} (left to right), the next one {{[0-9]+}} cycles {{.*}} (weight rebuilt)"
func.func @low_rank(%x: tensor<?x768xf32>) -> tensor<?x768xf32> {
  %a = einsum.weight ["low.0"] : tensor<96x768xf32>
  %b = einsum.weight ["low.1"] : tensor<768x96xf32>
  %y = einsum.contract "ta,Aa,mA->tm" %x, %a, %b : (tensor<?x768xf32>, tensor<96x768xf32>, tensor<768x96xf32>) -> tensor<?x768xf32>
  func.return %y : tensor<?x768xf32>
}

// -----

// A tensor-train matrix of a high rank is slower than its matrix.

// CHECK-LABEL: func.func @ttm
// CHECK:         einsum.contract "tab,maA,Anb->tmn" {{.*}} {path = #einsum.path<(1, 2), (0, 3)>}
// REMARKS: "layer": "high", {{.*}}"message": "high stays dense because its weight rebuilt takes {{[0-9]+}} cycles
// REMARKS-SAME: "chosen": {"name": "weight rebuilt", "path": {{.*}}"weighed": [{{.*}}"name": "left to right"
func.func @ttm(%x: tensor<?x24x32xf32>) -> tensor<?x24x32xf32> {
  %a = einsum.weight ["high.0"] : tensor<24x24x17xf32>
  %b = einsum.weight ["high.1"] : tensor<17x32x32xf32>
  %y = einsum.contract "tab,maA,Anb->tmn" %x, %a, %b : (tensor<?x24x32xf32>, tensor<24x24x17xf32>, tensor<17x32x32xf32>) -> tensor<?x24x32xf32>
  func.return %y : tensor<?x24x32xf32>
}

// -----

// Fewest multiply-accumulates have a step that keeps CP's shared rank: no product of matrices.

// CHECK-LABEL: func.func @cp
// CHECK:         einsum.contract "tab,aA,bA,mA,nA->tmn" {{.*}} {path = #einsum.path<(1, 2), (0, 5), (3, 4), (6, 7)>}
// REMARKS: "layer": "cp", {{.*}}"message": "cp: the path of least edp
// REMARKS-SAME: "refused": "
func.func @cp(%x: tensor<?x24x32xf32>) -> tensor<?x24x32xf32> {
  %a = einsum.weight ["cp.0"] : tensor<24x64xf32>
  %b = einsum.weight ["cp.1"] : tensor<32x64xf32>
  %m = einsum.weight ["cp.2"] : tensor<24x64xf32>
  %n = einsum.weight ["cp.3"] : tensor<32x64xf32>
  %y = einsum.contract "tab,aA,bA,mA,nA->tmn" %x, %a, %b, %m, %n : (tensor<?x24x32xf32>, tensor<24x64xf32>, tensor<32x64xf32>, tensor<24x64xf32>, tensor<32x64xf32>) -> tensor<?x24x32xf32>
  func.return %y : tensor<?x24x32xf32>
}
