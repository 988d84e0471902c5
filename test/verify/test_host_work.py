"""What is said of a program: which of its work the host does."""

from __future__ import annotations

from heatc.isa.words import inst
from heatc.verify.programs import host_work

PROGRAM = (
    inst("hget", h=0, rows=1),
    inst("hfun", h=0, function="silu"),
    inst("hfun", h=0, function="silu"),
    inst("hop", h=0, g=1, operation="mul"),
    inst("hred", h=0, kind="argmax"),
    inst("hdot", h=0, g=1, batches=1),
    inst("halt"),
)


def test_functions_and_operations_have_their_names():
    assert host_work(PROGRAM, 0) == ["argmax", "embedding", "matmul", "mul", "silu"]


def test_vector_units_leave_products_to_the_host():
    assert host_work(PROGRAM, 4) == ["matmul"]
