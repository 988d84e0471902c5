"""Two-stage distillation of factors, by PyTorch."""
