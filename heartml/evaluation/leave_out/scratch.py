"""Run the pipeline's own stages on other folds in a scratch folder, so that the project's artifacts stay as they are.

The folder has links to the project's data, validation and frames. Its name contains a hash of folds, data, parameters
and code. So a run that was killed continues where it stopped, and a finished one is not repeated.
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
    """A stage of a round failed; the stage has printed the reason."""


def evaluate_round(name: str, by: str, folds: pd.DataFrame, params: Params) -> Path:
    """Train task `name` on the folds in `folds` and evaluate it on their test part.

    Returns:
        The folder with the evaluation.

    Raises:
        RoundError: a stage failed.
    """
    root = round_folder(name, by, folds, params)
    with locks.exclusive(root.with_suffix(".lock"), on_wait=f"{root}: waiting for another run of this"):
        if not (root / "done-evaluate").exists():
            _lay_out(root, name, folds, params)
            for stage in STAGES:
                _run(stage, name, root)
        shutil.rmtree(root / paths.search(name), ignore_errors=True)     # only the evaluation is needed
    return root / paths.evaluation(name)


def remove_stale_rounds(name: str, by: str, current: Iterable[pd.DataFrame], params: Params) -> None:
    """Remove the folders of earlier data, parameters or code; those of the folds in `current` stay."""
    for orphan in FOLDER.glob(f".{name}-{by}-*.tmp"):      # of a removal that was killed
        shutil.rmtree(orphan, ignore_errors=True)
    current_names = {round_folder(name, by, folds, params).name for folds in current}
    for root in FOLDER.glob(f"{name}-{by}-{'?' * _KEY_DIGITS}"):
        if root.name not in current_names:
            files.remove_folder(root)


def round_folder(name: str, by: str, folds: pd.DataFrame, params: Params) -> Path:
    """The folder of one round; it differs for other folds, data, frames, parameters or code."""
    code = [hashing.sha256_file(path) for path in sorted(_CODE.rglob("*.py"))]
    data = [hashing.sha256_file(path) for path in (paths.RECORDINGS, paths.ANNOTATIONS)]
    frames = [hashing.sha256_folder(paths.features(name, encoder)) for encoder in params.encoders]
    content = [name, folds.to_csv(index=False), data, frames, params.model_dump(mode="json"), code]
    return FOLDER / f"{name}-{by}-{hashing.sha256(files.canonical_json(content).encode())[:_KEY_DIGITS]}"


def _lay_out(root: Path, name: str, folds: pd.DataFrame, params: Params) -> None:
    """Make the folder as the stages expect a project: parameters and folds are written, the rest is linked."""
    for path in (paths.DATA, paths.VALIDATION, *(paths.features(name, encoder) for encoder in params.encoders)):
        link = root / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)      # the project may have moved since
        link.symlink_to(path.resolve())
    shutil.copyfile(paths.PARAMS, root / paths.PARAMS)
    files.write_parquet(root / paths.folds(name), folds)


def _run(stage: str, name: str, root: Path) -> None:
    """Run one stage unless it is done; its output goes to standard error."""
    mark = root / f"done-{stage}"
    if mark.exists():
        return
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = {**os.environ, "HEARTML_CACHE_DIR": str(paths.cache().resolve()),
                   "PYTHONPATH": os.pathsep.join([str(_CODE.parent), *filter(None, inherited)])}
    command = [sys.executable, "-m", "heartml", stage, "--task", name]
    done = subprocess.run(command, cwd=root, env=environment, check=False, stdout=sys.stderr)
    if done.returncode:
        raise RoundError(f"{root}: stage {stage} failed, see above")
    mark.touch()
