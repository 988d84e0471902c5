// RUN: %roundtrip

// Tensors, tiles and registers are values, immediates are properties.

// CHECK-LABEL: func.func @tiled
func.func @tiled(%row: index) {
  // CHECK: %tokens = hdp.special tokens : index
  %tokens = hdp.special tokens : index
  // CHECK: %w = hdp.tensor "query.weight" weight dram i16 [384, 384] {point = 15 : i64, names = ["a.b"]}
  %w = hdp.tensor "query.weight" weight dram i16 [384, 384] {point = 15 : i64, names = ["a.b"]}
  // CHECK: %mask = hdp.tensor "mask" input dram i8 [128, 1] {ports = ["mask"], truth}
  %mask = hdp.tensor "mask" input dram i8 [128, 1] {ports = ["mask"], truth}
  // CHECK: %x = hdp.tensor "x" activation dram i16 [128, 384] rows %tokens : index {point = 11 : i64}
  %x = hdp.tensor "x" activation dram i16 [128, 384] rows %tokens : index {point = 11 : i64}
  // CHECK: %m = hdp.alias %x [8, 4] rows %tokens : index
  %m = hdp.alias %x [8, 4] rows %tokens : index
  // CHECK: %v = hdp.window %x, %row, %tokens : index, index
  %v = hdp.window %x, %row, %tokens : index, index
  // CHECK: %t = hdp.tile "slab.0" local i16 6144
  %t = hdp.tile "slab.0" local i16 6144
  // CHECK: %acc = hdp.tile "acc" local acc 6144
  %acc = hdp.tile "acc" local acc 6144
  // CHECK: %s = hdp.tile "s" local i32 4096
  %s = hdp.tile "s" local i32 4096
  // CHECK: %p = hdp.tile "p" local i16 2048 over %s
  %p = hdp.tile "p" local i16 2048 over %s
  // CHECK: %e = hdp.tile "e" local i16 4096 over %s {address = 64 : i64, number = 3 : i64}
  %e = hdp.tile "e" local i16 4096 over %s {address = 64 : i64, number = 3 : i64}
  // CHECK: hdp.ld %t, %w, %row, %row, rows = 48, cols = 64, core_rows = 48, core_cols = 0 : index, index
  hdp.ld %t, %w, %row, %row, rows = 48, cols = 64, core_rows = 48, core_cols = 0 : index, index
  // CHECK: hdp.mm %acc, %t, %t, first = 1, b_transposed = 1
  hdp.mm %acc, %t, %t, first = 1, b_transposed = 1
  // CHECK: hdp.mask %t, %acc, %row, rho = -0.5, own = 1 : index
  hdp.mask %t, %acc, %row, rho = -0.5, own = 1 : index
  // CHECK: hdp.topk %t, %acc, %row, density = 0.25 : index
  hdp.topk %t, %acc, %row, density = 0.25 : index
  // CHECK: hdp.add %s, %s, %acc, %acc, %t, %row, %row, %s, pruned = neginf, point_q = 4, point_k = 3, point_s = 5, constant = 1, hides = 0 : index, index
  hdp.add %s, %s, %acc, %acc, %t, %row, %row, %s, pruned = neginf, point_q = 4, point_k = 3, point_s = 5, constant = 1, hides = 0 : index, index
  // CHECK: hdp.pick %acc, %t, %t, %t, %row, %row : index, index
  hdp.pick %acc, %t, %t, %t, %row, %row : index, index
  // CHECK: hdp.drainm %s, %acc, %t, %row, %row, shift = -3 : index, index
  hdp.drainm %s, %acc, %t, %row, %row, shift = -3 : index, index
  // CHECK: hdp.drainp %s, %acc, %acc, %acc, %row, shift = 9 : index
  hdp.drainp %s, %acc, %acc, %acc, %row, shift = 9 : index
  // CHECK: hdp.filter %t, %s, %t, %row, rho = -0.5, has_among = 1 : index
  hdp.filter %t, %s, %t, %row, rho = -0.5, has_among = 1 : index
  // CHECK: hdp.likely %t, %p, %row, code = 32 : index
  hdp.likely %t, %p, %row, code = 32 : index
  // CHECK: hdp.peak %acc, %t, first = 1
  hdp.peak %acc, %t, first = 1
  // CHECK: hdp.low %t, %t, %acc, bits = 4
  hdp.low %t, %t, %acc, bits = 4
  // CHECK: %l = hdp.tile "l" local i4 64
  %l = hdp.tile "l" local i4 64
  // CHECK: hdp.ldm %t, %v, %row, %row, %t, rows = 2, cols = 2, core_rows = 0, core_cols = 2, axis = key : index, index
  hdp.ldm %t, %v, %row, %row, %t, rows = 2, cols = 2, core_rows = 0, core_cols = 2, axis = key : index, index
  // CHECK: hdp.hln %w, %w, h = 1, eps = 1.0e-12
  hdp.hln %w, %w, h = 1, eps = 1.0e-12
  func.return
}

// CHECK-LABEL: func.func @machine
func.func @machine() {
  %zero = hdp.special zero : !hdp.reg<0>
  // CHECK: %x = hdp.tensor "x" output dram f32 [8, 4] {shape = array<i64: 2, 4, 4>, ports = ["y"], number = 7 : i64, base = 4096 : i64}
  %x = hdp.tensor "x" output dram f32 [8, 4] {shape = array<i64: 2, 4, 4>, ports = ["y"], number = 7 : i64, base = 4096 : i64}
  // CHECK: %t = hdp.tile "t" shared i8 64 {number = 3 : i64, address = 128 : i64}
  %t = hdp.tile "t" shared i8 64 {number = 3 : i64, address = 128 : i64}
  // CHECK: %r = hdp.li imm = 64 : !hdp.reg<5>
  %r = hdp.li imm = 64 : !hdp.reg<5>
  // CHECK: %u = hdp.span %r, %r, limit = 64, scale = 3 : !hdp.reg<5>, !hdp.reg<5>, !hdp.reg<7>
  %u = hdp.span %r, %r, limit = 64, scale = 3 : !hdp.reg<5>, !hdp.reg<5>, !hdp.reg<7>
  // CHECK: %s = hdp.addi %r, imm = -4 : !hdp.reg<5>, !hdp.reg<6>
  %s = hdp.addi %r, imm = -4 : !hdp.reg<5>, !hdp.reg<6>
  // CHECK: hdp.loop %i : !hdp.reg<7> = 0 to %s : !hdp.reg<6> step 16 {
  // CHECK-NEXT: hdp.st %x, %t, %i, %zero, core_rows = 0, core_cols = 3, leave = 0 : !hdp.reg<7>, !hdp.reg<0>
  // CHECK-NEXT: }
  hdp.loop %i : !hdp.reg<7> = 0 to %s : !hdp.reg<6> step 16 {
    hdp.st %x, %t, %i, %zero, core_rows = 0, core_cols = 3, leave = 0 : !hdp.reg<7>, !hdp.reg<0>
  }
  // CHECK: hdp.gate tau = 0.25, own = 1, positive = 1, visible = 0 {attention = "self"}
  hdp.gate tau = 0.25, own = 1, positive = 1, visible = 0 {attention = "self"}
  // CHECK: hdp.halt
  hdp.halt
  func.return
}

// Every other instruction.

// CHECK-LABEL: func.func @rest
func.func @rest(%row: index) {
  // CHECK: %w = hdp.tensor "w" weight dram i16 [384, 384] {point = 15 : i64, names = ["a.b"]}
  %w = hdp.tensor "w" weight dram i16 [384, 384] {point = 15 : i64, names = ["a.b"]}
  // CHECK-NEXT: %t = hdp.tile "t" local i16 6144
  %t = hdp.tile "t" local i16 6144
  // CHECK-NEXT: hdp.seq %row : index
  hdp.seq %row : index
  // CHECK-NEXT: hdp.all
  hdp.all
  // CHECK-NEXT: hdp.heads %row, stride = 2, limit = 2 : index
  hdp.heads %row, stride = 2, limit = 2 : index
  // CHECK-NEXT: hdp.drain %t, %t, %t, has_bias = 1, bias_shift = 2, shift = 2
  hdp.drain %t, %t, %t, has_bias = 1, bias_shift = 2, shift = 2
  // CHECK-NEXT: hdp.drains %t, %t, %t, %t, has_bias = 1, bias_shift = 2, shift = 2, point = 2
  hdp.drains %t, %t, %t, %t, has_bias = 1, bias_shift = 2, shift = 2, point = 2
  // CHECK-NEXT: hdp.scores %t, %t, %t, %t, %row, %t, positive = 1, plain = 0 : index
  hdp.scores %t, %t, %t, %t, %row, %t, positive = 1, plain = 0 : index
  // CHECK-NEXT: hdp.frac %t, %t, %t, %t, %t, %t, %t, %row, %row : index, index
  hdp.frac %t, %t, %t, %t, %t, %t, %t, %row, %row : index, index
  // CHECK-NEXT: hdp.pv %t, %t, %t, %t, %row, %row, %t, first = 1, sparse = 1, constant = 1 : index, index
  hdp.pv %t, %t, %t, %t, %row, %row, %t, first = 1, sparse = 1, constant = 1 : index, index
  // CHECK-NEXT: hdp.ldv %t, %w, %w, %w, %row, rows = 4, core_rows = 2, heads = 2, by_batch = 1, by_head = 0, by_row = 1, also = 1 : index
  hdp.ldv %t, %w, %w, %w, %row, rows = 4, core_rows = 2, heads = 2, by_batch = 1, by_head = 0, by_row = 1, also = 1 : index
  // CHECK-NEXT: hdp.ldb %t, %w, %w, %w, %row, rows = 4, core_rows = 2, heads = 2, by_batch = 1, by_head = 1, by_row = 1 : index
  hdp.ldb %t, %w, %w, %w, %row, rows = 4, core_rows = 2, heads = 2, by_batch = 1, by_head = 1, by_row = 1 : index
  // CHECK-NEXT: hdp.weigh %t, %t, %t, positive = 1
  hdp.weigh %t, %t, %t, positive = 1
  // CHECK-NEXT: hdp.offset %t, %t, %t, has_bias = 1, has_visible = 1, shift = -2, keyless = mean
  hdp.offset %t, %t, %t, has_bias = 1, has_visible = 1, shift = -2, keyless = mean
  // CHECK-NEXT: hdp.softmax %t, %t, multiplier = 2, shift = 2, point = 2
  hdp.softmax %t, %t, multiplier = 2, shift = 2, point = 2
  // CHECK-NEXT: hdp.extra
  hdp.extra
  // CHECK-NEXT: hdp.group parts = 4, rows = 16
  hdp.group parts = 4, rows = 16
  // CHECK-NEXT: hdp.blocks rows = 4, columns = 2
  hdp.blocks rows = 4, columns = 2
  // CHECK-NEXT: hdp.pruned
  hdp.pruned
  // CHECK-NEXT: hdp.param which = rho, head = 2, value = 0.5
  hdp.param which = rho, head = 2, value = 0.5
  // CHECK-NEXT: hdp.strow %w, %t, %row, %row, core_cols = 32 : index, index
  hdp.strow %w, %t, %row, %row, core_cols = 32 : index, index
  // CHECK-NEXT: hdp.stzero %w, %row, %row, cols = 32, core_cols = 32 : index, index
  hdp.stzero %w, %row, %row, cols = 32, core_cols = 32 : index, index
  // CHECK-NEXT: hdp.cascade %t, keep = 9
  hdp.cascade %t, keep = 9
  // CHECK-NEXT: hdp.magnitude %t, %t, %row : index
  hdp.magnitude %t, %t, %row : index
  // CHECK-NEXT: hdp.tally %t, %t, %t, %row, first = 1, shift = 3 : index
  hdp.tally %t, %t, %t, %row, first = 1, shift = 3 : index
  // CHECK-NEXT: hdp.colsum %t, %t, first = 1
  hdp.colsum %t, %t, first = 1
  // CHECK-NEXT: hdp.wide %t, %t, %t, as_row = 1
  hdp.wide %t, %t, %t, as_row = 1
  // CHECK-NEXT: hdp.drainc %t, %t, %row, shift = 2 : index
  hdp.drainc %t, %t, %row, shift = 2 : index
  // CHECK-NEXT: hdp.divide %t, %t, %row, wide = 1, shift = 2 : index
  hdp.divide %t, %t, %row, wide = 1, shift = 2 : index
  // CHECK-NEXT: hdp.hpack %w, %w, %w, batch = 2, length = 2, has_mask = 1
  hdp.hpack %w, %w, %w, batch = 2, length = 2, has_mask = 1
  // CHECK-NEXT: hdp.hidx %w, %w, %w
  hdp.hidx %w, %w, %w
  // CHECK-NEXT: hdp.hrows %w, %w, %w, %w, %w, batch = 2, length = 2
  hdp.hrows %w, %w, %w, %w, %w, batch = 2, length = 2
  // CHECK-NEXT: hdp.htest %w, %w, compare = gt, value = 0.5
  hdp.htest %w, %w, compare = gt, value = 0.5
  // CHECK-NEXT: hdp.hget %w, %row, h = 1, rows = 2, point = 2 : index
  hdp.hget %w, %row, h = 1, rows = 2, point = 2 : index
  // CHECK-NEXT: hdp.hgeti %w, %w, %row, h = 1, rows = 2, point = 2 : index
  hdp.hgeti %w, %w, %row, h = 1, rows = 2, point = 2 : index
  // CHECK-NEXT: hdp.hadd h = 1, g = 1
  hdp.hadd h = 1, g = 1
  // CHECK-NEXT: hdp.hgelu h = 1
  hdp.hgelu h = 1
  // CHECK-NEXT: hdp.htanh h = 1
  hdp.htanh h = 1
  // CHECK-NEXT: hdp.hrelu h = 1
  hdp.hrelu h = 1
  // CHECK-NEXT: hdp.hput %w, %row, h = 1, point = 2 : index
  hdp.hput %w, %row, h = 1, point = 2 : index
  // CHECK-NEXT: hdp.hfun h = 1, function = exp
  hdp.hfun h = 1, function = exp
  // CHECK-NEXT: hdp.hop h = 1, g = 2, operation = rsub
  hdp.hop h = 1, g = 2, operation = rsub
  // CHECK-NEXT: hdp.hsel h = 1, g = 2, f = 3
  hdp.hsel h = 1, g = 2, f = 3
  // CHECK-NEXT: hdp.hrms %w, h = 1, eps = 1.0e-06
  hdp.hrms %w, h = 1, eps = 1.0e-06
  // CHECK-NEXT: hdp.hsoft h = 1
  hdp.hsoft h = 1
  // CHECK-NEXT: hdp.hrope h = 1, g = 2, f = 3, heads = 4
  hdp.hrope h = 1, g = 2, f = 3, heads = 4
  // CHECK-NEXT: hdp.hdot h = 1, g = 2, transposed = 1, batches = 4
  hdp.hdot h = 1, g = 2, transposed = 1, batches = 4
  // CHECK-NEXT: hdp.hred h = 1, kind = argmax
  hdp.hred h = 1, kind = argmax
  // CHECK-NEXT: hdp.hredr h = 1, group = 4, kind = mean
  hdp.hredr h = 1, group = 4, kind = mean
  // CHECK-NEXT: hdp.hscan h = 1
  hdp.hscan h = 1
  // CHECK-NEXT: hdp.hnum h = 1, rows = 2, columns = 3, value = -0.5
  hdp.hnum h = 1, rows = 2, columns = 3, value = -0.5
  // CHECK-NEXT: hdp.hnum h = 1, rows = 2, columns = 3, value = -inf
  hdp.hnum h = 1, rows = 2, columns = 3, value = -inf
  // CHECK-NEXT: hdp.hnum h = 1, rows = 2, columns = 3, value = inf
  hdp.hnum h = 1, rows = 2, columns = 3, value = inf
  // CHECK-NEXT: hdp.hiota h = 1, rows = 2, columns = 3, start = -4, step = 2
  hdp.hiota h = 1, rows = 2, columns = 3, start = -4, step = 2
  // CHECK-NEXT: hdp.hcopy g = 2, h = 1
  hdp.hcopy g = 2, h = 1
  // CHECK-NEXT: hdp.hcut h = 1, start = 2, columns = 3, step = -1
  hdp.hcut h = 1, start = 2, columns = 3, step = -1
  // CHECK-NEXT: hdp.hcat h = 1, g = 2
  hdp.hcat h = 1, g = 2
  // CHECK-NEXT: hdp.hcols %w, h = 1
  hdp.hcols %w, h = 1
  // CHECK-NEXT: hdp.hshape h = 1, columns = 3
  hdp.hshape h = 1, columns = 3
  // CHECK-NEXT: hdp.hputc %w, %row, h = 1, column = 2, point = 3 : index
  hdp.hputc %w, %row, h = 1, column = 2, point = 3 : index
  func.return
}
