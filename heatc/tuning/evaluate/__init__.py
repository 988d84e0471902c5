"""
Evaluation: programs, models and plans on the user's data, side by side.

| file | what |
|---|---|
| `figures` | the figures of eval.json: names, units, meanings |
| `metrics` | accuracy, Matthews correlation coefficient, F1 |
| `intervals` | 95 % intervals of shares, differences and means |
| `page` | docs/eval.md, made from the declarations |
"""
