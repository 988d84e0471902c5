"""Of all tests: what commands print does not depend on how long they take."""

from __future__ import annotations

import os

os.environ.setdefault("HEATC_PROGRESS", "off")
