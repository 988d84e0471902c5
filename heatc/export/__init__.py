"""
The way back: a model with the factors of a plan, for stock PyTorch and ONNX Runtime.

| file | what |
|---|---|
| `session` | one export from start to end |
| `factors` | what each planned layer became, read from the factorised level |
| `live` | a live model whose planned layers are replaced |
| `program` | the graph of a model, its planned products replaced |
| `modeling` | the text of `modeling.py` and what it reads |
| `archive` | `model.pt2` |
| `onnx_file` | `model.onnx` |
| `agreement` | every form against the NumPy program of the plan |
| `runtime/` | what `modeling.py` is made of: no line of it needs heatc |
"""
