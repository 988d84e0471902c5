// RUN: heatc-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// CHECK: block arguments (tensor<5xf32>) do not match inputs (tensor<4xf32>)
func.func @f(%x: tensor<4xf32>) {
  %0 = "host.task"(%x) ({
  ^bb0(%a: tensor<5xf32>):
    "host.yield"(%a) : (tensor<5xf32>) -> ()
  }) : (tensor<4xf32>) -> tensor<5xf32>
  func.return
}

// -----

// CHECK: yielded types (tensor<4xf32>) do not match results (tensor<5xf32>)
func.func @f(%x: tensor<4xf32>) {
  %0 = host.task (%a = %x : tensor<4xf32>) -> (tensor<5xf32>) {
    host.yield %a : tensor<4xf32>
  }
  func.return
}

// -----

// CHECK: nn.tanh reads a value from outside of host.task
func.func @f(%x: tensor<4xf32>) {
  %0 = host.task () -> (tensor<4xf32>) {
    %1 = nn.tanh %x : (tensor<4xf32>) -> tensor<4xf32>
    host.yield %1 : tensor<4xf32>
  }
  func.return
}

// -----

// CHECK: host.yield reads a value from outside of host.task
func.func @f(%x: tensor<4xf32>) {
  %0 = host.task () -> (tensor<4xf32>) {
    host.yield %x : tensor<4xf32>
  }
  func.return
}

// -----

// CHECK: 'host.task' terminates with operation test.termop instead of host.yield
func.func @f(%x: tensor<4xf32>) {
  %0 = "host.task"(%x) ({
  ^bb0(%a: tensor<4xf32>):
    "test.termop"() : () -> ()
  }) : (tensor<4xf32>) -> tensor<4xf32>
  func.return
}
