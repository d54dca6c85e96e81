"""Memory of each worker of a search for pooled vectors: in files that all map, against a copy in each process.

python benchmarks/pooled_memory.py [--recordings 3000] [--workers 2] [--json FILE]

The frames are made up (192 bands of eight seconds, as of `random_conv`). Each worker pools them with every pooling, at
both levels, and takes the rows of four folds of five, as a fit does. Then it says what its process holds more than
before. RSS counts a shared page in every process, PSS divides it by their number, and private pages are in this process
alone. The system may drop pages of files, but not anonymous ones. A fit holds the rows that it copied, here of
`everything`, the largest pooling.
"""

import argparse
import json
import os
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from heartml.core import frame_store
from heartml.core.frame_store import Frames
from heartml.core.system import parallel
from heartml.models.ensemble.candidate import CandidateSpec, FeatureSet
from heartml.models.pooling import POOLINGS, Grid

DIM, RATE_HZ, SECONDS = 192, 12.5, 8
_MB = 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as made:
        folder = Path(made)
        _write_frames(folder / "frames", options.recordings)
        rows = [_measure(folder, options.workers, shared=shared) for shared in (False, True)]
    title = f"{options.recordings} recordings, {options.workers} workers, MB a worker"
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:,.0f}" for value in row.values()))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def _write_frames(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    frames = {f"{n:064x}": rng.normal(size=(round(RATE_HZ * SECONDS), DIM)).astype(np.float16) for n in range(count)}
    frame_store.write(folder, frames, RATE_HZ, {"name": "made up"})


def _measure(folder: Path, workers: int, *, shared: bool) -> dict[str, float | str]:
    """Means over the workers, each measured while all of them hold their vectors."""
    fork = get_context("forkserver")
    queue, wait = fork.Queue(), fork.Barrier(workers)
    started = time.monotonic()
    processes = [fork.Process(target=_work, args=(folder, shared, queue, wait)) for _ in range(workers)]
    for process in processes:
        process.start()
    found = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    means = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    files = sum(file.stat().st_size for file in (folder / "pooled").rglob("*.npy")) / _MB if shared else 0.0
    return {"pooled vectors": "in files" if shared else "in each process", **means, "MB on disk": files,
            "wall s": time.monotonic() - started}


def _work(folder: Path, shared: bool, queue: Any, wait: Any) -> None:
    parallel.single_thread()
    frames = Frames.open(folder / "frames")
    of = frames.of(frames.recording_ids)
    before, started = _memory(), time.process_time()
    unit = np.arange(len(of)) // 4
    kept = folder / "pooled" if shared else None
    feature_set = FeatureSet({"e": of}, {"e": RATE_HZ}, {"e": Grid(DIM, 1)}, unit, kept)
    for name in POOLINGS:
        for level, cases in (("recording", len(of)), ("unit", int(unit.max()) + 1)):
            spec = CandidateSpec("e", "logistic", level, name, {})
            feature_set.inputs(spec, np.arange(cases * 4 // 5))
    spent = time.process_time() - started
    wait.wait()
    now = _memory()
    most = CandidateSpec("e", "logistic", "recording", "everything", {})
    rows = feature_set.inputs(most, np.arange(len(of) * 4 // 5))
    with_rows = _memory()["anonymous"] - before["anonymous"]
    assert len(rows)
    queue.put({**{key: now[key] - before[key] for key in now}, "anonymous, in a fit": with_rows, "CPU s": spent})
    wait.wait()


def _memory() -> dict[str, float]:
    """RSS, PSS and private memory of this process, MB."""
    lines = (line.split() for line in Path(f"/proc/{os.getpid()}/smaps_rollup").read_text().splitlines()[1:])
    kilobytes = {words[0].rstrip(":"): int(words[1]) for words in lines}
    own = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return {"RSS": kilobytes["Rss"] / 1e3, "PSS": kilobytes["Pss"] / 1e3, "private": own / 1e3,
            "anonymous": kilobytes["Anonymous"] / 1e3}


if __name__ == "__main__":
    main()
