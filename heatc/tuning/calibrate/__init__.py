"""
Calibration: settings and thresholds of rule `ours` per layer and head, chosen on data for a goal.

Needs no PyTorch; imports `heatc.tuning.common` and no other room.

| file | what |
|---|---|
| `session` | one calibration from start to end |
| `calibrator` | the runs of the model: dense, one layer pruned, all layers pruned |
| `candidates` | what may be chosen |
| `attention` | attention under rule `ours`, on many sequences at once |
| `measure` | what every candidate does to one attention |
| `allocate` | thresholds of heads at one price of a block |
| `assign` | rules of layers for a share of blocks to prune |
| `assign_by_cost` | rules of layers for a share of what pruning can save on a machine |
| `layer_costs` | what pruning one layer costs and saves on a machine |
| `cost_model` | cycles and joules of the program of a plan |
| `goal_search` | the share that reaches the goal |
| `report` | the report: its data, table and remarks |
| `store` | arrays kept in a folder, so that an interrupted run goes on |
"""
