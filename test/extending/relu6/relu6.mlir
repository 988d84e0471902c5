func.func @main(%x: tensor<1x4xf32> {heatc.name = "x"}) -> (tensor<1x2xf32> {heatc.name = "y"}) {
  %w = einsum.weight ["w"] : tensor<2x4xf32>
  %h = act.relu6 %x : (tensor<1x4xf32>) -> tensor<1x4xf32>
  %y = nn.linear %h, %w : (tensor<1x4xf32>, tensor<2x4xf32>) -> tensor<1x2xf32>
  func.return %y : tensor<1x2xf32>
}
