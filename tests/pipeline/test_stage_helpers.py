"""Errors that DVC only logs are raised; a part of a stage is computed by the stage's own command."""

import errno
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from support import toy_pipelines
from support.workspaces import Workspace

from heartml.pipeline import dvc_log_errors, parts, run_stage, used_resources


def logged(name: str, error: BaseException) -> None:
    try:
        raise error
    except type(error):
        logging.getLogger(name).exception("failed to transfer")


def test_an_error_that_is_only_logged_is_raised_and_the_machines_comes_first() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(dvc_log_errors.NotCopied, match=r"could not copy a file: strange\. Run it again"), \
            dvc_log_errors.raise_logged_errors():
        logged("dvc_data.hashfile", ValueError("strange"))
    with pytest.raises(OSError, match="No space left") as raised, dvc_log_errors.raise_logged_errors():
        logged("dvc_data.hashfile", ValueError("strange"))
        logged("dvc_objects.fs", full)
    assert raised.value is full
    with pytest.raises(OSError, match="No space left") as raised, dvc_log_errors.raise_logged_errors():
        logged("dvc.repo.checkout", full)
        raise RuntimeError("DVC's own error")
    assert isinstance(raised.value.__cause__, RuntimeError)


def test_other_messages_pass_and_loggers_are_as_they_were(caplog: pytest.LogCaptureFixture) -> None:
    logger, seen = logging.getLogger("dvc_data"), []
    handler = logging.Handler()
    handler.emit = seen.append      # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        before = (list(logger.handlers), logger.level, logger.propagate)
        with dvc_log_errors.raise_logged_errors():
            logger.warning("slow")
        assert [record.getMessage() for record in seen] == ["slow"]
        with pytest.raises(KeyError), dvc_log_errors.raise_logged_errors():
            raise KeyError("nothing was logged")
        assert (list(logger.handlers), logger.level, logger.propagate) == before
    finally:
        logger.removeHandler(handler)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project of one stage that notes how it was called."""
    project = toy_pipelines.make(tmp_path / "toy")
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("PYTHONPATH", str(toy_pipelines.ROOT))
    Path("note.py").write_text("import sys; print('called', *sys.argv[1:]); sys.exit('--part' in sys.argv and "
                               "sys.argv[-1] == '2/3')")
    command = f"{sys.executable} note.py --task 'a b'"
    Path("dvc.yaml").write_text(json.dumps({"stages": {"note": {"cmd": command, "deps": ["note.py"],
                                                                "params": ["seed"]}}}))
    return project


def test_the_command_of_a_stage_is_that_of_dvc_yaml_and_none_where_it_is_fresh(toy: Workspace) -> None:
    command = [sys.executable, "note.py", "--task", "a b"]
    assert parts.stage_command("note", force=False) == command, "it has never run"
    run_stage.run("note", log_line=lambda _: None)
    assert parts.stage_command("note", force=False) == []
    assert parts.stage_command("note", force=True) == command


def test_a_part_is_the_stages_command_with_part_and_its_output_is_kept(toy: Workspace) -> None:
    lines: list[str] = []
    assert parts.run("note", "1/3", force=False, log_line=lines.append)
    assert lines == ["called --task a b --part 1/3"]
    assert run_stage.log_file("note.1-3").read_text().strip() == lines[0]
    assert not parts.run("note", "2/3", force=False, log_line=lines.append), "a part that fails"


def test_what_processes_below_take_is_counted_also_of_those_that_nobody_waits_for() -> None:
    """The child ends before its own child does, so the kernel adds the grandchild's time to nobody's."""
    work = ("import time; a = bytearray(60_000_000); end = time.process_time() + 1.2\n"
            "while time.process_time() < end: pass")
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {work!r}])\nimport time; time.sleep(2.5)"
    with used_resources.watched() as used:
        subprocess.run([sys.executable, "-c", child], check=True)
    found = used.to_json()
    assert 0.5 < found["cpu_s"] < 6
    assert 60 < found["memory_mb"] < 600
    with used_resources.watched() as nothing:
        pass
    assert nothing.to_json() == {"cpu_s": 0, "memory_mb": 0}
