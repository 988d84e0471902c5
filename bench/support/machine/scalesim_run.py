"""
One GEMM in SCALE-Sim 3.0.0, output stationary; run by the Python of SCALE-Sim's own environment.

    python bench/support/machine/scalesim_run.py '{"rows": 32, "columns": 32, "m": 128, "n": 64, "k": 128, ...}'

Prints one JSON object. Only SCALE-Sim's classes are used and no trace is written, which its
command cannot leave out (`scale.py` ignores `-s N`): the time is the simulation's alone.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """
[general]
run_name = gemm
[architecture_presets]
ArrayHeight: {rows}
ArrayWidth: {columns}
IfmapSramSzkB: {sram_kib}
FilterSramSzkB: {sram_kib}
OfmapSramSzkB: {sram_kib}
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow: os
Bandwidth: {words}
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: {words}
IfmapSRAMBankNum: 1
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: {words}
FilterSRAMBankNum: 1
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
[run_presets]
InterfaceBandwidth: {mode}
UseRamulatorTrace: False
"""


def main() -> None:
    """Simulates the GEMM of the first argument."""
    from scalesim.layout_utils import layouts  # pyright: ignore
    from scalesim.scale_config import scale_config  # pyright: ignore
    from scalesim.single_layer_sim import single_layer_sim  # pyright: ignore
    from scalesim.topology_utils import topologies  # pyright: ignore

    case = json.loads(sys.argv[1])
    words = case["words"]
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        folder = Path(name)
        mode = "USER" if words else "CALC"
        (folder / "scale.cfg").write_text(
            CONFIG.format(**{**case, "words": words or 10}, mode=mode)
        )
        gemm = ",".join(str(case[key]) for key in "mnk")
        (folder / "gemm.csv").write_text(f"Layer, M, N, K,\ngemm,{gemm},\n")
        config, topology = scale_config(), topologies()
        config.read_conf_file(str(folder / "scale.cfg"))
        topology.load_arrays(str(folder / "gemm.csv"), mnk_inputs=True)
        start = time.perf_counter()
        layer = single_layer_sim()
        layer.set_params(0, config, topology, layouts(), verbose=False)
        layer.run()
        _, cycles, stalls, *_ = layer.get_compute_report_items()
        seconds = time.perf_counter() - start
        lines = int(layer.compute_system.ofmap_demand_matrix.shape[0])
    answer = {"lines": lines, "cycles": int(cycles), "stalls": int(stalls), "seconds": seconds}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
