// RUN: heatc-opt %s -p partition-host --split-input-file | filecheck %s

// One query asks three keys, one of which a mask hides: products with a softmax between, in one task.

// CHECK-LABEL: func.func @asked(%q: tensor<1x2x1x4xf32>, %k: tensor<1x2x3x4xf32>, %m: tensor<1x1x1x3xi1>) -> tensor<1x2x1x4xf32> {
// CHECK-NEXT:    %a = host.task (%q_1 = %q : tensor<1x2x1x4xf32>, %k_1 = %k : tensor<1x2x3x4xf32>, %m_1 = %m : tensor<1x1x1x3xi1>) -> (tensor<1x2x1x4xf32>) {
// CHECK-NEXT:      %0 = nn.full {value = 5.000000e-01 : f64} : tensor<f32>
// CHECK-NEXT:      %1 = nn.full {value = 0xfff0000000000000 : f64} : tensor<f32>
// CHECK-NEXT:      %2 = einsum.contract "abqi,abki->abqk" %q_1, %k_1 : (tensor<1x2x1x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x1x3xf32>
// CHECK-NEXT:      %3 = nn.mul %2, %0 : (tensor<1x2x1x3xf32>, tensor<f32>) -> tensor<1x2x1x3xf32>
// CHECK-NEXT:      %4 = nn.where %m_1, %3, %1 : (tensor<1x1x1x3xi1>, tensor<1x2x1x3xf32>, tensor<f32>) -> tensor<1x2x1x3xf32>
// CHECK-NEXT:      %5 = nn.softmax %4 {dim = -1 : i64, safe} : (tensor<1x2x1x3xf32>) -> tensor<1x2x1x3xf32>
// CHECK-NEXT:      %a_1 = einsum.contract "abqk,abko->abqo" %5, %k_1 : (tensor<1x2x1x3xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x1x4xf32>
// CHECK-NEXT:      host.yield %a_1 : tensor<1x2x1x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %a : tensor<1x2x1x4xf32>
func.func @asked(%q: tensor<1x2x1x4xf32>, %k: tensor<1x2x3x4xf32>, %m: tensor<1x1x1x3xi1>) -> tensor<1x2x1x4xf32> {
  %a = nn.sdpa %q, %k, %k, %m {scale = 0.5 : f64, is_causal = false} : (tensor<1x2x1x4xf32>, tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>, tensor<1x1x1x3xi1>) -> tensor<1x2x1x4xf32>
  func.return %a : tensor<1x2x1x4xf32>
}

// -----

// A bias is added, and later keys are not seen.

// CHECK-LABEL: func.func @causal(%q: tensor<2x2x4xf32>, %k: tensor<2x3x4xf32>, %v: tensor<2x3x5xf32>, %b: tensor<2x3xf32>) -> (tensor<2x2x5xf32>, tensor<2x2x5xf32>) {
// CHECK-NEXT:    %0 = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<2xi64>
// CHECK-NEXT:    %1 = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<3xi64>
// CHECK-NEXT:    %2 = nn.reshape %0 : (tensor<2xi64>) -> tensor<2x1xi64>
// CHECK-NEXT:    %3 = nn.compare %2, %1 {predicate = "ge"} : (tensor<2x1xi64>, tensor<3xi64>) -> tensor<2x3xi1>
// CHECK-NEXT:    %a = host.task (%q_1 = %q : tensor<2x2x4xf32>, %k_1 = %k : tensor<2x3x4xf32>, %4 = %3 : tensor<2x3xi1>, %v_1 = %v : tensor<2x3x5xf32>) -> (tensor<2x2x5xf32>) {
// CHECK-NEXT:      %5 = nn.full {value = 1.000000e+00 : f64} : tensor<f32>
// CHECK-NEXT:      %6 = nn.full {value = 0xfff0000000000000 : f64} : tensor<f32>
// CHECK-NEXT:      %7 = einsum.contract "aqi,aki->aqk" %q_1, %k_1 : (tensor<2x2x4xf32>, tensor<2x3x4xf32>) -> tensor<2x2x3xf32>
// CHECK-NEXT:      %8 = nn.mul %7, %5 : (tensor<2x2x3xf32>, tensor<f32>) -> tensor<2x2x3xf32>
// CHECK-NEXT:      %9 = nn.where %4, %8, %6 : (tensor<2x3xi1>, tensor<2x2x3xf32>, tensor<f32>) -> tensor<2x2x3xf32>
// CHECK-NEXT:      %10 = nn.softmax %9 {dim = -1 : i64} : (tensor<2x2x3xf32>) -> tensor<2x2x3xf32>
// CHECK-NEXT:      %a_1 = einsum.contract "aqk,ako->aqo" %10, %v_1 : (tensor<2x2x3xf32>, tensor<2x3x5xf32>) -> tensor<2x2x5xf32>
// CHECK-NEXT:      host.yield %a_1 : tensor<2x2x5xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    %c = host.task (%q_1 = %q : tensor<2x2x4xf32>, %k_1 = %k : tensor<2x3x4xf32>, %b_1 = %b : tensor<2x3xf32>, %v_1 = %v : tensor<2x3x5xf32>) -> (tensor<2x2x5xf32>) {
// CHECK-NEXT:      %4 = nn.full {value = 1.000000e+00 : f64} : tensor<f32>
// CHECK-NEXT:      %5 = einsum.contract "aqi,aki->aqk" %q_1, %k_1 : (tensor<2x2x4xf32>, tensor<2x3x4xf32>) -> tensor<2x2x3xf32>
// CHECK-NEXT:      %6 = nn.mul %5, %4 : (tensor<2x2x3xf32>, tensor<f32>) -> tensor<2x2x3xf32>
// CHECK-NEXT:      %7 = nn.add %6, %b_1 : (tensor<2x2x3xf32>, tensor<2x3xf32>) -> tensor<2x2x3xf32>
// CHECK-NEXT:      %8 = nn.softmax %7 {dim = -1 : i64, safe} : (tensor<2x2x3xf32>) -> tensor<2x2x3xf32>
// CHECK-NEXT:      %c_1 = einsum.contract "aqk,ako->aqo" %8, %v_1 : (tensor<2x2x3xf32>, tensor<2x3x5xf32>) -> tensor<2x2x5xf32>
// CHECK-NEXT:      host.yield %c_1 : tensor<2x2x5xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %a, %c : tensor<2x2x5xf32>, tensor<2x2x5xf32>
func.func @causal(%q: tensor<2x2x4xf32>, %k: tensor<2x3x4xf32>, %v: tensor<2x3x5xf32>, %b: tensor<2x3xf32>) -> (tensor<2x2x5xf32>, tensor<2x2x5xf32>) {
  %a = nn.sdpa %q, %k, %v {scale = 1.0 : f64, is_causal = true} : (tensor<2x2x4xf32>, tensor<2x3x4xf32>, tensor<2x3x5xf32>) -> tensor<2x2x5xf32>
  %c = nn.sdpa %q, %k, %v, %b {scale = 1.0 : f64, is_causal = false} : (tensor<2x2x4xf32>, tensor<2x3x4xf32>, tensor<2x3x5xf32>, tensor<2x3xf32>) -> tensor<2x2x5xf32>
  func.return %a, %c : tensor<2x2x5xf32>, tensor<2x2x5xf32>
}
