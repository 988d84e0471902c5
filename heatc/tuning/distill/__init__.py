"""
Distillation in two stages: the factors of a plan, trained by PyTorch to do what the model does.

Imports `heatc.tuning.common` and no other room.

| file | what |
|---|---|
| `session` | one distillation from start to end |
| `recipe` | epochs, rates and the like |
| `train` | the two stages, with checkpoints |
| `teacher` | the model itself, run at every step or kept |
| `texts` | the text that is trained on, and its batches |
| `losses` | how far a student is from its teacher |
| `fast_matmul` | the faster library for products of float32 matrices |
"""
