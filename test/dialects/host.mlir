// RUN: %roundtrip

// Every op of `host` prints what it parses, in the custom and in the generic form.

// CHECK-LABEL: func.func @tasks(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>) -> tensor<?x4xf32> {
// CHECK-NEXT:    %0 = host.task (%a = %x : tensor<?x4xf32>, %b = %y : tensor<?x4xf32>) -> (tensor<?x4xf32>) {
// CHECK-NEXT:      %1 = nn.add %a, %b : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT:      host.yield %1 : tensor<?x4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %0 : tensor<?x4xf32>
func.func @tasks(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %0 = host.task (%a = %x : tensor<?x4xf32>, %b = %y : tensor<?x4xf32>) -> (tensor<?x4xf32>) {
    %1 = nn.add %a, %b : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
    host.yield %1 : tensor<?x4xf32>
  }
  func.return %0 : tensor<?x4xf32>
}

// CHECK-LABEL: func.func @attributes() {
// CHECK-NEXT:    host.task () -> () attributes {layer = 3 : i64} {
// CHECK-NEXT:      host.yield
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return
func.func @attributes() {
  host.task () -> () attributes {"layer" = 3 : i64} {
    host.yield
  }
  func.return
}

// CHECK-LABEL: func.func @two_results(%x: tensor<4xf32>) {
// CHECK-NEXT:    %0, %1 = host.task (%a = %x : tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
// CHECK-NEXT:      %2 = nn.tanh %a : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:      host.yield %2, %a : tensor<4xf32>, tensor<4xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return
func.func @two_results(%x: tensor<4xf32>) {
  %0, %1 = host.task (%a = %x : tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
    %2 = nn.tanh %a : (tensor<4xf32>) -> tensor<4xf32>
    host.yield %2, %a : tensor<4xf32>, tensor<4xf32>
  }
  func.return
}
