"""
What the rooms of tuning share. It imports none of them.

| file | what |
|---|---|
| `goal` | goals of `--goal`: the one grammar, its messages, and the error of a goal out of reach |
| `samples` | the user's inputs: checked against the model, held back, cut into batches |
| `evaluation` | outputs against those of the dense model: divergence, changed predictions, losses |
| `packed_model` | the packed model in NumPy, run from one attention to the next |
| `torch_model` | the packed model in PyTorch, with gradients |
| `torch_attention` | attention under pruning rules in PyTorch |
| `plan_data` | rules and factorised layers as the data of plan.json |
| `factorised` | the factorised layers of a plan that was read |
| `content_key` | names made of content, for what is kept |
| `progress` | the callback that is told how far work is |
| `workers` | tasks in other processes or on a Dask cluster |
"""
