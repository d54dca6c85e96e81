"""Parts of a stage for workers that share no folder: their inputs go into an object store, their results come back.

In: a stale stage of DVC's graph that says `parts:` in its `meta`. Out: one job for each part, and what workers made of
them in the caches that the stage looks into first. `parts: recordings` divides the recordings that the stage has not
done; a job then has their audio and a table of folds of no others. `parts: fits` lets `--part K/N` divide the work.

A job is named by the hash of all that its results depend on: inputs, parameters, command, code, libraries. So a part
that was done once is found, whoever asks.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartml.core import config, paths
from heartml.core.system import code_hash, files, hashing
from heartml.core.system.errors import HeartMLError
from heartml.core.system.parallel import Part
from heartml.pipeline import git, stage_process
from heartml.pipeline.object_store import ObjectStore, md5_of

if TYPE_CHECKING:
    from dvc.repo import Repo

AUDIO = f"{paths.DATA}/audio/"
_DRAFTS = paths.STATE / "handed-out"
_MOST_RECORDINGS = 500      # in one part, so that what a lost worker costs is small
_PARTS_A_WORKER = 4
_LIBRARIES = ("lightgbm", "numpy", "scikit-learn", "scipy", "soundfile", "torch", "torchaudio")
_FRAMES = re.compile(r"cache/(features/[\w.-]+/[0-9a-f]{2}/[0-9a-f]{64}\.npy)")
_FITS = re.compile(r"state/(search/[\w.-]+/\d+-\d+\.safetensors)")


class PartsError(HeartMLError):
    """The parts cannot be handed out; the message says why."""


@dataclass(frozen=True)
class Job:
    """One part of a stage's work.

    Attributes:
        inputs: path in the project -> MD5, as DVC has it.
        code: fingerprint of all modules of heartml.
        libraries: name -> version, of those that results depend on.
    """

    command: tuple[str, ...]
    inputs: Mapping[str, str]
    code: str
    libraries: Mapping[str, str]

    @property
    def name(self) -> str:
        """The hash of what the results depend on."""
        return hashing.sha256(files.canonical_json(asdict(self)).encode())[:32]

    @property
    def result(self) -> str:
        """Key of the results in the store."""
        return f"results/{self.name}.tar"


def own_code() -> tuple[str, dict[str, str]]:
    """Fingerprint of this code, and the versions of the libraries under it."""
    python = ".".join(map(str, sys.version_info[:2]))
    return code_hash.fingerprint("."), {"python": python, **{name: metadata.version(name) for name in _LIBRARIES}}


def commit() -> str:
    """The commit of this folder, short; empty where it has none."""
    return git.output("rev-parse", "--short=12", "--verify", "--quiet", "HEAD").decode().strip()


def publish(store: ObjectStore, address: str, workers: int, *, force: bool) -> list[Job]:
    """Put the jobs of a stage into the store, and those of their inputs that it lacks.

    Returns:
        The jobs; none where DVC finds the stage fresh, or all its recordings are done.

    Raises:
        SharedStoreError: the store cannot be used.
        PartsError: what has to be done could not be found out.
    """
    from dvc.repo import Repo

    with Repo(".", _wait_for_lock=True) as repo:
        if not force and not repo.status([address]):
            return []
        [stage] = repo.stage.collect(address)
        tracked = _Tracked(repo)
        command = shlex.split(stage.cmd)
        inputs = {str(paths.PARAMS): md5_of(paths.PARAMS), **tracked.files(paths.DATA / "tasks")}
        for dep in stage.deps:
            inputs |= tracked.files(Path(os.path.relpath(dep.fs_path, repo.root_dir)))
        if stage.meta["parts"] == "recordings":
            audio = {Path(path).stem: (path, md5) for path, md5 in tracked.files(paths.DATA / "audio").items()}
            drafts = list(_of_recordings(command, {**inputs, **_weights(command)}, audio, workers))
        else:
            count = workers * _PARTS_A_WORKER
            drafts = [([*command, "--part", str(Part(number, count))], inputs) for number in range(1, count + 1)]
    code, libraries = own_code()
    jobs = [Job(tuple(command), inputs, code, libraries) for command, inputs in drafts]
    _upload(store, jobs)
    return jobs


class _Tracked:
    """Hashes of what DVC tracks, as it has recorded them; nothing is read."""

    def __init__(self, repo: "Repo") -> None:
        self._repo = repo

    def files(self, path: Path) -> dict[str, str]:
        """Every tracked file at or under `path`, relative to the root -> MD5."""
        found: dict[str, str] = {}
        for out in self._repo.index.outs:
            place = Path(os.path.relpath(out.fs_path, self._repo.root_dir))
            if place.is_relative_to(path) or path.is_relative_to(place):
                found |= dict(_entries(out, place))
        return {name: md5 for name, md5 in found.items() if Path(name).is_relative_to(path)}


def _entries(out: Any, place: Path) -> Iterator[tuple[str, str]]:
    listing = out.get_obj() if out.hash_info else None
    if out.hash_info and out.hash_info.isdir and listing is not None:
        yield from (((place / Path(*key)).as_posix(), str(hashed.value)) for key, _, hashed in listing)
    elif out.hash_info:
        yield place.as_posix(), str(out.hash_info.value)


def _of_recordings(
    command: Sequence[str], inputs: Mapping[str, str], audio: Mapping[str, tuple[str, str]], workers: int
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Command and inputs of the parts; each has the folds of its own recordings alone."""
    import pandas as pd

    missing = _missing(command)
    size = min(_MOST_RECORDINGS, max(1, -(-len(missing) // (workers * _PARTS_A_WORKER))))
    [name] = [path for path in inputs if path.endswith("/folds.parquet")]
    table = pd.read_parquet(name)
    for first in range(0, len(missing), size):
        own = missing[first : first + size]
        part = _DRAFTS / "folds" / f"{hashing.sha256(chr(10).join(own).encode())[:32]}.parquet"
        files.write_parquet(part, table[table["recording_id"].isin(own)].reset_index(drop=True))
        yield [*command, "--part", "1/1"], {**inputs, name: md5_of(part), **dict(audio[i] for i in own)}


def _missing(command: Sequence[str]) -> list[str]:
    """The recordings that the stage has not done, sorted; the stage's own command says which."""
    done = subprocess.run([sys.executable, *command[1:], "--missing"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PartsError((done.stderr.strip().splitlines() or ["no output"])[-1].removeprefix("heartml: "))
    return sorted(done.stdout.split())


def _weights(command: Sequence[str]) -> dict[str, str]:
    """The files of weights that params.yaml names for an encoder of the command."""
    own = [section for name, section in config.load().encoder_parameters.items() if name in command]
    places = [Path(str(section.get("weights", ""))) for section in own if isinstance(section, Mapping)]
    within = [place for place in places if place.name and place.exists() and not place.is_absolute()]
    found = [file for place in within for file in ([place] if place.is_file() else sorted(place.rglob("*")))]
    return {file.as_posix(): md5_of(file) for file in found if file.is_file()}


def _upload(store: ObjectStore, jobs: Sequence[Job]) -> None:
    known = store.inputs()
    wanted = {md5: path for job in jobs for path, md5 in job.inputs.items() if md5 not in known}
    folds = {md5_of(file): file for file in (_DRAFTS / "folds").glob("*.parquet")}
    store.put_inputs({md5: folds.get(md5, Path(path)) for md5, path in wanted.items()})
    for job in jobs:
        draft = _DRAFTS / f"{job.name}.json"
        files.write_json(draft, asdict(job))
        store.put(f"jobs/{job.name}.json", draft)
    shutil.rmtree(_DRAFTS, ignore_errors=True)


def read_job(store: ObjectStore, name: str) -> Job:
    """The job of this name. A worker runs its command, so it has to be the one that the flow has named.

    Raises:
        PartsError: the store has another job under this name.
    """
    import json

    try:
        values = json.loads(store.read(f"jobs/{name}.json"))
        job = Job(tuple(values["command"]), values["inputs"], values["code"], values["libraries"])
    except (ValueError, KeyError, TypeError):
        job = None
    if job is None or job.name != name:
        raise PartsError(f"jobs/{name}.json in the object store is not what the flow has put there. Who else writes "
                         "into it?")
    return job


def collect(store: ObjectStore, jobs: Iterable[Job]) -> list[Job]:
    """Put the results of the jobs where their stage looks first; those without results are returned."""
    without = []
    for job in jobs:
        if not store.has(job.result):
            without.append(job)
            continue
        with store.opened(job.result) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                _put(tar, member)
    return without


def _put(tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Unpack one file of frames or of a fit; a result has nothing else."""
    place = place_of(member.name)
    content = tar.extractfile(member) if member.isreg() else None
    if place is None or content is None:
        raise PartsError(f"{member.name[:80]}: no result of a part. Who else writes into the object store?")
    if not place.exists():
        with files.replacing(place) as temporary, temporary.open("wb") as out:
            shutil.copyfileobj(content, out)


def place_of(name: str) -> Path | None:
    """Where a file of a result belongs in this folder; `None` for what is no result."""
    if frames := _FRAMES.fullmatch(name):
        return paths.cache() / frames[1]
    fit = _FITS.fullmatch(name)
    return paths.STATE / fit[1] if fit else None


def results_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """The results in the folder of a part: name in the store's archive, and file."""
    roots = {"cache": folder / paths.STATE / "cache", "state": folder / paths.STATE}
    for prefix, root in roots.items():
        for file in sorted(root.rglob("*.*")):
            name = f"{prefix}/{file.relative_to(root).as_posix()}"
            if file.is_file() and place_of(name):
                yield name, file


def become(command: Sequence[str], folder: Path, parent: int) -> None:
    """Let this process become the command of a part in its folder, with this code."""
    from heartml.core.system.processes import die_with_parent

    die_with_parent(parent)
    stage_process.environment()
    code = str(Path(__file__).parents[2])
    inherited = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    os.environ |= {"HEARTML_PARENT": str(parent), "PYTHONPATH": os.pathsep.join([code, *inherited]),
                   "HEARTML_CACHE_DIR": str(paths.STATE / "cache")}
    with contextlib.chdir(folder):
        os.execvp(command[0], list(command))
