// RUN: python %S/Inputs/constant_weights.py %t.safetensors
// RUN: heatc-opt %s --split-input-file -p fold-constants --weights %t.safetensors | filecheck %s

/// A weight times its mask is the weight of its layer.

// CHECK-LABEL: func.func @pruned
// CHECK-NEXT:    %[[W:.*]] = einsum.weight ["f.weight"] : tensor<3x4xf32>
// CHECK-NEXT:    nn.linear %x, %[[W]]
func.func @pruned(%x: tensor<5x4xf32>) -> tensor<5x3xf32> {
  %a = einsum.weight ["f.weight_orig"] : tensor<3x4xf32>
  %m = einsum.weight ["f.weight_mask"] : tensor<3x4xf32>
  %w = nn.mul %a, %m : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %y = nn.linear %x, %w : (tensor<5x4xf32>, tensor<3x4xf32>) -> tensor<5x3xf32> loc("f"("m.py":1:0))
  func.return %y : tensor<5x3xf32>
}

// -----

/// A low-rank update is added; a name that is taken gets the shape.

// CHECK-LABEL: func.func @updated
// CHECK-NEXT:    %[[W:.*]] = einsum.weight ["g.weight:3x4"] : tensor<3x4xf32>
// CHECK-NEXT:    nn.linear %x, %[[W]]
func.func @updated(%x: tensor<5x4xf32>) -> tensor<5x3xf32> {
  %w = einsum.weight ["g.weight"] : tensor<3x4xf32>
  %a = einsum.weight ["g.a"] : tensor<2x4xf32>
  %b = einsum.weight ["g.b"] : tensor<3x2xf32>
  %u = nn.matmul %b, %a : (tensor<3x2xf32>, tensor<2x4xf32>) -> tensor<3x4xf32>
  %s = nn.add %w, %u : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %y = nn.linear %x, %s : (tensor<5x4xf32>, tensor<3x4xf32>) -> tensor<5x3xf32> loc("g"("m.py":1:0))
  func.return %y : tensor<5x3xf32>
}

// -----

/// A weight that is only transposed keeps its name.

// CHECK-LABEL: func.func @turned
// CHECK-NEXT:    %[[W:.*]] = einsum.weight ["g.weight"] {permutation = array<i64: 1, 0>} : tensor<4x3xf32>
// CHECK-NEXT:    nn.matmul %x, %[[W]]
func.func @turned(%x: tensor<5x4xf32>) -> tensor<5x3xf32> {
  %w = einsum.weight ["g.weight"] : tensor<3x4xf32>
  %t = nn.transpose %w {permutation = array<i64: 1, 0>} : (tensor<3x4xf32>) -> tensor<4x3xf32>
  %y = nn.matmul %x, %t : (tensor<5x4xf32>, tensor<4x3xf32>) -> tensor<5x3xf32>
  func.return %y : tensor<5x3xf32>
}

// -----

/// A table that computed places index is a weight, a table of positions stays a table.

// CHECK-LABEL: func.func @tables
// CHECK:         %[[B:.*]] = einsum.weight ["bias.table:4x4x2"] : tensor<4x4x2xf32>
// CHECK-NOT:     nn.map
// CHECK:         %[[P:.*]] = nn.embedding
// CHECK-NEXT:    func.return %[[B]], %[[P]]
func.func @tables() -> (tensor<4x4x2xf32>, tensor<4x4xf32>) {
  %table = einsum.weight ["bias.table"] : tensor<8x2xf32>
  %i = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<4xi64>
  %column = nn.reshape %i : (tensor<4xi64>) -> tensor<4x1xi64>
  %d = nn.sub %i, %column : (tensor<4xi64>, tensor<4x1xi64>) -> tensor<4x4xi64>
  %places = nn.map %d {function = "abs"} : (tensor<4x4xi64>) -> tensor<4x4xi64>
  %bias = nn.embedding %table, %places : (tensor<8x2xf32>, tensor<4x4xi64>) -> tensor<4x4x2xf32>
  %words = einsum.weight ["words.weight"] : tensor<30x4xf32>
  %p = nn.embedding %words, %i : (tensor<30x4xf32>, tensor<4xi64>) -> tensor<4x4xf32>
  func.return %bias, %p : tensor<4x4x2xf32>, tensor<4x4xf32>
}

// -----

/// Sinusoids are a weight; what repeats them stays; one number stays a number.

// CHECK-LABEL: func.func @sinusoids
// CHECK-NEXT:    %[[S:.*]] = einsum.weight ["rotary.constant"] : tensor<4xf32>
// CHECK-NEXT:    %[[E:.*]] = nn.expand %[[S]]
// CHECK-NEXT:    %[[R:.*]] = nn.full {value = 2.000000e+00 : f64} : tensor<f32>
// CHECK-NEXT:    nn.mul %x, %[[E]]
// CHECK-NEXT:    nn.mul %{{.*}}, %[[R]]
func.func @sinusoids(%x: tensor<9x4xf32>) -> tensor<9x4xf32> {
  %i = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<4xi64>
  %f = nn.cast %i : (tensor<4xi64>) -> tensor<4xf32>
  %s = nn.map %f {function = "sin"} : (tensor<4xf32>) -> tensor<4xf32> loc("rotary"("m.py":1:0))
  %e = nn.expand %s : (tensor<4xf32>) -> tensor<9x4xf32>
  %four = nn.full {value = 4.0 : f64} : tensor<f32>
  %two = nn.map %four {function = "sqrt"} : (tensor<f32>) -> tensor<f32>
  %y = nn.mul %x, %e : (tensor<9x4xf32>, tensor<9x4xf32>) -> tensor<9x4xf32>
  %z = nn.mul %y, %two : (tensor<9x4xf32>, tensor<f32>) -> tensor<9x4xf32>
  func.return %z : tensor<9x4xf32>
}

// -----

/// Masks stay as they are written: later passes look into them.

// CHECK-LABEL: func.func @mask
// CHECK:         nn.compare
// CHECK:         nn.where
// CHECK-NEXT:    nn.add %x
func.func @mask(%x: tensor<4x4xf32>) -> tensor<4x4xf32> {
  %i = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<4xi64>
  %column = nn.reshape %i : (tensor<4xi64>) -> tensor<4x1xi64>
  %m = nn.compare %column, %i {predicate = "ge"} : (tensor<4x1xi64>, tensor<4xi64>) -> tensor<4x4xi1>
  %zero = nn.full {value = 0.0 : f64} : tensor<f32>
  %low = nn.full {value = -1.0e+09 : f64} : tensor<f32>
  %w = nn.where %m, %zero, %low : (tensor<4x4xi1>, tensor<f32>, tensor<f32>) -> tensor<4x4xf32>
  %y = nn.add %x, %w : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  func.return %y : tensor<4x4xf32>
}
