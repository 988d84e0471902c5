// RUN: heatc-opt %s -p fuse-einsums | filecheck %s
// RUN: heatc-opt %s -p 'fuse-einsums{cache=768}' | filecheck %s --check-prefix=SMALL
// RUN: heatc-opt %s -p 'fuse-einsums{cache=255}' | filecheck %s --check-prefix=NONE
// RUN: heatc-opt %s -p 'fuse-einsums{tokens=4096}' --hw hdp-edge | filecheck %s --check-prefix=EDGE

// Low-rank, counted for 128 tokens. A token's result takes 2 values of 4 bytes: 96 tokens fit 768
// bytes, 32 do not fit 255. Of the machine's shared buffer (1 MiB) a token takes 8 codes of 2 bytes
// and two results of 2 codes, 24 bytes.

// CHECK-LABEL: func.func @low_rank
// CHECK:         einsum.contract "ta,Aa->tA" %x, %a {fuse = #einsum.fuse<tokens = 128>}
// CHECK-NEXT:    einsum.contract "tA,mA->tm" %h, %b :
// SMALL-LABEL: func.func @low_rank
// SMALL:         einsum.contract "ta,Aa->tA" %x, %a {fuse = #einsum.fuse<tokens = 96>}
// NONE-LABEL:  func.func @low_rank
// NONE-NOT:      fuse
// NONE:          func.return
// EDGE-LABEL:  func.func @low_rank
// EDGE:          einsum.contract "ta,Aa->tA" %x, %a {fuse = #einsum.fuse<tokens = 4096>}
func.func @low_rank(%x: tensor<?x8xf32>) -> tensor<?x6xf32> {
  %a = einsum.weight ["d.0"] : tensor<2x8xf32>
  %b = einsum.weight ["d.1"] : tensor<6x2xf32>
  %h = einsum.contract "ta,Aa->tA" %x, %a : (tensor<?x8xf32>, tensor<2x8xf32>) -> tensor<?x2xf32>
  %y = einsum.contract "tA,mA->tm" %h, %b : (tensor<?x2xf32>, tensor<6x2xf32>) -> tensor<?x6xf32>
  func.return %y : tensor<?x6xf32>
}

// Two tiles of 256 codes for each of 1008 tokens are what the machine's shared buffer has room for.

// EDGE-LABEL:  func.func @wide
// EDGE:          {fuse = #einsum.fuse<tokens = 1008>}
func.func @wide(%x: tensor<?x8xf32>, %a: tensor<256x8xf32>, %b: tensor<6x256xf32>) -> tensor<?x6xf32> {
  %h = einsum.contract "ta,Aa->tA" %x, %a : (tensor<?x8xf32>, tensor<256x8xf32>) -> tensor<?x256xf32>
  %y = einsum.contract "tA,mA->tm" %h, %b : (tensor<?x256xf32>, tensor<6x256xf32>) -> tensor<?x6xf32>
  func.return %y : tensor<?x6xf32>
}

// Two tiles would read 1216 weights twice, to save the way out and back of 2 values for 128 tokens.

// CHECK-LABEL: func.func @heavy
// CHECK:         {fuse = #einsum.fuse<tokens = 128>}
// SMALL-LABEL: func.func @heavy
// SMALL-NOT:     fuse
// SMALL:         func.return
func.func @heavy(%x: tensor<?x8xf32>, %a: tensor<2x8xf32>, %b: tensor<600x2xf32>) -> tensor<?x600xf32> {
  %h = einsum.contract "ta,Aa->tA" %x, %a : (tensor<?x8xf32>, tensor<2x8xf32>) -> tensor<?x2xf32>
  %y = einsum.contract "tA,mA->tm" %h, %b : (tensor<?x2xf32>, tensor<600x2xf32>) -> tensor<?x600xf32>
  func.return %y : tensor<?x600xf32>
}

// No tile of the wide result fits; the one before it stays on the chip: a group and two steps alone.

// CHECK-LABEL: func.func @train
// CHECK-COUNT-3: {fuse = #einsum.fuse<tokens = 128>}
// SMALL-LABEL: func.func @train
// SMALL:         %p = einsum.contract "tab,aA->tAb" %s, %a {fuse = #einsum.fuse<tokens = 32>}
// SMALL:         %q = einsum.contract "tc,dc->td" %pr, %b :
// SMALL:         %u = einsum.contract "td,ed->te" %q, %c :
// SMALL:         %y = einsum.contract "te,ye->ty" %u, %d :
func.func @train(%x: tensor<?x4xf32>, %a: tensor<2x2xf32>, %b: tensor<4x4xf32>, %c: tensor<40x4xf32>, %d: tensor<3x40xf32>) -> tensor<?x3xf32> {
  %s = nn.reshape %x : (tensor<?x4xf32>) -> tensor<?x2x2xf32>
  %p = einsum.contract "tab,aA->tAb" %s, %a : (tensor<?x2x2xf32>, tensor<2x2xf32>) -> tensor<?x2x2xf32>
  %pr = nn.reshape %p : (tensor<?x2x2xf32>) -> tensor<?x4xf32>
  %q = einsum.contract "tc,dc->td" %pr, %b : (tensor<?x4xf32>, tensor<4x4xf32>) -> tensor<?x4xf32>
  %u = einsum.contract "td,ed->te" %q, %c : (tensor<?x4xf32>, tensor<40x4xf32>) -> tensor<?x40xf32>
  %y = einsum.contract "te,ye->ty" %u, %d : (tensor<?x40xf32>, tensor<3x40xf32>) -> tensor<?x3xf32>
  func.return %y : tensor<?x3xf32>
}

// A weight with a surviving index (CP's shared rank) is a product on the processor, not on the machine.

// CHECK-LABEL: func.func @shared
// CHECK:         %p = einsum.contract "tRa,Ra->tR" %x, %a {fuse = #einsum.fuse<tokens = 128>}
// EDGE-LABEL:  func.func @shared
// EDGE-NOT:      fuse
// EDGE:          func.return
func.func @shared(%x: tensor<?x4x8xf32>, %a: tensor<4x8xf32>, %b: tensor<3x4xf32>) -> tensor<?x3xf32> {
  %p = einsum.contract "tRa,Ra->tR" %x, %a : (tensor<?x4x8xf32>, tensor<4x8xf32>) -> tensor<?x4xf32>
  %y = einsum.contract "tR,mR->tm" %p, %b : (tensor<?x4xf32>, tensor<3x4xf32>) -> tensor<?x3xf32>
  func.return %y : tensor<?x3xf32>
}

// Left alone: a result that something else reads, one that an op stands behind, and layers of their own.

// CHECK-LABEL: func.func @no_chain
// CHECK-NOT:     fuse
// CHECK:         func.return
func.func @no_chain(%x: tensor<?x8xf32>, %a: tensor<8x8xf32>) -> (tensor<?x8xf32>, tensor<?x8xf32>) {
  %p = einsum.contract "ta,Aa->tA" %x, %a : (tensor<?x8xf32>, tensor<8x8xf32>) -> tensor<?x8xf32>
  %q = einsum.contract "ta,Aa->tA" %p, %a : (tensor<?x8xf32>, tensor<8x8xf32>) -> tensor<?x8xf32>
  %g = nn.gelu %q {approximate = "none"} : (tensor<?x8xf32>) -> tensor<?x8xf32>
  %r = einsum.contract "ta,Aa->tA" %g, %a {decomposition = #einsum.decomposition<"low-rank", "8|8", [8], 0.0>} : (tensor<?x8xf32>, tensor<8x8xf32>) -> tensor<?x8xf32>
  %s = einsum.contract "ta,Aa->tA" %r, %a : (tensor<?x8xf32>, tensor<8x8xf32>) -> tensor<?x8xf32>
  func.return %p, %s : tensor<?x8xf32>, tensor<?x8xf32>
}
