"""The pipeline's own stages on other folds, in a folder of their own: the project's artifacts are not touched.

The folder shares the project's data, validation and frames by links, and is named by the hash of folds, data,
parameters and code: a run that was killed goes on where it stopped, and one that is finished is not done again.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

import heartml
from heartml.core import paths
from heartml.core.config import Params
from heartml.core.system import files, hashing, locks
from heartml.core.system.errors import HeartMLError

STAGES = ("search", "ensemble", "evaluate")
FOLDER = paths.STATE / "leave-out"
_CODE = Path(heartml.__file__).parent
_KEY_DIGITS = 16


class RoundError(HeartMLError):
    """A stage of a round failed; it has said why."""


def evaluate_round(name: str, by: str, folds: pd.DataFrame, params: Params) -> Path:
    """Learn task `name` on the folds of `folds`, score its test part; the folder of the evaluation."""
    root = root_of(name, by, folds, params)
    with locks.exclusive(root.with_suffix(".lock"), on_wait=f"{root}: waiting for another run of this"):
        if not (root / "done-evaluate").exists():
            _lay_out(root, name, folds, params)
            for stage in STAGES:
                _run(stage, name, root)
        shutil.rmtree(root / paths.search(name), ignore_errors=True)     # the evaluation is all that is asked for
    return root / paths.evaluation(name)


def sweep(name: str, by: str, current: Iterable[pd.DataFrame], params: Params) -> None:
    """Remove what earlier data, parameters or code have left."""
    for orphan in FOLDER.glob(f".{name}-{by}-*.tmp"):      # of a sweep that was killed
        shutil.rmtree(orphan, ignore_errors=True)
    kept = {root_of(name, by, folds, params).name for folds in current}
    for root in FOLDER.glob(f"{name}-{by}-{'?' * _KEY_DIGITS}"):
        if root.name not in kept:
            files.remove_folder(root)


def root_of(name: str, by: str, folds: pd.DataFrame, params: Params) -> Path:
    """The folder of one round: another for other folds, data, frames, parameters or code."""
    code = [hashing.sha256_file(path) for path in sorted(_CODE.rglob("*.py"))]
    data = [hashing.sha256_file(path) for path in (paths.RECORDINGS, paths.ANNOTATIONS)]
    frames = [hashing.sha256_folder(paths.features(name, encoder)) for encoder in params.encoders]
    told = [name, folds.to_csv(index=False), data, frames, params.model_dump(mode="json"), code]
    return FOLDER / f"{name}-{by}-{hashing.sha256(files.canonical_json(told).encode())[:_KEY_DIGITS]}"


def _lay_out(root: Path, name: str, folds: pd.DataFrame, params: Params) -> None:
    """The project as the stages want it: parameters and folds written, the rest linked."""
    for path in (paths.DATA, paths.VALIDATION, *(paths.features(name, encoder) for encoder in params.encoders)):
        link = root / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)      # the project may have moved since
        link.symlink_to(path.resolve())
    shutil.copyfile(paths.PARAMS, root / paths.PARAMS)
    files.write_parquet(root / paths.folds(name), folds)


def _run(stage: str, name: str, root: Path) -> None:
    """One stage, unless it is done; what it prints goes to standard error."""
    mark = root / f"done-{stage}"
    if mark.exists():
        return
    found = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = {**os.environ, "HEARTML_CACHE_DIR": str(paths.cache().resolve()),
                   "PYTHONPATH": os.pathsep.join([str(_CODE.parent), *filter(None, found)])}
    command = [sys.executable, "-m", "heartml", stage, "--task", name]
    done = subprocess.run(command, cwd=root, env=environment, check=False, stdout=sys.stderr)
    if done.returncode:
        raise RoundError(f"{root}: stage {stage} failed, see above")
    mark.touch()
