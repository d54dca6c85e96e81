"""What orchestration costs: `heartml retrain --force` compared with the bare commands of its stages, one after another.

python benchmarks/orchestration.py [--json FILE]

Run it in a repository after `make run`. Orchestration is everything that is not a stage's own work: DVC's graph,
hashing and cache, Prefect and its private server, registration and the gate. The flow runs stages side by side, the
bare run does not, so the share may be below zero on many cores.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from dvc.repo import Repo
from rich.console import Console
from rich.table import Table

from heartml.pipeline import graph

ENVIRONMENT = {**os.environ, "DVC_NO_ANALYTICS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with Repo(".") as repo:
        commands = {node.addressing: node.cmd for node in repo.index.stages if node.cmd}
    order = [stage.address for stage in graph.plan(force=True).stages if stage.address in commands]
    flow_s = timed([sys.executable, "-m", "heartml", "retrain", "--force"])
    stages = {address: timed([sys.executable, *shlex.split(commands[address])[1:]]) for address in order}
    bare_s = sum(stages.values())
    table = Table(title="seconds", title_justify="left")
    table.add_column("")
    table.add_column("wall s", justify="right")
    for name, seconds in [*stages.items(), ("all stages, bare", bare_s), ("heartml retrain --force", flow_s)]:
        table.add_row(name, f"{seconds:.1f}")
    table.add_row("orchestration's share of the retraining", f"{1 - bare_s / flow_s:.0%}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"stages": stages, "bare_s": bare_s, "retrain_s": flow_s,
                                            "orchestration_share": 1 - bare_s / flow_s}, indent=2) + "\n")


def timed(command: list[str]) -> float:
    """Wall seconds of a command that must succeed."""
    started = time.perf_counter()
    subprocess.run(command, env=ENVIRONMENT, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
