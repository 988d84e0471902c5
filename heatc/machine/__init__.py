"""
The HDP machine: what an instruction does, and what it takes.

`machine` runs a program: `execute_*` have a function for each instruction, `state` is what they change,
`values` is the arithmetic (or none, on shapes alone), `clocks` and `scoreboard` keep the time, `work`
and `energy` count what costs joules. `hdp-run`, planning and search all run this one machine.
"""
