"""Of all tests: what commands print does not depend on how long they take, and the collector rests."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("HEATC_PROGRESS", "off")
# All cores are one: others are at other tests, and a worker takes seconds to start. Tests of workers say
# how many they want.
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")

# Compiling makes many objects that live as long as a test: looking at them took some 5 % of the time.
gc.set_threshold(200_000, 20, 50)
