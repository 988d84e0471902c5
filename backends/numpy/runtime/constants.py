# pyright: basic
"""What tiles and kernels are chosen by."""

import numpy as np

AVX512_KERNELS = {b"SkylakeX", b"Cooperlake", b"SapphireRapids"}
TILE = 65536  # elements of a tile: with its scratch it stays in a core's cache
LOWEST, TINY = np.finfo(np.float32).min, np.finfo(np.float32).tiny
