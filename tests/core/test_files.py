"""What is written is whole, whoever writes beside it; and what is kept knows the code that it was made by."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import heartml
from heartml.core.system import code_hash, files
from heartml.pipeline import recovery

ROUNDS = 150
LOCK = "schema: '2.0'\nstages:\n  one:\n    cmd: ls\n"


def test_threads_that_write_one_file_do_not_fail_each_other(tmp_path: Path) -> None:
    path, failed = tmp_path / "kept", []

    def write(text: str) -> None:
        for _ in range(ROUNDS):
            try:
                with files.replacing(path) as temporary:
                    temporary.write_text(text)
            except OSError as error:
                failed.append(error)

    writers = [threading.Thread(target=write, args=(letter * 1000,)) for letter in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failed
    assert path.read_text() in {letter * 1000 for letter in "abc"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_scratch_folder_goes_though_a_thread_goes_on_writing_there_and_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    remove = shutil.rmtree
    removals: list[str] = []

    def written_to_meanwhile(folder: Path, ignore_errors: bool = False) -> None:
        remove(folder, ignore_errors)
        removals.append(str(folder))
        if len(removals) == 1:
            (folder / "deep").mkdir(parents=True)      # a thread made its file at that moment

    monkeypatch.setattr("heartml.core.system.files.shutil.rmtree", written_to_meanwhile)
    with pytest.raises(KeyboardInterrupt), files.temporary_folder() as folder:
        raise KeyboardInterrupt
    assert removals == [str(folder)] * 2
    assert not list(tmp_path.iterdir())


INTERRUPTED = """
import threading
from heartml.core.system import files

removed = threading.Event()

def download(folder):
    removed.wait()
    (folder / "deep").mkdir(parents=True)

with files.temporary_folder() as folder:
    threading.Thread(target=download, args=(folder,)).start()
    try:
        raise KeyboardInterrupt
    finally:
        threading.Timer(0.3, removed.set).start()
"""


def test_what_a_thread_makes_again_after_the_removal_goes_when_the_process_ends(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "KeyboardInterrupt" in ended.stderr
    assert not list(tmp_path.iterdir())


def killed(act: Callable[[], object]) -> int:
    """The number of a process that was killed in `act`."""
    pid = os.fork()
    if pid == 0:
        act()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    return pid


def test_what_killed_processes_left_of_a_file_the_next_writer_removes(tmp_path: Path) -> None:
    path = tmp_path / "kept [1].json"

    def write() -> None:
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    gone = killed(write)
    assert len(list(tmp_path.iterdir())) == 1
    others = [tmp_path / f".{path.name}.{name}.tmp" for name in (f"0123abcd-7.{gone}", os.getppid())]
    others.append(tmp_path / f".other.json.{gone}.tmp")
    for other in others:
        other.touch()
    files.write_json(path, {})
    assert {*tmp_path.iterdir()} == {path, *others}, "of another machine, of a living process, of another file"


def test_a_scratch_folder_of_a_killed_process_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def work() -> None:
        with files.temporary_folder() as folder:
            (folder / "model").mkdir()
            os.kill(os.getpid(), signal.SIGKILL)

    killed(work)
    assert len(list(tmp_path.iterdir())) == 1
    with files.temporary_folder() as mine, files.temporary_folder() as too:
        assert {*tmp_path.iterdir()} == {mine, too}
    assert not list(tmp_path.iterdir())


def test_a_folder_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"

    def write(text: str) -> None:
        with files.replacing_folder(folder) as temporary:
            for name in "ab":
                (temporary / name).write_text(text)

    def die_at_it(place: Path, **_: object) -> None:
        (Path(place) / "a").unlink(missing_ok=True)
        raise SystemExit

    write("former")
    with monkeypatch.context() as dying, pytest.raises(SystemExit):
        dying.setattr("shutil.rmtree", die_at_it)
        write("new")
    assert [(folder / name).read_text() for name in "ab"] == ["new", "new"]
    write("newest")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_was_half_removed_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "round"
    folder.mkdir()
    (folder / "done").touch()

    def die_at_it(_: Path) -> None:
        raise SystemExit

    monkeypatch.setattr("shutil.rmtree", die_at_it)
    with pytest.raises(SystemExit):
        files.remove_folder(folder)
    assert not folder.exists()


def test_a_lock_file_that_is_torn_does_not_replace_the_copy_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recovery.save_lock_file()
    assert not recovery._SAVED.exists(), "there is nothing to keep"
    recovery.DVC_LOCK.write_text(LOCK)
    recovery.save_lock_file()
    recovery.DVC_LOCK.write_text(LOCK[:-8])
    recovery.save_lock_file()
    assert recovery._SAVED.read_text() == LOCK
    assert [path.name for path in recovery._SAVED.parent.iterdir()] == [recovery._SAVED.name]


def test_the_hash_of_the_code_changes_with_what_it_is_of_and_with_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("heads/one.py", "heads/deep/two.py", "search.py", "other.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    monkeypatch.setattr(heartml, "__file__", str(tmp_path / "__init__.py"))
    before = code_hash.fingerprint("heads", "search.py")
    assert code_hash.fingerprint("search.py", "heads") == before
    (tmp_path / "other.py").write_text("# changed\n")
    assert code_hash.fingerprint("heads", "search.py") == before
    seen = {before}
    for name in ("heads/one.py", "heads/deep/two.py", "search.py"):
        (tmp_path / name).write_text("# changed\n")
        seen.add(code_hash.fingerprint("heads", "search.py"))
    (tmp_path / "heads/one.py").rename(tmp_path / "heads/three.py")
    assert len(seen | {code_hash.fingerprint("heads", "search.py")}) == 5
    with pytest.raises(FileNotFoundError, match="head: no module"):
        code_hash.fingerprint("head")
