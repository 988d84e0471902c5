// RUN: heatc-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// CHECK: expected steps of an attention, got nn.tanh
func.func @f(%x: tensor<?x4xf32>) {
  %0 = attn.pruned (%a = %x : tensor<?x4xf32>) -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"none", {}>} {
    %1 = nn.tanh %a : (tensor<?x4xf32>) -> tensor<?x4xf32>
    attn.yield %1 : tensor<?x4xf32>
  }
  func.return
}

// -----

// CHECK: attn.pruned has no result: an attention puts out something
func.func @f() {
  attn.pruned () -> () attributes {rule = #attn.rule<"none", {}>} {
    attn.yield
  }
  func.return
}

// -----

// CHECK: property 'rule' expected
func.func @f(%x: tensor<?x4xf32>) {
  %0 = attn.pruned (%a = %x : tensor<?x4xf32>) -> (tensor<?x4xf32>) {
    attn.yield %a : tensor<?x4xf32>
  }
  func.return
}

// -----

// CHECK: attn.split reads a value from outside of attn.pruned
func.func @f(%x: tensor<?x4xf32>) {
  %0 = attn.pruned () -> (tensor<?x4xf32>) attributes {rule = #attn.rule<"none", {}>} {
    %1, %2 = attn.split %x : (tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
    attn.yield %1 : tensor<?x4xf32>
  }
  func.return
}

// -----

// CHECK: yielded types (tensor<?x4xf32>) do not match results (tensor<?x5xf32>)
func.func @f(%x: tensor<?x4xf32>) {
  %0 = attn.pruned (%a = %x : tensor<?x4xf32>) -> (tensor<?x5xf32>) attributes {rule = #attn.rule<"none", {}>} {
    attn.yield %a : tensor<?x4xf32>
  }
  func.return
}
