// RUN: heatc-opt %s -p lower-to-hdp | filecheck %s

// Steps and addends are immediates; a carried value is a register that moves.

func.func @main() {
  %c0 = arith.constant 0 : index
  %c32 = arith.constant 32 : index
  %cm32 = arith.constant -32 : index
  %c96 = arith.constant 96 : index
  %c64 = arith.constant 64 : index
  %length = hdp.special length : index
  %x = hdp.tensor "x" input dram i16 [96, 64] rows %length : index
  %t = hdp.tile "t" local i16 1024
  %rest = arith.addi %length, %cm32 : index
  %rows = hdp.span %length, %c0, limit = 96, scale = 4 : index, index, index
  %y = hdp.alias %x [96, 64] rows %rows : index
  hdp.st %y, %t, %c0, %c0, core_rows = 0, core_cols = 0, leave = 0 : index, index
  %end = scf.for %i = %c0 to %c96 step %c32 iter_args(%column = %c0) -> (index) {
    scf.for %j = %c0 to %rest step %c32 {
      %key = arith.addi %j, %c32 : index
      hdp.ld %t, %x, %key, %column, rows = 8, cols = 64, core_rows = 0, core_cols = 64 : index, index
    }
    %next = arith.addi %column, %c64 : index
    scf.yield %next : index
  }
  hdp.halt
  func.return
}

// CHECK-LABEL: func.func @main
// CHECK: %zero = hdp.special zero : !hdp.reg<0>
// CHECK-NEXT: %c96 = hdp.li imm = 96 : !hdp.reg<1>
// CHECK-NEXT: %length = hdp.special length : !hdp.reg<60>
// CHECK-NEXT: %x = hdp.tensor "x" input dram i16 [96, 64] rows %length : !hdp.reg<60>
// CHECK-NEXT: %t = hdp.tile "t" local i16 1024
// CHECK-NEXT: %rest = hdp.addi %length, imm = -32 : !hdp.reg<60>, !hdp.reg<2>
// CHECK-NEXT: %rows = hdp.span %length, %zero, limit = 96, scale = 4 : !hdp.reg<60>, !hdp.reg<0>, !hdp.reg<3>
// CHECK-NEXT: %y = hdp.alias %x [96, 64] rows %rows : !hdp.reg<3>
// CHECK-NEXT: hdp.st %y
// CHECK-NEXT: %0 = hdp.addi %zero, imm = 0 : !hdp.reg<0>, !hdp.reg<4>
// CHECK-NEXT: hdp.loop %i : !hdp.reg<3> = 0 to %c96 : !hdp.reg<1> step 32 {
// CHECK-NEXT: hdp.loop %j : !hdp.reg<5> = 0 to %rest : !hdp.reg<2> step 32 {
// CHECK-NEXT: %key = hdp.addi %j, imm = 32 : !hdp.reg<5>, !hdp.reg<6>
// CHECK-NEXT: hdp.ld %t, %x, %key, %0, rows = 8, cols = 64, core_rows = 0, core_cols = 64 : !hdp.reg<6>, !hdp.reg<4>
// CHECK-NEXT: }
// CHECK-NEXT: %next = hdp.addi %0, imm = 64 : !hdp.reg<4>, !hdp.reg<4>
// CHECK-NEXT: }
// CHECK-NEXT: hdp.halt
// CHECK-NEXT: func.return
// CHECK-NEXT: }

// A carried value may start anywhere: its start is read from a register.

func.func @start() {
  %c0 = arith.constant 0 : index
  %c8 = arith.constant 8 : index
  %c16 = arith.constant 16 : index
  %length = hdp.special length : index
  %x = hdp.tensor "x" input dram i16 [96, 64] rows %length : index
  %t = hdp.tile "t" local i16 1024
  %end = scf.for %i = %c0 to %length step %c8 iter_args(%column = %c16) -> (index) {
    hdp.ld %t, %x, %i, %column, rows = 8, cols = 8, core_rows = 0, core_cols = 8 : index, index
    %next = arith.addi %column, %c8 : index
    scf.yield %next : index
  }
  hdp.halt
  func.return
}

// CHECK-LABEL: func.func @start
// CHECK: %c16 = hdp.li imm = 16 : !hdp.reg<1>
// CHECK: [[COLUMN:%[0-9]+]] = hdp.addi %c16, imm = 0 : !hdp.reg<1>, !hdp.reg<3>
// CHECK-NEXT: hdp.loop %i : !hdp.reg<2> = 0 to %length : !hdp.reg<60> step 8 {
// CHECK-NEXT: hdp.ld %t, %x, %i, [[COLUMN]], rows = 8
// CHECK-NEXT: %next = hdp.addi [[COLUMN]], imm = 8 : !hdp.reg<3>, !hdp.reg<3>
// CHECK-NEXT: }
// CHECK-NEXT: hdp.halt
// CHECK-NEXT: func.return
// CHECK-NEXT: }
// CHECK-NEXT: }

// CHECK-NOT: scf
