"""What the machine did to a run is told in words, whatever a library has made of it."""

import errno
import resource
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import pytest

from heartml.core import command
from heartml.core.system import files, machine_errors


def _save(file: Path) -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        np.save(file, np.zeros(4096))
    except OSError as error:
        return f"{error.errno}: {machine_errors.explain(error)}"
    return "saved"


def test_an_array_that_did_not_fit_is_a_full_disk(tmp_path: Path) -> None:
    """numpy counts what it has written, and drops the system's number of the error."""
    with get_context("fork").Pool(1) as alone:
        said = alone.apply(_save, [tmp_path / "array.npy"])
    assert said.startswith("None: no space left on the disk. Nothing that is done is lost: free some")


def test_a_full_disk_where_python_finds_no_temporary_folder_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    with pytest.raises(FileNotFoundError) as raised, files.temporary_folder():
        pass
    words = "can be written (full, or broken). Nothing that is done is lost"
    assert words in str(machine_errors.explain(raised.value))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EMFILE])
def test_the_file_is_named_where_the_system_names_it(number: int) -> None:
    assert "(here/array.npy)" in str(machine_errors.explain(OSError(number, "words", "here/array.npy")))


def test_a_fault_of_ours_is_not_the_machines() -> None:
    assert machine_errors.explain(KeyError("requested")) is None
    assert machine_errors.explain(FileNotFoundError(errno.ENOENT, "no such file", "params.yaml")) is None


@pytest.mark.parametrize("status", [0, 130])
def test_what_comes_up_while_an_interruption_is_dealt_with_is_part_of_it(
    status: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    @click.command()
    def download() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            Path("no/such/folder").rmdir()

    monkeypatch.setattr("sys.argv", ["heartml"])
    assert command.run(download, interrupted=status) == status
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("missing", "words"), [
    ("artifacts/circor-murmur/folds.parquet", "`heartml retrain` runs all"),
    ("data/recordings.parquet", "`heartml ingest pascal DIR`"),
])
@pytest.mark.parametrize("library", [True, False], ids=["pyarrow", "python"])
def test_a_stage_that_comes_too_early_says_what_comes_first(
    missing: str, words: str, library: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    @click.command()
    def stage() -> None:
        if library:
            raise FileNotFoundError(str(Path(missing).resolve()))
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", missing)

    monkeypatch.setattr("sys.argv", ["heartml"])
    assert command.run(stage) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"heartml: {missing}: not here.")
    assert words in said
    monkeypatch.setenv("DVC_STAGE", "search")
    with pytest.raises(FileNotFoundError):
        command.run(stage)


def test_another_file_that_is_missing_is_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def stage() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "heartml/nothing.json")

    monkeypatch.setattr("sys.argv", ["heartml"])
    with pytest.raises(FileNotFoundError):
        command.run(stage)
