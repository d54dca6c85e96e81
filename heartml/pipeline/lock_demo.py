"""`python -m heartml.pipeline.lock_demo`: prepare `dvc.lock` and the demo's metrics for git, after `dvc repro`.

In: `dvc.lock`. Out: `dvc.lock` with the stages of the graph alone, in its order; the metrics behind it in the remote
that is in the repository, so that a clone has something to compare with. `make lock-demo` does all of it.
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import replacing
from heartml.pipeline import committed_lock, graph
from heartml.pipeline.committed_lock import DVC_LOCK


class NotReady(HeartMLError):  # noqa: N818 - names what is the case
    """The lock cannot be committed as it is; the message says what to do."""


def run() -> list[str]:
    """Prepare both.

    Returns:
        The files to commit.

    Raises:
        NotReady: a stage is stale, or there is no remote in the repository.
    """
    plan, folder = graph.plan(), committed_lock.remote_folder()
    if plan.due:
        raise NotReady(f"{plan.due[0].address} is stale ({plan.due[0].changed}): run `dvc repro` first")
    if folder is None:
        raise NotReady("the default remote is no folder, so it is not in the repository")
    return [str(DVC_LOCK), *map(str, prune([stage.address for stage in plan.stages], metrics_of(plan), folder))]


def metrics_of(plan: graph.Plan) -> list[str]:
    """Paths of the metrics that `dvc metrics` shows."""
    return [out for stage in plan.stages for out in stage.outs if Path(out).name == "summary.json"]


def prune(addresses: list[str], metrics: list[str], folder: Path) -> list[Path]:
    """Keep these stages in `dvc.lock`, in this order, and copy their metrics into `folder`; returns the copies.

    Args:
        addresses: of all stages of the graph.
        metrics: paths of metrics files among their outputs.
        folder: of a DVC remote.
    """
    from dvc.utils.serialize import dump_yaml, load_yaml

    content: Mapping[str, Any] = load_yaml(DVC_LOCK)
    stages = {address: content["stages"][address] for address in addresses if address in content["stages"]}
    with replacing(DVC_LOCK) as temporary:
        dump_yaml(temporary, {**content, "stages": stages})
    outs = {out["path"]: out["md5"] for entry in stages.values() for out in entry["outs"]}
    copies = []
    for path in metrics:
        copy = folder / "files/md5" / outs[path][:2] / outs[path][2:]
        with replacing(copy) as temporary:
            shutil.copyfile(path, temporary)
        copies.append(copy)
    return copies


if __name__ == "__main__":
    try:
        print("to commit: git add " + " ".join(run()))
    except HeartMLError as error:
        sys.exit(f"heartml: {error}")
