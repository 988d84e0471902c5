// RUN: heatc-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// CHECK: unknown role 'wait', expected one of weight, constant, input, output, activation
%0 = hdp.tensor "x" wait dram i16 [4, 4]

// -----

// CHECK: unknown space 'local', expected one of dram, shared
%0 = hdp.tensor "x" activation local i16 [4, 4]

// -----

// CHECK: unknown dtype 'acc', expected one of i8, i16, i32, i64, f32
%0 = hdp.tensor "x" activation dram acc [4, 4]

// -----

// CHECK: cols 1048576 is outside 1..1048575
%0 = hdp.tensor "x" activation dram i16 [4, 1048576]

// -----

// CHECK: truth values are i8, got i16
%0 = hdp.tensor "x" input dram i16 [4, 4] {truth}

// -----

// CHECK: number 1024 is outside 0..1023
%0 = hdp.tensor "x" activation dram i16 [4, 4] {number = 1024 : i64}

// -----

// CHECK: unknown space 'dram', expected one of shared, local
%0 = hdp.tile "t" dram i16 64

// -----

// CHECK: bytes 0 is outside 1..4294967295
%0 = hdp.tile "t" local i16 0

// -----

// CHECK: register 64 is outside 0..63
%0 = hdp.li imm = 1 : !hdp.reg<64>

// -----

// CHECK: unknown register 'rows', expected one of zero, tokens, batch, start, length
%0 = hdp.special rows : index

// -----

// CHECK: tokens is register 63, got 62
%0 = hdp.special tokens : !hdp.reg<62>

// -----

// CHECK: shift 128 is outside -128..127
%t = hdp.tile "t" local i16 64
hdp.drain %t, %t, %t, has_bias = 0, bias_shift = 0, shift = 128

// -----

// CHECK: keep 4096 is outside 0..4095
%t = hdp.tile "t" local i64 64
hdp.cascade %t, keep = 4096

// -----

// CHECK: shift 64 is outside 0..63
%t = hdp.tile "t" local i64 64
%r = hdp.special zero : !hdp.reg<0>
hdp.tally %t, %t, %t, %r, first = 1, shift = 64 : !hdp.reg<0>

// -----

// CHECK: cols 65536 is outside 0..65535
%w = hdp.tensor "w" activation dram i16 [4, 4]
%r = hdp.special zero : !hdp.reg<0>
hdp.stzero %w, %r, %r, cols = 65536, core_cols = 0 : !hdp.reg<0>, !hdp.reg<0>

// -----

// CHECK: unknown pruned 'one', expected one of zero, neginf, int, mean
%t = hdp.tile "t" local i16 64
%r = hdp.special zero : !hdp.reg<0>
hdp.add %t, %t, %t, %t, %t, %r, %r, %t, pruned = one, point_q = 0, point_k = 0, point_s = 0, constant = 0, hides = 0 : !hdp.reg<0>, !hdp.reg<0>

// -----

// CHECK: step 0 is outside 1..1048575
%r = hdp.special tokens : !hdp.reg<63>
hdp.loop %i : !hdp.reg<7> = 0 to %r : !hdp.reg<63> step 0 {
}

// -----

// CHECK: over: 128 local bytes do not fit 64 local bytes
%s = hdp.tile "s" local i16 64
%p = hdp.tile "p" local i16 128 over %s

// -----

// CHECK: over: 64 local bytes do not fit 64 shared bytes
%s = hdp.tile "s" shared i16 64
%p = hdp.tile "p" local i16 64 over %s

// -----

// CHECK: over: expected a tile of its own place in the same block
%s = hdp.tile "s" local i32 64
%p = hdp.tile "p" local i16 32 over %s
%o = hdp.tile "o" local i16 32 over %p

// -----

// CHECK: over: expected a tile of its own place in the same block
%r = hdp.special tokens : index
%c = arith.constant 1 : index
%s = hdp.tile "s" local i32 64
scf.for %i = %r to %r step %c {
  %p = hdp.tile "p" local i16 32 over %s
}

// -----

// CHECK: 8 x 4 elements do not fit 4 x 4
%0 = hdp.tensor "x" activation dram i16 [4, 4]
%1 = hdp.alias %0 [8, 4]

// -----

// CHECK: expected a tensor or an alias of one, which has a place
func.func @f() {
  "cf.br"()[^bb1] : () -> ()
^bb1:
  %1 = hdp.alias %1 [8, 4]
  func.return
}

// -----

// CHECK: expected a tensor or an alias of one, which has a place
%0 = hdp.tensor "x" activation dram i16 [4, 4]
%1 = hdp.special tokens : index
%2 = hdp.window %0, %1, %1 : index, index
%3 = hdp.alias %2 [2, 4]

// -----

// CHECK: rows 128 is outside 0..127
func.func @high_blocks() {
  hdp.blocks rows = 128, columns = 2
  func.return
}

// -----

// CHECK: bits 16 is outside 0..15
func.func @many_bits() {
  %t = hdp.tile "t" local i16 64
  hdp.low %t, %t, %t, bits = 16
  func.return
}

// -----

// CHECK: unknown dtype 'i4', expected one of i8, i16, i32, i64, f32
%0 = hdp.tensor "x" activation dram i4 [4, 4]

// -----

// CHECK: unknown function 'tan', expected one of gelu_tanh, gelu_quick
hdp.hfun h = 1, function = tan

// -----

// CHECK: unknown operation 'xor', expected one of add, sub
hdp.hop h = 1, g = 2, operation = xor

// -----

// CHECK: unknown kind 'argmax', expected one of sum, mean, max, min, any, all, prod
hdp.hredr h = 1, group = 2, kind = argmax

// -----

// CHECK: step -16777217 is outside -16777216..16777215
hdp.hcut h = 1, start = 0, columns = 2, step = -16777217

// -----

// CHECK: integer or float literal expected
hdp.hnum h = 1, rows = 2, columns = 2, value = nan
