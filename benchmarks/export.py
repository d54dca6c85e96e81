"""An exported model beside the model itself: start, speed, memory, one core.

    python benchmarks/export.py MODEL EXPORT [--rate 4000] [--seconds 23] [--repeats 20]

MODEL is a model's folder, EXPORT the folder that `heartml export` wrote of it. Each row is a process of its
own, so that start and memory are its own; the recording is made up of beats and noise.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SYSTEMS = ("python", "onnx", "onnx int8")


def main() -> None:
    """Print a table, or with `--one` the figures of one system as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("export", type=Path)
    parser.add_argument("--rate", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=23.0)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--one", choices=SYSTEMS)
    wanted = parser.parse_args()
    if wanted.one:
        print(json.dumps(measure(wanted)))
        return
    print(f"One recording of {wanted.seconds:g} s at {wanted.rate} Hz, one thread, median of {wanted.repeats}")
    print(f"{'system':<12}{'start to answer, s':>20}{'one recording, ms':>20}{'memory, MB':>12}{'file, MB':>10}")
    for system in SYSTEMS:
        if system == "onnx int8" and not (wanted.export / "model.int8.onnx").is_file():
            continue
        command = [sys.executable, __file__, *sys.argv[1:], "--one", system]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={
            **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
        one = json.loads(done.stdout)
        print(f"{system:<12}{one['start_s']:>20.2f}{one['recording_ms']:>20.1f}{one['memory_mb']:>12.0f}"
              f"{one['mb']:>10.2f}")


def measure(wanted: argparse.Namespace) -> dict[str, float]:
    """Start to the first answer in s, one recording in ms, largest memory in MB, size of the files in MB."""
    import numpy as np

    rng = np.random.default_rng(0)
    time_s = np.arange(int(wanted.seconds * wanted.rate)) / wanted.rate
    samples = (np.sin(2 * np.pi * 60 * time_s) * np.abs(np.sin(np.pi * 1.3 * time_s)) ** 30 * 0.3
               + rng.normal(0, 0.005, len(time_s))).astype(np.float32)
    begun = time.perf_counter()
    if wanted.one == "python":
        from heartml.core.system import parallel
        from heartml.models.fitted_model import Model
        from heartml.models.shared_inputs import SharedInputs

        parallel.single_thread()
        model = Model.load(wanted.model)

        def answer() -> object:
            shared = SharedInputs([(samples, wanted.rate)], ["one"])
            return model.predict_shared(shared), model.heart_states_of(shared, [wanted.seconds])

        size = sum(path.stat().st_size for path in wanted.model.rglob("*") if path.is_file())
    else:
        from heartml.inference.exported import RECORDING, SMALL, ExportedModel

        name = SMALL if wanted.one == "onnx int8" else RECORDING
        exported = ExportedModel.load(wanted.export, name)

        def answer() -> object:
            return exported.recording(samples, wanted.rate)

        size = (wanted.export / name).stat().st_size
    answer()
    start = time.perf_counter() - begun
    times = []
    for _ in range(wanted.repeats):
        begun = time.process_time()
        answer()
        times.append(time.process_time() - begun)
    return {"start_s": start, "recording_ms": 1000 * statistics.median(times), "mb": size / 1e6,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}


if __name__ == "__main__":
    main()
