"""HEAT search: format, shape and ranks of every layer, chosen for a machine and on data."""
