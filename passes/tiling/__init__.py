"""How the co-processor's work is cut into tiles: plans, and the ops they become."""
