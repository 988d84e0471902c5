"""
Tuning: what a plan should say, chosen on the user's own data. One room for each command of heatc-tune.

| room | what it decides | needs |
|---|---|---|
| `calibrate` | settings and thresholds of attention pruning, per layer and head | NumPy |
| `search` | format, shape and ranks of every layer, for a machine | PyTorch, pymoo, joblib |
| `distill` | the factors of a plan, trained to do what the model does | PyTorch |
| `evaluate` | nothing: what programs, models and plans are worth, side by side | joblib for several processes |
| `compress` | which plan reaches a goal, by search, training and pruning in one run | what these need |
| `common` | what the rooms share | `torch_*` alone need PyTorch |

A room imports `common`, and no other room; `compress` alone uses them all.
"""
