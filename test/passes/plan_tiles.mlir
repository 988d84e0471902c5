// RUN: heatc-opt %s --split-input-file --verify-diagnostics -p plan-tiles --hw hdp-edge | filecheck %s

// A linear of packed tokens, planned for a multiple of 128 of them.

func.func @main(%mask: tensor<1x30xi64>, %x: tensor<?x384x!fixed.q<16, 11>>) -> tensor<?x384x!fixed.q<16, 9>> {
  %p = attn.packing %mask : (tensor<1x30xi64>) -> !attn.packing<1, 30>
  %w = einsum.weight ["w"] : tensor<384x384x!fixed.q<16, 15>>
  %0 = einsum.contract "ti,oi->to" %x, %w : (tensor<?x384x!fixed.q<16, 11>>, tensor<384x384x!fixed.q<16, 15>>) -> tensor<?x384x!fixed.q<48, 26>>
  %y = fixed.requantize %0 : tensor<?x384x!fixed.q<48, 26>> to tensor<?x384x!fixed.q<16, 9>>
  func.return %y : tensor<?x384x!fixed.q<16, 9>>
}

// CHECK: %y = fixed.requantize %0 {plan = #hdp.linear_plan<rows = 128, columns = 48, slab = 77, slots = 2, cores = 8>}

// -----

// The result of a linear lies in panels where the host works on it before the next linear.

func.func @main(%mask: tensor<1x128xi64>, %x: tensor<?x384x!fixed.q<16, 11>>) -> tensor<?x384x!fixed.q<16, 9>> {
  %p = attn.packing %mask : (tensor<1x128xi64>) -> !attn.packing<1, 128>
  %w = einsum.weight ["w"] : tensor<1536x384x!fixed.q<16, 15>>
  %0 = einsum.contract "ti,oi->to" %x, %w : (tensor<?x384x!fixed.q<16, 11>>, tensor<1536x384x!fixed.q<16, 15>>) -> tensor<?x1536x!fixed.q<48, 26>>
  %y = fixed.requantize %0 : tensor<?x1536x!fixed.q<48, 26>> to tensor<?x1536x!fixed.q<16, 9>>
  %g = host.task (%a = %y : tensor<?x1536x!fixed.q<16, 9>>) -> (tensor<?x1536x!fixed.q<16, 9>>) {
    %b = fixed.dequantize %a : tensor<?x1536x!fixed.q<16, 9>> to tensor<?x1536xf64>
    %c = nn.gelu %b {approximate = "none"} : (tensor<?x1536xf64>) -> tensor<?x1536xf64>
    %d = fixed.quantize %c : tensor<?x1536xf64> to tensor<?x1536x!fixed.q<16, 9>>
    host.yield %d : tensor<?x1536x!fixed.q<16, 9>>
  }
  %v = einsum.weight ["v"] : tensor<384x1536x!fixed.q<16, 15>>
  %1 = einsum.contract "ti,oi->to" %g, %v : (tensor<?x1536x!fixed.q<16, 9>>, tensor<384x1536x!fixed.q<16, 15>>) -> tensor<?x384x!fixed.q<48, 24>>
  %z = fixed.requantize %1 : tensor<?x384x!fixed.q<48, 24>> to tensor<?x384x!fixed.q<16, 9>>
  func.return %z : tensor<?x384x!fixed.q<16, 9>>
}

// CHECK: %y = fixed.requantize %0 {plan = #hdp.linear_plan<rows = 128, columns = 48, slab = 77, slots = 2, cores = 8, panels = 4>}
// CHECK: %z = fixed.requantize %1 {plan = #hdp.linear_plan<rows = 128, columns = 16, slab = 384, slots = 2, cores = 8>}

// -----

// A group of fused steps goes through the chip tile by tile; weights that fit are held for all tiles.

func.func @main(%mask: tensor<1x128xi64>, %x: tensor<?x384x!fixed.q<16, 11>>) -> tensor<?x384x!fixed.q<16, 9>> {
  %p = attn.packing %mask : (tensor<1x128xi64>) -> !attn.packing<1, 128>
  %w = einsum.weight ["w"] : tensor<32x384x!fixed.q<16, 15>>
  %0 = einsum.contract "ti,oi->to" %x, %w {fuse = #einsum.fuse<tokens = 32>} : (tensor<?x384x!fixed.q<16, 11>>, tensor<32x384x!fixed.q<16, 15>>) -> tensor<?x32x!fixed.q<48, 26>>
  %y = fixed.requantize %0 : tensor<?x32x!fixed.q<48, 26>> to tensor<?x32x!fixed.q<16, 9>>
  %v = einsum.weight ["v"] : tensor<384x32x!fixed.q<16, 15>>
  %1 = einsum.contract "ti,oi->to" %y, %v : (tensor<?x32x!fixed.q<16, 9>>, tensor<384x32x!fixed.q<16, 15>>) -> tensor<?x384x!fixed.q<48, 24>>
  %z = fixed.requantize %1 : tensor<?x384x!fixed.q<48, 24>> to tensor<?x384x!fixed.q<16, 9>>
  func.return %z : tensor<?x384x!fixed.q<16, 9>>
}

// CHECK: %y = fixed.requantize %0 {plan = #hdp.linear_plan<rows = 32, columns = 16, slab = 192, slots = 2, cores = 8, parts = 4, tokens = 32, held>}
// CHECK: %z = fixed.requantize %1 {plan = #hdp.linear_plan<rows = 128, columns = 48, slab = 16, slots = 2, cores = 8, tokens = 32, held>}

// -----

// An attention: all cores share a head, whose keys lie in the shared buffer.

func.func @main(%mask: tensor<1x128xi64>, %q: tensor<?x384x!fixed.q<16, 11>>, %k: tensor<?x384x!fixed.q<16, 11>>, %v: tensor<?x384x!fixed.q<16, 11>>) -> tensor<?x384x!fixed.q<16, 11>> {
  %p = attn.packing %mask : (tensor<1x128xi64>) -> !attn.packing<1, 128>
  %o = attn.pruned (%q_1 = %q : tensor<?x384x!fixed.q<16, 11>>, %k_1 = %k : tensor<?x384x!fixed.q<16, 11>>, %p_1 = %p : !attn.packing<1, 128>, %v_1 = %v : tensor<?x384x!fixed.q<16, 11>>) -> (tensor<?x384x!fixed.q<16, 11>>) attributes {rule = #attn.rule<"none", {}>} {
    %s = attn.scores %q_1, %k_1, %p_1 {heads = 12 : i64} : (tensor<?x384x!fixed.q<16, 11>>, tensor<?x384x!fixed.q<16, 11>>, !attn.packing<1, 128>) -> tensor<1x12x128x128x!fixed.q<32, 22>>
    %pr = attn.softmax %s, %p_1 {scale = 0.17677669529663687 : f64} : (tensor<1x12x128x128x!fixed.q<32, 22>>, !attn.packing<1, 128>) -> tensor<1x12x128x128x!fixed.q<16, 14>>
    %o_1 = attn.weighted_values %pr, %v_1, %p_1 {heads = 12 : i64} : (tensor<1x12x128x128x!fixed.q<16, 14>>, tensor<?x384x!fixed.q<16, 11>>, !attn.packing<1, 128>) -> tensor<?x384x!fixed.q<16, 11>>
    attn.yield %o_1 : tensor<?x384x!fixed.q<16, 11>>
  }
  func.return %o : tensor<?x384x!fixed.q<16, 11>>
}

// CHECK: %o = attn.pruned {{.*}} attributes {rule = #attn.rule<"none", {}>, plan = #hdp.attention_plan<length = 128, cores = 8, parts = 8, rows = 16, keys = 128, slots = 2, shared>} {

// -----

func.func @main(%x: tensor<?x384x!fixed.q<16, 11>>) -> tensor<?x384x!fixed.q<16, 9>> {
  %w = einsum.weight ["w"] : tensor<384x384x!fixed.q<16, 15>>
  %0 = einsum.contract "ti,oi->to" %x, %w : (tensor<?x384x!fixed.q<16, 11>>, tensor<384x384x!fixed.q<16, 15>>) -> tensor<?x384x!fixed.q<48, 26>>
  %y = fixed.requantize %0 : tensor<?x384x!fixed.q<48, 26>> to tensor<?x384x!fixed.q<16, 9>>
  func.return %y : tensor<?x384x!fixed.q<16, 9>>
}

// CHECK: packed tokens without an attn.packing
