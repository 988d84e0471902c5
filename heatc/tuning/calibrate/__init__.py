"""Calibration: the parameters of rule `ours` per layer and head, chosen on data for a goal."""
