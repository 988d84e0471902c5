"""Two-stage distillation of factors; the only part of `heatc.tuning` that knows PyTorch."""
