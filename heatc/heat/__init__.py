"""HEAT: formats of factorised weights, their numerics, and the statistics they start from."""
