"""Killed, cut short or twice at once: one version of the data stays whole, and the next ingest finishes."""

import contextlib
import errno
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from support import publisher_files, workspaces
from support.ingested_data import assert_data_is_whole, data_checksums
from support.publisher_files import Child
from support.workspaces import Workspace

from heartml import cli
from heartml.core import command
from heartml.data import ingest
from heartml.data.ingest import version

pytestmark = pytest.mark.timeout(600)
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "decoding": lambda root: any((root / version.BUILD / "audio").rglob("*.flac")),
    "building": lambda root: (root / version.BUILD / "data").exists(),
    "before recording": lambda root: (root / version.PUBLISHING).exists(),
    "while recording": lambda root: (root / version.PUBLISHING).exists() and cached(root) > 25,
}


def cached(root: Path) -> int:
    return sum(1 for p in (root / ".dvc" / "cache").rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path, dict[str, str]]:
    """A project with 15 recordings, a folder that holds 45 (enough for worker processes), and what is to come out."""
    at = tmp_path_factory.mktemp("growing")
    many = [Child(100 + n, recordings={"AV": 3 * n, "PV": 3 * n + 1, "MV": 3 * n + 2}) for n in range(15)]
    project = workspaces.make(at / "project")
    project.run("ingest", "circor", publisher_files.circor(at / "publisher", many[:5]))
    undisturbed = project.copy(at / "undisturbed")
    undisturbed.run("ingest", "circor", publisher_files.circor(at / "publisher", many))
    shutil.rmtree(project / ".heartml" / "cache")      # so that all 45 are decoded
    return project, at / "publisher", data_checksums(undisturbed.root)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_one_version_is_whole_and_the_next_run_finishes(
    growing: tuple[Workspace, Path, dict[str, str]], tmp_path: Path, moment: str
) -> None:
    original, folder, expected = growing
    project = original.copy(tmp_path / "project")
    former, pointer = data_checksums(project.root), (project / "data.dvc").read_text()
    process = project.start("ingest", "circor", folder)
    while not MOMENTS[moment](project.root) and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was killed in time"
    assert_data_is_whole(project.root)
    if moment in ("decoding", "building"):
        assert data_checksums(project.root) == former
    # A late kill meets DVC while it writes the pointer. Then a mark says so, and the next run writes it anew.
    assert (project / "data.dvc").read_text() == pointer or (project / str(version.PUBLISHING)).exists()
    assert json.loads(project.run("ingest", "circor", folder, "--json").stdout)["changed"]
    assert data_checksums(project.root) == expected
    assert not (project / str(version.BUILD)).exists()
    assert not (project / str(version.PUBLISHING)).exists()


def test_a_data_dvc_cut_short_by_a_kill_is_written_anew(here: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.circor(tmp_path / "publisher")
    ingest.run("circor", folder)
    before = data_checksums()
    whole = version.POINTER.read_text()
    for length in (0, 5, 20, len(whole) - 3):
        version.POINTER.write_text(whole[:length])
        version.PUBLISHING.touch()      # as it is while DVC writes
        assert ingest.run("circor", folder).changed
        assert data_checksums() == before


@pytest.mark.parametrize("kind", ["copy, as DVC has it", "hardlink", "symlink"])
def test_a_kill_while_dvc_links_files_to_its_cache_leaves_no_hole(
    here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from dvc.repo import Repo
    from dvc_data.hashfile import checkout

    linked = kind in ("hardlink", "symlink")
    if linked:
        subprocess.run(["dvc", "config", "cache.type", kind], check=True, env=here.environment)
    folder = publisher_files.circor(tmp_path / "publisher")
    ingest.run("circor", folder)
    version.PUBLISHING.touch()      # as after a kill before DVC recorded: what is built then shares files with data/
    removed = []

    def remove_and_die(*given: object, **options: object) -> None:
        removed.append(next(Path("data/audio").rglob("*.flac")))
        removed[-1].unlink()
        raise SystemExit

    with monkeypatch.context() as dying:
        dying.setattr(checkout, "_remove", remove_and_die)
        dying.setattr(Repo, "checkout", remove_and_die)
        with pytest.raises(SystemExit) if linked else contextlib.nullcontext():
            ingest.run("circor", folder)
    assert len(removed) == linked
    assert not ingest.run("circor", folder).changed
    assert_data_is_whole()
    assert all(path.is_symlink() == (kind == "symlink") for path in Path("data").rglob("*.flac"))
    assert not version.RESTORING.exists() and not version.PUBLISHING.exists()


@pytest.mark.parametrize(("fault", "words", "fetched"), [
    (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk", False),
    (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk", True),
    (ValueError("odd"), "DVC could not copy a file: odd", False),
])
def test_a_file_that_dvc_could_not_copy_is_told_and_copied_by_the_next_run(
    here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    fault: Exception, words: str, fetched: bool,
) -> None:
    """DVC itself logs that, and goes on as if the file were in its cache, or takes away what it has fetched."""
    from dvc_objects.fs.base import FileSystem

    folder = publisher_files.circor(tmp_path / "publisher")
    if fetched:
        ingest.run("circor", folder)
        shutil.rmtree("data")
        capfd.readouterr()
    put, refused = FileSystem.put_file, []

    def refuse_one(self: FileSystem, source: str, target: str, *given: object, **options: object) -> None:
        if not refused and (fetched or source.endswith(".flac")):
            refused.append(source)
            raise fault
        put(self, source, target, *given, **options)

    monkeypatch.setattr("sys.argv", ["heartml", "ingest", "circor", str(folder)])
    with monkeypatch.context() as full:
        full.setattr(FileSystem, "put_file", refuse_one)
        assert command.run(cli.cli) == 1
    said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith(str(folder))]
    assert refused and len(said) == 1
    assert said[0].startswith(f"heartml: {words}")
    ingest.run("circor", folder)
    assert_data_is_whole()
    status = subprocess.run(["dvc", "status", "data.dvc"], check=True, env=here.environment, capture_output=True)
    assert b"up to date" in status.stdout, "no file is missing from the cache"


def test_two_ingests_at_once_take_turns(workspace: Workspace, tmp_path: Path) -> None:
    folders = {"pascal": publisher_files.pascal(tmp_path / "pascal"),
               "circor": publisher_files.circor(tmp_path / "circor")}
    running = [workspace.start("ingest", name, folder) for name, folder in folders.items()]
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    table = pd.read_parquet(workspace / "data" / "recordings.parquet")
    assert table["dataset"].value_counts().to_dict() == {"circor": 12, "pascal": 13}
    assert_data_is_whole(workspace.root)
