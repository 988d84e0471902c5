"""
What a command tells at its end: a table for people, and the same facts as JSON (`--json`).

| file | holds |
|---|---|
| `keys` | what a key of the JSON is: name, unit, kind, meaning, value |
| `texts` | a value with its unit as text, and the table |
| `output` | the options `--json` and `--quiet`, and where both forms go |
| `changes` | what a compilation factorised, pruned and narrowed |
| `dense` | the same model without any of it, to stand beside |
| `next_steps` | the commands that are shown last |
| `compiled`, `simulated`, `searched`, `calibrated`, `distilled` | the summary of each command |
| `reference` | the page docs/reference/summary.md |

A command makes a `Summary` of sections and shows it by `output.show`.
"""
