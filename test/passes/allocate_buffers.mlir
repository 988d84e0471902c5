// RUN: heatc-opt %s -p allocate-buffers --hw hdp-edge | filecheck %s

// Weights come first, the widest elements in front, then tensors by page. `out` lies where `in` lay.

func.func @main() attributes {heatc.inputs = ["x"], heatc.outputs = ["y"]} {
  %zero = hdp.special zero : !hdp.reg<0>
  %c64 = hdp.li imm = 64 : !hdp.reg<1>
  %x = hdp.tensor "x" input dram i16 [64, 16] {ports = ["x"], shape = array<i64: 64, 16>}
  %w = hdp.tensor "w" weight dram i16 [16, 16] {names = ["w"], shape = array<i64: 16, 16>}
  %g = hdp.tensor "gamma" weight dram f32 [1, 16] {names = ["g"], shape = array<i64: 16>}
  %a = hdp.tensor "a" activation dram i16 [64, 16]
  %b = hdp.tensor "b" activation dram i16 [64, 16]
  %y = hdp.tensor "y" output dram i16 [64, 16] {ports = ["y"], shape = array<i64: 64, 16>}
  %kept = hdp.tile "kept" local i16 512
  hdp.ld %kept, %w, %zero, %zero, rows = 16, cols = 16, core_rows = 0, core_cols = 0 : !hdp.reg<0>, !hdp.reg<0>
  hdp.loop %i : !hdp.reg<2> = 0 to %c64 : !hdp.reg<1> step 16 {
    %in = hdp.tile "in" local i16 512
    %acc = hdp.tile "acc" local acc 1536
    %out = hdp.tile "out" local i16 512
    hdp.ld %in, %x, %i, %zero, rows = 16, cols = 16, core_rows = 0, core_cols = 0 : !hdp.reg<2>, !hdp.reg<0>
    hdp.mm %acc, %in, %kept, first = 1, b_transposed = 1
    hdp.drain %out, %acc, %acc, has_bias = 0, bias_shift = 0, shift = 4
    hdp.st %a, %out, %i, %zero, core_rows = 0, core_cols = 0, leave = 0 : !hdp.reg<2>, !hdp.reg<0>
  }
  hdp.hget %a, %zero, h = 0, rows = 64, point = 4 : !hdp.reg<0>
  hdp.hln %g, %g, h = 0, eps = 1.0e-12
  hdp.hput %b, %zero, h = 0, point = 4 : !hdp.reg<0>
  hdp.hget %b, %zero, h = 1, rows = 64, point = 4 : !hdp.reg<0>
  hdp.hput %y, %zero, h = 1, point = 4 : !hdp.reg<0>
  hdp.halt
  func.return
}

// CHECK-LABEL: func.func @main
// CHECK: %x = hdp.tensor "x" input dram i16 [64, 16] {ports = ["x"], shape = array<i64: 64, 16>, number = 0 : i64, base = 4096 : i64}
// CHECK-NEXT: %w = hdp.tensor "w" weight dram i16 [16, 16] {names = ["w"], shape = array<i64: 16, 16>, number = 1 : i64, base = 64 : i64}
// CHECK-NEXT: %g = hdp.tensor "gamma" weight dram f32 [1, 16] {names = ["g"], shape = array<i64: 16>, number = 2 : i64, base = 0 : i64}
// CHECK-NEXT: %a = hdp.tensor "a" activation dram i16 [64, 16] {number = 3 : i64, base = 8192 : i64}
// CHECK-NEXT: %b = hdp.tensor "b" activation dram i16 [64, 16] {number = 4 : i64, base = 8192 : i64}
// CHECK-NEXT: %y = hdp.tensor "y" output dram i16 [64, 16] {ports = ["y"], shape = array<i64: 64, 16>, number = 5 : i64, base = 12288 : i64}
// CHECK-NEXT: %kept = hdp.tile "kept" local i16 512 {number = 0 : i64, address = 1536 : i64}
// CHECK: %in = hdp.tile "in" local i16 512 {number = 1 : i64, address = 2048 : i64}
// CHECK-NEXT: %acc = hdp.tile "acc" local acc 1536 {number = 2 : i64, address = 0 : i64}
// CHECK-NEXT: %out = hdp.tile "out" local i16 512 {number = 3 : i64, address = 2048 : i64}
