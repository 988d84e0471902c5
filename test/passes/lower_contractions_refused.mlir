// RUN: not heatc-opt %s -p lower-contractions 2>&1 | filecheck %s
// RUN: not heatc-opt %s -p order-contractions{objective=edp} 2>&1 | filecheck %s --check-prefix=EDP
// RUN: not heatc-opt %s -p heat-decompose{ratio=0.5} 2>&1 | filecheck %s --check-prefix=WEIGHTS
// RUN: not heatc-opt %s -p 'heat-decompose{ratio=0.5 rank=2}' 2>&1 | filecheck %s --check-prefix=BOTH
// RUN: not heatc-opt %s -p 'heat-decompose{ratio=1.5 init=plain}' 2>&1 | filecheck %s --check-prefix=RATIO

// EDP: objective 'edp' needs a machine: give --hw
// WEIGHTS: init=activation needs calibration inputs
// BOTH: heat-decompose takes a rank or a ratio, one of both
// RATIO: ratio 1.5 is outside (0, 1]

// A contraction without a path is not lowered: which steps it takes is order-contractions' choice.

// CHECK: a contraction of 3 operands has no path
func.func @f(%x: tensor<?x8xf32>) -> tensor<?x6xf32> {
  %a = einsum.weight ["d.0"] : tensor<2x8xf32>
  %b = einsum.weight ["d.1"] : tensor<6x2xf32>
  %y = einsum.contract "ta,Aa,mA->tm" %x, %a, %b : (tensor<?x8xf32>, tensor<2x8xf32>, tensor<6x2xf32>) -> tensor<?x6xf32>
  func.return %y : tensor<?x6xf32>
}
