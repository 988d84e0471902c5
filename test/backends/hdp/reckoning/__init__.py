"""
A second reckoning of the machine's time, written from docs/isa.md and docs/design/machine.md.

It is slow and plain: every core by itself, every byte of a buffer by itself, no expression of the
instruction table. It shares the decoding of words with heatc, and nothing else. What pruning decides
is given, in the order in which a program asks.

A module is a class on top of the one before: `control`, `transfers`, `array`, `pruning`, `adder`,
`host`, `registers`. An instruction is the method of its name; `parts` has what they work on.
"""

from reckoning.registers import Registers as Reckoning

__all__ = ["Reckoning"]
