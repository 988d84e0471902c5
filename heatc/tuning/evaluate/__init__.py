"""
Evaluation: programs, models and plans on the user's data, side by side; and data from text.

| file | what |
|---|---|
| `subject` | what is evaluated, told apart by content |
| `program` | what a program is: inputs, how it runs, what a run gives |
| `hdp_program` | HDP programs, on the simulator |
| `numpy_program` | NumPy programs, timed |
| `torch_program` | models in PyTorch itself, timed |
| `compiled` | the programs of models and plans |
| `data` | labelled samples, fitted to the inputs of a program |
| `batches` | batches of a program's size, in this process or in others |
| `agreement` | outputs against those of the reference, and against labels |
| `session` | every subject on all samples, and what eval.json says |
| `figures` | the figures of eval.json: names, units, meanings |
| `keys` | its other keys |
| `metrics` | accuracy, Matthews correlation coefficient, F1 |
| `intervals` | 95 % intervals of shares, differences and means |
| `provenance` | command, commit, versions, processor, day |
| `table` | the table that is printed |
| `text_table` | rows of text from csv, tsv and jsonl |
| `labels` | classes of labels that are names |
| `tokens` | text as the inputs of a model, by its tokenizer |
"""
