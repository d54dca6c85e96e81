"""What is written is whole, whoever writes beside it; and what is kept knows the code that it was made by."""

import contextlib
import threading
from pathlib import Path

import pytest

import heartml
from heartml.core import code, files
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
    going = threading.Event()

    def download(into: Path) -> None:
        for number in range(100):
            with contextlib.suppress(FileNotFoundError):
                (into / "deep" / str(number)).mkdir(parents=True, exist_ok=True)
            going.set()

    with pytest.raises(KeyboardInterrupt), files.scratch() as folder:
        late = threading.Thread(target=download, args=(folder,))
        late.start()
        going.wait()
        raise KeyboardInterrupt
    late.join()
    assert not list(tmp_path.iterdir())


def test_a_lock_file_that_is_torn_does_not_replace_the_copy_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recovery.keep()
    assert not recovery._KEPT.exists(), "there is nothing to keep"
    recovery.DVC_LOCK.write_text(LOCK)
    recovery.keep()
    recovery.DVC_LOCK.write_text(LOCK[:-8])
    recovery.keep()
    assert recovery._KEPT.read_text() == LOCK
    assert [path.name for path in recovery._KEPT.parent.iterdir()] == [recovery._KEPT.name]


def test_the_hash_of_the_code_changes_with_what_it_is_of_and_with_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("heads/one.py", "heads/deep/two.py", "search.py", "other.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    monkeypatch.setattr(heartml, "__file__", str(tmp_path / "__init__.py"))
    before = code.fingerprint("heads", "search.py")
    assert code.fingerprint("search.py", "heads") == before
    (tmp_path / "other.py").write_text("# changed\n")
    assert code.fingerprint("heads", "search.py") == before
    seen = {before}
    for name in ("heads/one.py", "heads/deep/two.py", "search.py"):
        (tmp_path / name).write_text("# changed\n")
        seen.add(code.fingerprint("heads", "search.py"))
    (tmp_path / "heads/one.py").rename(tmp_path / "heads/three.py")
    assert len(seen | {code.fingerprint("heads", "search.py")}) == 5
    with pytest.raises(FileNotFoundError, match="head: no module"):
        code.fingerprint("head")
