"""
Compression: search, distillation, calibration and compilation in one run, within a number of minutes.

Imports the other rooms, and uses their sessions from Python.

| file | what |
|---|---|
| `session` | one run from start to end |
| `request` | what is asked for |
| `run` | what all stages share: model, samples, machine, what is kept |
| `points` | the plans of the front: searched, factorised, measured |
| `training` | their factors trained |
| `goals` | what goals bound, the plan they choose, the nearest where none holds them |
| `budget` | the minutes of a run, and what is left of them |
| `model` | fresh compilations of the captured model; plans written and copied |
| `figures` | the figures of a plan: names, units, where they come from |
| `accuracy` | what a plan loses on the samples held back |
| `costs` | what the program of a plan takes on a machine |
| `choice` | which plan is measured next, and which is trained next |
| `pruning` | attention pruned, where it pays on the machine |
| `output` | the folder: front.json, plans, program; the table and what to type next |
"""
