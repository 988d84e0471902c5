"""
Tuning: what a plan should say, chosen on the user's own data.

`heatc.tuning.calibrate.calibrator` chooses the parameters of rule `ours` (docs/design/rules.md) per layer
and head. Nothing here needs torch: models are run in NumPy at the packed level of the IR.
"""
