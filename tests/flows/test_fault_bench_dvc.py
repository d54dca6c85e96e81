"""The fault bench, DVC: two `dvc repro` at once, a damaged cache, a transfer that breaks off."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from support import fault_injection, publisher_files, toy_pipelines
from support.workspaces import Workspace

from heartml.core import paths
from heartml.core.system import hashing
from heartml.data import ingest
from heartml.data.ingest import version
from heartml.pipeline import graph, run_stage, verify_outputs
from heartml.pipeline.stage_process import StageResult

pytestmark = pytest.mark.timeout(1800)      # on a machine that does ten other things


# DVC: two at once, a damaged cache, a transfer that breaks off


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The toy project as working folder."""
    project = toy_pipelines.make(tmp_path / "toy")
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("PYTHONPATH", str(toy_pipelines.ROOT))
    return project


def test_of_two_dvc_repro_at_once_one_does_the_work_and_the_lock_is_whole(toy: Workspace) -> None:
    toy_pipelines.set_numbers(toy.root, seconds={"one": 1, "two": 1})
    repro = [sys.executable, "-m", "dvc", "repro"]
    both = [subprocess.Popen(repro, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    for process, words in zip(both, said, strict=True):
        assert process.returncode == 0 or "lock" in words or "is busy" in words, words
    assert 0 in [process.returncode for process in both], said
    subprocess.run(repro, check=True, capture_output=True)
    assert set(yaml.safe_load(Path("dvc.lock").read_text())["stages"]) == set(toy_pipelines.GRAPH)
    assert sorted(toy_pipelines.stages_that_ran(toy.root)) == sorted(toy_pipelines.GRAPH), "each stage ran once"
    assert Path("four.txt").read_text() == "one0\ntwo0\none0\nthree0\nfour0\n"
    assert not graph.plan().due


def damage(place: Path) -> None:
    """Turn one bit, as a failing disk does: size, time and permissions stay."""
    before = place.stat()
    place.chmod(0o644)
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    place.chmod(before.st_mode)


def objects(like: str = "") -> list[Path]:
    """What DVC's cache holds, by hash."""
    return [p for p in Path(".dvc/cache/files/md5").rglob("*") if p.is_file() and like in p.parent.name + p.name]


def test_a_damaged_object_of_dvcs_cache_is_never_handed_on(toy: Workspace) -> None:
    for stage in graph.plan().due:
        run_stage.run(stage.address, log_line=lambda _: None)
    toy_pipelines.stages_that_ran(toy.root)
    whole, md5 = Path("two.txt").read_text(), yaml.safe_load(Path("dvc.lock").read_text())["stages"]["two"]["outs"]
    [place] = objects(md5[0]["md5"])
    damage(place)
    Path("two.txt").unlink()
    heard: list[str] = []
    assert run_stage.run("two", log_line=heard.append).result is StageResult.RAN
    assert toy_pipelines.stages_that_ran(toy.root) == ["two"]
    assert Path("two.txt").read_text() == place.read_text() == whole
    assert "damaged, so it is made again" in " ".join(heard)
    assert [left.name for left in verify_outputs.DAMAGED.iterdir()] == [md5[0]["md5"]]
    Path("two.txt").unlink()
    assert run_stage.run("two", log_line=heard.append).result is StageResult.RESTORED


@pytest.fixture
def clone(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project as a clone has it: the version of its data is in the remote alone."""
    monkeypatch.chdir(workspace.root)
    ingest.run("pascal", publisher_files.pascal(tmp_path / "publisher"))
    subprocess.run(["dvc", "push", "-q", "data.dvc"], check=True, env=workspace.environment)
    shutil.rmtree("data")
    return workspace


def tables() -> dict[str, str]:
    """The files of the data version by hash."""
    return {str(p): hashing.sha256_file(p) for p in sorted(paths.DATA.rglob("*")) if p.is_file()}


def test_damaged_data_are_fetched_again_or_refused_and_never_trained_on(clone: Workspace, tmp_path: Path) -> None:
    subprocess.run(["dvc", "checkout", "-q", "data.dvc"], check=True, env=clone.environment)
    whole = tables()
    assert not ingest.run("pascal", tmp_path / "publisher").changed
    for place in objects():
        damage(place)
    shutil.rmtree("data")
    assert not ingest.run("pascal", tmp_path / "publisher").changed
    assert tables() == whole, "the remote had it"

    [labels] = objects(files_md5(paths.RECORDINGS))
    damage(labels)
    shutil.rmtree("data")
    subprocess.run(["dvc", "checkout", "-q", "data.dvc"], check=True, env=clone.environment)
    assert tables() != whole, "DVC itself says nothing"
    with pytest.raises(graph.PipelineError, match=r"data: not the bytes that data\.dvc names.*dvc pull --force"):
        graph.plan()
    subprocess.run(["dvc", "pull", "-q", "--force", "data.dvc"], check=True, env=clone.environment)
    assert tables() == whole
    assert graph.plan().due

    sound = next(paths.DATA.rglob("*.flac"))
    sound.unlink()
    with pytest.raises(graph.PipelineError, match=f"data: 1 file is missing or changed: {sound}. `dvc checkout"):
        graph.plan()


def files_md5(place: Path) -> str:
    """The name of a file in DVC's cache."""
    return hashlib.md5(place.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
def far(clone: Workspace) -> Iterator[fault_injection.CuttableConnection]:
    """The clone's remote behind HTTP, over a connection that can be cut."""
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=str(clone / "bundled"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with fault_injection.cuttable_connection(server.server_port) as connection:
            address = f"http://127.0.0.1:{connection.port}"
            subprocess.run(["dvc", "remote", "add", "-q", "-f", "bundled", address], check=True, env=clone.environment)
            yield connection
        server.shutdown()


def test_a_remote_that_drops_half_of_every_transfer_leaves_no_half_version(
    clone: Workspace, far: fault_injection.CuttableConnection, tmp_path: Path
) -> None:
    shutil.rmtree(".dvc/cache")
    far.after = 3000
    broken = clone.run("ingest", "pascal", tmp_path / "publisher", check=False)
    assert far.cuts
    assert broken.returncode == 1, broken.stdout
    assert "Traceback" not in broken.stderr
    assert len([line for line in broken.stderr.splitlines() if line.startswith("heartml: ")]) == 1, broken.stderr
    assert all(hashlib.md5(place.read_bytes(), usedforsecurity=False).hexdigest() in place.parent.name + place.name
               for place in objects()), "what came is whole, or not there"
    far.after = None
    assert "Nothing has changed" in clone.run("ingest", "pascal", tmp_path / "publisher").stdout
    assert ingest.version.read().recordings["recording_id"].is_unique
    assert not version.RESTORING.exists()
