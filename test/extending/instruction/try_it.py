"""The new instruction through encoding, decoding, text and machine."""

import numpy as np
from machine_kit import Kit, Tiny

from heatc.dialects.hdp import HDP
from heatc.isa import doc
from heatc.isa.words import decode, encode, from_text, inst, to_text

word = inst("habs", h=3)
assert decode(encode(word)) == word == from_text(to_text(word))
assert "### `habs` (0x6c)" in doc.render()
assert "hdp.habs" in {op.name for op in HDP.operations}

kit = Kit(Tiny(cores=1))
x, y = kit.put(np.array([[-2, 3]], np.int16), "i16"), kit.tensor((1, 2), "i16")
kit.emit("hget", h=0, d=x, rows=1)
kit.emit("habs", h=0)
kit.emit("hput", d=y, h=0)
kit.run()
assert kit.get(y).tolist() == [[2, 3]]
