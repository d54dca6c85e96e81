"""Workers in folders of their own that share nothing but an object store: the same bytes, and no other code."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import local_services, small_project, workspaces
from support.local_services import BUCKET
from support.small_project import TASK
from support.workspaces import Workspace

from flows.support import handed_out
from flows.support.handed_out import HandedOut
from heartml.core import config, paths
from heartml.core.frame_store import Frames
from heartml.models import encoders
from heartml.models.frame_cache import Store
from heartml.pipeline import object_store, remote_part, run_stage, shared_parts
from heartml.pipeline.object_store import ObjectStore, SharedStoreError
from heartml.pipeline.remote_part import OtherCode
from heartml.pipeline.run_stage import StageFailed
from heartml.pipeline.shared_parts import Job, PartsError

DIVIDED = (f"features@{TASK}-logspec", f"search@{TASK}")
FRAMES = f"cache/features/0123-cpu/ab/{'ab' * 32}.npy"
FIT = "state/search/simulated-murmur-0123/4-1.safetensors"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore.open(str(tmp_path / "store"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def job(**changed: object) -> Job:
    code, libraries = shared_parts.own_code()
    return Job(**{"command": ("true",), "inputs": {}, "code": code, "libraries": libraries, **changed})


def test_an_input_is_kept_by_its_content_and_damage_is_named(store: ObjectStore, folder: Path) -> None:
    (folder / "a").write_bytes(b"heart")
    md5 = object_store.md5_of(folder / "a")
    assert store.inputs() == frozenset()
    store.put_inputs({md5: folder / "a"})
    assert store.inputs() == {md5}
    store.get_inputs({md5: folder / "deep/b"})
    assert (folder / "deep/b").read_bytes() == b"heart"
    Path(store.root, "files/md5", md5[:2], md5[2:]).write_bytes(b"lungs")
    with pytest.raises(SharedStoreError, match=f"HEARTML_SHARED=.*{md5[:2]}/{md5[2:]} is damaged"):
        store.get_inputs({md5: folder / "c"})
    assert not (folder / "c").exists()
    with pytest.raises(SharedStoreError, match="HEARTML_SHARED="):
        store.get_inputs({"0" * 32: folder / "c"})
    with pytest.raises(SharedStoreError, match="a: not the bytes that DVC has recorded"):
        store.put_inputs({"0" * 32: folder / "a"})


def test_an_address_that_nothing_opens_is_named() -> None:
    with pytest.raises(SharedStoreError, match=r"HEARTML_SHARED=nowhere://bucket: .*nowhere") as refusal:
        ObjectStore.open("nowhere://bucket")
    assert "\n" not in str(refusal.value)


def test_a_worker_with_other_code_or_libraries_refuses(folder: Path) -> None:
    remote_part.refuse_other_code(job(), "abc")
    with pytest.raises(OtherCode, match=r"in .*here on .* code of commit none.*that of abc: `git checkout abc` there"):
        remote_part.refuse_other_code(job(code="other"), "abc")
    libraries = {**job().libraries, "numpy": "0.1"}
    with pytest.raises(OtherCode, match=r"has numpy .* and not 0\.1: install requirements\.lock"):
        remote_part.refuse_other_code(job(libraries=libraries), "abc")


def test_a_job_is_named_by_all_that_its_results_depend_on() -> None:
    names = {one.name for one in (job(), job(command=("false",)), job(inputs={"a": "b"}), job(code="other"),
                                  job(libraries={}))}
    assert len(names) == 5
    assert job().name in names


def pack(store: ObjectStore, one: Job, **content: bytes) -> None:
    file = Path("made.tar")
    with tarfile.open(file, "w") as tar:
        for number, (name, data) in enumerate(content.items()):
            Path(f"content-{number}").write_bytes(data)
            tar.add(f"content-{number}", name)
    store.put(one.result, file)


def test_results_come_to_where_their_stage_looks(store: ObjectStore, folder: Path) -> None:
    done, lost = job(), job(command=("lost",))
    pack(store, done, **{FRAMES: b"frames", FIT: b"fit"})
    assert shared_parts.collect(store, [done, lost]) == [lost]
    assert (paths.cache() / FRAMES.removeprefix("cache/")).read_bytes() == b"frames"
    assert (paths.STATE / FIT.removeprefix("state/")).read_bytes() == b"fit"
    pack(store, done, **{FIT: b"another"})
    shared_parts.collect(store, [done])
    assert (paths.STATE / FIT.removeprefix("state/")).read_bytes() == b"fit", "what is there stays"


@pytest.mark.parametrize("name", ["../params.yaml", "state/keys/signing.pem", "cache/features/x/../../../a.npy",
                                  f"x/{FRAMES}", FRAMES + "x", "state/search/a/b/4-1.safetensors"])
def test_what_is_no_result_is_not_unpacked(store: ObjectStore, folder: Path, name: str) -> None:
    pack(store, job(), **{name: b"x"})
    with pytest.raises(PartsError, match="no result of a part"):
        shared_parts.collect(store, [job()])
    assert not (folder / ".heartml").exists()


def test_a_link_is_no_result(store: ObjectStore, folder: Path) -> None:
    link = tarfile.TarInfo(FRAMES)
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open("made.tar", "w") as tar:
        tar.addfile(link)
    store.put(job().result, Path("made.tar"))
    with pytest.raises(PartsError, match="no result of a part"):
        shared_parts.collect(store, [job()])


def test_a_worker_does_a_job_in_a_folder_of_its_inputs_alone(store: ObjectStore, folder: Path) -> None:
    (folder / "given").write_bytes(b"heart")
    (folder / "sound").write_bytes(b"lub dub")
    md5, of_sound = (object_store.md5_of(folder / name) for name in ("given", "sound"))
    code = (f"from pathlib import Path; out = Path('.heartml/{FRAMES}'); out.parent.mkdir(parents=True); "
            "out.write_bytes(Path('artifacts/a').read_bytes() + Path('data/audio/b').read_bytes()); print('it says')")
    one = job(command=("python", "-c", code), inputs={"artifacts/a": md5, "data/audio/b": of_sound})
    shared_parts._upload(store, [])
    store.put_inputs({md5: folder / "given", of_sound: folder / "sound"})
    (folder / "job").write_text(shared_parts.files.canonical_json(shared_parts.asdict(one)))
    store.put(f"jobs/{one.name}.json", folder / "job")
    said: list[str] = []
    for _ in range(2):
        remote_part.do(store.address, one.name, "abc", said.append)
    assert said == ["it says"], "the second time its result is there"
    assert [file.name for file in (folder / ".heartml/parts").rglob("*")] == ["inputs", md5], "no sound stays"
    assert shared_parts.collect(store, [one]) == []
    assert (paths.STATE / FRAMES).read_bytes() == b"heartlub dub"


def test_parts_of_recordings_have_their_audio_alone_and_a_worker_makes_the_frames(
    retrained: Workspace, tmp_path: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, worker = retrained.copy(tmp_path / "project"), tmp_path / "worker"
    worker.mkdir()
    small_project.forget_stage(project, DIVIDED[0])
    monkeypatch.chdir(project.root)
    assert shared_parts.publish(store, DIVIDED[1].replace("search", "split"), 1, force=False) == [], "it is fresh"
    shutil.rmtree(paths.cache() / "features")
    jobs = shared_parts.publish(store, DIVIDED[0], 1, force=False)
    audio = [{path for path in one.inputs if path.startswith("data/audio/")} for one in jobs]
    wanted = set(pd.read_parquet(paths.folds(TASK))["recording_id"])
    assert sorted(Path(path).stem for own in audio for path in own) == sorted(wanted), "each is in one part"
    assert len(jobs) == 4
    assert {*jobs[0].inputs.values()} <= store.inputs()
    monkeypatch.chdir(worker)
    remote_part.do(store.address, jobs[0].name, "abc", lambda _: None)
    assert not list(worker.rglob("*.flac")) and len(list(worker.rglob(".heartml/parts/inputs/*"))) < 9
    monkeypatch.chdir(project.root)
    assert shared_parts.collect(store, jobs) == jobs[1:]
    made = Store.of(encoders.spec("logspec", config.load()), "cpu").view([Path(path).stem for path in audio[0]])
    stored = Frames.open(retrained / paths.features(TASK, "logspec"))
    assert all(np.array_equal(made[i].astype(np.float32), stored[i]) for i in made)


class Future:
    """What Prefect's future does here."""

    def __init__(self, outcome: tuple[str, str] | Exception) -> None:
        self._outcome = outcome

    def result(self) -> tuple[str, str]:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def handed(store: ObjectStore, jobs: list[Job], *outcomes: tuple[str, str] | Exception) -> HandedOut:
    return HandedOut(store, jobs, [Future(outcome) for outcome in outcomes])


def test_what_workers_did_is_collected_and_the_rest_is_left_to_the_stage(store: ObjectStore, folder: Path) -> None:
    jobs = [job(), job(command=("lost",)), job(command=("failed",))]
    pack(store, jobs[0], **{FRAMES: b"frames"})
    said: list[str] = []
    outcomes = ((handed_out.DONE, ""), RuntimeError("the worker\ndied"), (handed_out.FAILED, "disk full"))
    handed(store, jobs, *outcomes).collect("features@a", said.append)
    assert said == ["features@a: part 2 of 3 is left to the stage itself: the worker died",
                    "features@a: part 3 of 3 is left to the stage itself: disk full",
                    "features@a: 1 of 3 parts were done by workers"]
    assert (paths.cache() / FRAMES.removeprefix("cache/")).exists()


def test_a_worker_with_other_code_and_a_store_that_is_gone_fail_the_stage_in_one_sentence(
    store: ObjectStore, folder: Path
) -> None:
    with pytest.raises(StageFailed, match=r"^features@a: the worker in A has the code of B$"):
        handed(store, [job()], (handed_out.REFUSED, "the worker in A has the code of B")).collect("features@a", print)
    pack(store, job(), **{"strange": b""})
    with pytest.raises(StageFailed, match="features@a: strange: no result of a part"):
        handed(store, [job()], (handed_out.DONE, "")).collect("features@a", print)


def test_a_stopped_flow_collects_nothing(store: ObjectStore, folder: Path) -> None:
    def stop() -> None:
        with run_stage.stopping_on_error():
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            stop()
        with pytest.raises(StageFailed, match=r"^features@a: stopped$"):
            handed(store, [job()], RuntimeError("IOLoop is closed")).collect("features@a", print)
    finally:
        with run_stage.stopping_on_error():
            pass


@contextlib.contextmanager
def process(arguments: list[str], where: Workspace, environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    with (where / "said").open("w") as said, subprocess.Popen(
            [sys.executable, *arguments], cwd=where.root, env={**where.environment, **environment}, text=True,
            stdout=said, stderr=subprocess.STDOUT, start_new_session=True) as started:
        try:
            yield started
        finally:
            kill(started)


def kill(started: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)


@pytest.mark.parametrize("change", [("true", "touch"), ('"inputs":{}', '"inputs":{"../out": "0"}'), ("{", "[")])
def test_a_job_that_somebody_changed_in_the_store_is_not_run(
    store: ObjectStore, folder: Path, change: tuple[str, str]
) -> None:
    wanted = job()
    (folder / "job.json").write_text(json.dumps(asdict(wanted), separators=(",", ":")).replace(*change, 1))
    store.put(f"jobs/{wanted.name}.json", folder / "job.json")
    with pytest.raises(PartsError, match="is not what the flow has put there"):
        remote_part.do(store.address, wanted.name, "", print)
    (folder / "job.json").write_text(json.dumps(asdict(wanted)))
    store.put(f"jobs/{wanted.name}.json", folder / "job.json")
    assert shared_parts.read_job(store, wanted.name) == wanted


@pytest.mark.timeout(1800)
@pytest.mark.thorough("two workers and a retraining take minutes")
def test_two_workers_that_share_no_folder_make_the_same_bytes_and_one_may_die(
    retrained: Workspace, tmp_path: Path
) -> None:
    project = retrained.copy(tmp_path / "project")
    for address in DIVIDED:
        small_project.forget_stage(project, address)
    shutil.rmtree(project / ".heartml/cache/features")
    first, second = (workspaces.make(tmp_path / name) for name in ("first", "second"))
    port = local_services.free_port()
    scheduler = f"tcp://127.0.0.1:{port}"
    worker = ["-m", "dask", "worker", scheduler, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    with contextlib.ExitStack() as stack:
        s3 = stack.enter_context(local_services.s3())
        shared = {**s3, "HEARTML_SHARED": f"s3://{BUCKET}/heartml", "HEARTML_DASK": scheduler}
        stack.enter_context(process(["-m", "dask", "scheduler", "--port", str(port), "--no-dashboard"], first, {}))
        mortal = stack.enter_context(process(worker, first, s3))
        stack.enter_context(process(worker, second, s3))
        running = stack.enter_context(process(["-m", "heartml", "retrain"], project, shared))
        while not (first / ".heartml/parts/work").exists():
            assert running.poll() is None, (project / "said").read_text()
            time.sleep(0.02)
        kill(mortal)
        assert running.wait() == 0, (project / "said").read_text()
        keys = local_services.list_objects(s3["AWS_ENDPOINT_URL"], "heartml/")
    assert small_project.canonical_lock(project) == small_project.canonical_lock(retrained)
    assert small_project.output_checksums(project) == small_project.output_checksums(retrained)
    jobs = {key for key in keys if "/jobs/" in key}
    results = {key for key in keys if "/results/" in key}
    assert len(jobs) == len(results) == 16, "also the part of the worker that was killed"
    assert " 0 of them new" in (project / f".heartml/logs/{DIVIDED[0]}.log").read_text(), "the stage found all done"
    assert not (second / "artifacts").exists()
    assert np.all([not path.exists() for path in (first / "data", second / "data")])
