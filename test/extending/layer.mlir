func.func @main(%ids: tensor<2x8xi64> {heatc.name = "input_ids"}, %mask: tensor<2x8xi64> {heatc.name = "attention_mask"}) -> (tensor<2x8x16xf32> {heatc.name = "last_hidden_state"}) {
  %words = einsum.weight ["words.weight"] : tensor<32x16xf32>
  %gain = einsum.weight ["norm.weight"] : tensor<16xf32>
  %shift = einsum.weight ["norm.bias"] : tensor<16xf32>
  %wq = einsum.weight ["query.weight"] : tensor<16x16xf32>
  %wk = einsum.weight ["key.weight"] : tensor<16x16xf32>
  %wv = einsum.weight ["value.weight"] : tensor<16x16xf32>
  %up = einsum.weight ["up.weight"] : tensor<32x16xf32>
  %down = einsum.weight ["down.weight"] : tensor<16x32xf32>
  %e = nn.embedding %words, %ids : (tensor<32x16xf32>, tensor<2x8xi64>) -> tensor<2x8x16xf32>
  %x = nn.layer_norm %e, %gain, %shift {eps = 1.0e-6 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
  %q = nn.linear %x, %wq : (tensor<2x8x16xf32>, tensor<16x16xf32>) -> tensor<2x8x16xf32>
  %k = nn.linear %x, %wk : (tensor<2x8x16xf32>, tensor<16x16xf32>) -> tensor<2x8x16xf32>
  %v = nn.linear %x, %wv : (tensor<2x8x16xf32>, tensor<16x16xf32>) -> tensor<2x8x16xf32>
  %keys = nn.reshape %mask : (tensor<2x8xi64>) -> tensor<2x1x1x8xi64>
  %keep = nn.cast %keys : (tensor<2x1x1x8xi64>) -> tensor<2x1x1x8xi1>
  %a = attn.sdpa %q, %k, %v masks %keep : tensor<2x1x1x8xi1> {heads = 2 : i64, scale = 0.35355339059327373 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32> -> tensor<2x8x16xf32>
  %r = nn.add %a, %x : (tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
  %n = nn.layer_norm %r, %gain, %shift {eps = 1.0e-6 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
  %h = nn.linear %n, %up : (tensor<2x8x16xf32>, tensor<32x16xf32>) -> tensor<2x8x32xf32>
  %g = nn.gelu %h {approximate = "none"} : (tensor<2x8x32xf32>) -> tensor<2x8x32xf32>
  %d = nn.linear %g, %down : (tensor<2x8x32xf32>, tensor<16x32xf32>) -> tensor<2x8x16xf32>
  %s = nn.add %d, %n : (tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
  %y = nn.layer_norm %s, %gain, %shift {eps = 1.0e-6 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
  func.return %y : tensor<2x8x16xf32>
}
