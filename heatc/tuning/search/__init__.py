"""
HEAT search: format, shape and ranks of every layer, chosen for a machine and on data.

Imports `heatc.tuning.common` and no other room.

| file | what |
|---|---|
| `session` | one search from start to end |
| `hardware_space` | machines to choose from, read from a file |
| `layers` | the layers to search, and the moments of their inputs |
| `candidates` | the specs that a layer may get |
| `candidate_costs` | cycles and joules of candidates on a machine |
| `approximation` | errors of candidates against the layer's own output |
| `space_reduction` | cuts: candidates that others beat go |
| `replacements` | what stands in a layer's place when a candidate is tried |
| `patched_model` | the model run with some layers replaced |
| `sensitivity` | what a layer's error does to the outputs: the accuracy proxy |
| `front` | the front of proxy and energy x latency, by NSGA-II |
| `uniform_plans` | plans of one format and one share, which a front must not be worse than |
| `validate` | how well the proxy orders plans that are measured |
| `program_cost` | cycles and joules of the compiled program of a plan |
| `select` | the point of the front that a goal chooses |
| `output` | front.json, the plans, and the table |
| `result_cache` | results of tasks, kept so that an interrupted search goes on |
"""
