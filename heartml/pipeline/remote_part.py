"""A worker's side of a part: a job of the object store in, its results into the store. No folder is shared.

The worker has a clone of its own, with the code of the retraining. A part is done in a folder inside it
(`.heartml/parts/work`) that has the inputs of the job and nothing else, and that goes when the part is done. What the
next part needs as well, such as frames, stays in `.heartml/parts/inputs`, named by content.

`python -m heartml.pipeline.remote_part PARENT FOLDER COMMAND...` is the process of the command.
"""

import os
import platform
import shutil
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from heartml.core import paths
from heartml.core.system import locks
from heartml.core.system.errors import HeartMLError
from heartml.pipeline import run_stage, shared_parts
from heartml.pipeline.object_store import ObjectStore
from heartml.pipeline.shared_parts import AUDIO, Job

_PLACE = paths.STATE / "parts"
_INPUTS = _PLACE / "inputs"
_WORK = _PLACE / "work"


class OtherCode(HeartMLError):  # noqa: N818 - reads as what is the case
    """The worker's code or libraries are not those of the retraining."""


class PartFailed(HeartMLError):  # noqa: N818 - reads as what happened
    """The command of a part failed; the message is its last line."""


def do(address: str, name: str, commit: str, log_line: Callable[[str], None]) -> None:
    """Do one job, unless its results are there already.

    Args:
        address: of the object store.
        name: of the job.
        commit: where the retraining's code is, for the message.
        log_line: gets each line of output.

    Raises:
        OtherCode: this worker would compute something else.
        PartFailed: the command failed.
        SharedStoreError: the store cannot be used.
    """
    store = ObjectStore.open(address)
    job = shared_parts.read_job(store, name)
    refuse_other_code(job, commit)
    with locks.exclusive(paths.STATE / "parts.lock"):      # of two worker processes in one folder
        if store.has(job.result):
            return
        _lay_out(store, job)
        try:
            _run(job, log_line)
            _upload(store, job)
        finally:
            _clear(job)


def refuse_other_code(job: Job, commit: str) -> None:
    """Refuse a job of other code.

    Raises:
        OtherCode: the sentence names both sides and the way out.
    """
    code, libraries = shared_parts.own_code()
    here = f"the worker in {Path.cwd()} on {platform.node()}"
    if code != job.code:
        raise OtherCode(f"{here} has the code of commit {shared_parts.commit() or 'none'}, and the retraining has that "
                        f"of {commit or 'none'}: `git checkout {commit}` there, and start the worker again")
    other = [f"{key} {libraries.get(key)} and not {value}" for key, value in job.libraries.items()
             if libraries.get(key) != value]
    if other:
        raise OtherCode(f"{here} has {', '.join(other)}: install requirements.lock there, and start the worker again")


def _lay_out(store: ObjectStore, job: Job) -> None:
    shutil.rmtree(_WORK, ignore_errors=True)
    wanted = set(job.inputs.values())
    for old in _INPUTS.glob("*"):
        if old.name not in wanted:
            old.unlink()
    store.get_inputs({md5: _INPUTS / md5 for md5 in wanted if not (_INPUTS / md5).exists()})
    for path, md5 in job.inputs.items():
        place = _WORK / path
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(_INPUTS / md5, place)


def _run(job: Job, log_line: Callable[[str], None]) -> None:
    module = [sys.executable, "-m", "heartml.pipeline.remote_part", str(os.getpid()), str(_WORK)]
    last = "no output"
    with run_stage.stage_subprocess([*module, *job.command]) as process:
        assert process.stdout
        for line in filter(str.strip, process.stdout):
            last = line.strip()
            log_line(last)
    if process.returncode:
        raise PartFailed(f"{' '.join(job.command)}: {last.removeprefix('heartml: ')}")


def _upload(store: ObjectStore, job: Job) -> None:
    packed = _PLACE / f"{job.name}.tar"
    try:
        with tarfile.open(packed, "w") as tar:
            for name, file in shared_parts.results_in(_WORK):
                tar.add(file, name)
        store.put(job.result, packed)
    finally:
        packed.unlink(missing_ok=True)


def _clear(job: Job) -> None:
    """Only what other parts need as well stays."""
    shutil.rmtree(_WORK, ignore_errors=True)
    for path, md5 in job.inputs.items():
        if path.startswith(AUDIO):
            (_INPUTS / md5).unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> None:
    """Entry point; the arguments are PARENT, FOLDER and the command. This process becomes the command."""
    parent, folder, *command = arguments
    shared_parts.become(command, Path(folder), int(parent))


if __name__ == "__main__":
    main(sys.argv[1:])
