// RUN: heatc-opt %s --split-input-file --verify-diagnostics -p 'tile-for-hdp{hw=hdp-edge}' | filecheck %s

// CHECK: integers computed from an input index a table: the machine has no unit for them
func.func @main(%mask: tensor<1x8xi64>, %ids: tensor<1x8xi64>) -> tensor<?x4x!fixed.q<16, 12>> {
  %p = attn.packing %mask : (tensor<1x8xi64>) -> !attn.packing<1, 8>
  %sum = nn.add %ids, %mask : (tensor<1x8xi64>, tensor<1x8xi64>) -> tensor<1x8xi64>
  %rows = attn.pack %sum, %p : (tensor<1x8xi64>, !attn.packing<1, 8>) -> tensor<?xi64>
  %table = einsum.weight ["word.weight"] : tensor<30x4xf32>
  %y = host.task (%t = %table : tensor<30x4xf32>, %i = %rows : tensor<?xi64>) -> (tensor<?x4x!fixed.q<16, 12>>) {
    %0 = nn.embedding %t, %i : (tensor<30x4xf32>, tensor<?xi64>) -> tensor<?x4xf64>
    %1 = fixed.quantize %0 : tensor<?x4xf64> to tensor<?x4x!fixed.q<16, 12>>
    host.yield %1 : tensor<?x4x!fixed.q<16, 12>>
  }
  func.return %y : tensor<?x4x!fixed.q<16, 12>>
}

// -----

// CHECK: nn.gelu is not part of the fixed level; run partition-host and assign-fixed-point first
func.func @main(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %y = nn.gelu %x {approximate = "none"} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}

// -----

// CHECK: nn.gelu of approximation 'tanh' has no host instruction
func.func @main(%x: tensor<4x8x!fixed.q<16, 9>>) -> tensor<4x8xf32> {
  %y = host.task (%a = %x : tensor<4x8x!fixed.q<16, 9>>) -> (tensor<4x8xf32>) {
    %0 = fixed.dequantize %a : tensor<4x8x!fixed.q<16, 9>> to tensor<4x8xf64>
    %1 = nn.gelu %0 {approximate = "tanh"} : (tensor<4x8xf64>) -> tensor<4x8xf64>
    %2 = nn.cast %1 : (tensor<4x8xf64>) -> tensor<4x8xf32>
    host.yield %2 : tensor<4x8xf32>
  }
  func.return %y : tensor<4x8xf32>
}

// -----

// CHECK: input 'input_0' is returned as it is
func.func @main(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  func.return %x : tensor<4x8xf32>
}

// -----

// CHECK: packed tokens without an attn.packing
func.func @main(%x: tensor<?x8x!fixed.q<16, 9>>) -> tensor<?x6x!fixed.q<16, 7>> {
  %w = einsum.weight ["fc.weight"] : tensor<6x8x!fixed.q<16, 15>>
  %0 = einsum.contract "ti,oi->to" %x, %w : (tensor<?x8x!fixed.q<16, 9>>, tensor<6x8x!fixed.q<16, 15>>) -> tensor<?x6x!fixed.q<48, 24>>
  %y = fixed.requantize %0 : tensor<?x6x!fixed.q<48, 24>> to tensor<?x6x!fixed.q<16, 7>>
  func.return %y : tensor<?x6x!fixed.q<16, 7>>
}
