"""Long work says how far it is: a bar on a terminal, lines elsewhere, marked lines for the flow of a retraining."""

import os
import pty
import subprocess
import sys
import time

import pytest

from flows.support import console
from heartml.core.system import progress

SLOW = """
import time
from heartml.core.system.progress import track
for letter in track("abcdef", "letters", 6):
    for digit in track("12", "digits", 2):
        time.sleep(0.1)
print("done")
"""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.05)


def test_everything_is_yielded_and_short_work_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_a_line_says_how_far_nested_work_is(
    impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.show("training: trial 2 of 16", 40, counted=False) as shown:
        shown.advance(10)
        for _ in progress.track("ab", "fits", 2):
            time.sleep(0.2)
        shown.words = "training: trial 3 of 16"
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: trial 2 of 16: 25%, 0 s; fits: 0 of 2, 0 s"
    assert any("fits: 1 of 2" in line for line in lines)
    assert lines[-1].startswith("training: trial 3 of 16: 25%, ")
    assert not progress._shown


def test_the_time_left_follows_from_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    work = progress.Progress("decoding", 400)
    work.advance(100)
    assert str(work) == "decoding: 100 of 400, 0 s", "nothing is known yet"
    now = 130.0
    assert str(work) == "decoding: 100 of 400, 30 s, about 1 min 30 s left"
    assert str(progress.Progress("runs", None)) == "runs: 0 done, 0 s"


def test_a_stage_of_a_retraining_marks_its_lines_and_the_console_shows_the_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(progress.PERIOD, "0.05")
    for _ in progress.track("a", "search: trials 1 to 4 of 16", 1):
        time.sleep(0.2)
    line = capsys.readouterr().err.splitlines()[0]
    assert line == "progress: search: trials 1 to 4 of 16: 0 of 1, 0 s"
    with console.running("search@demo"):
        console.report("search@demo", line.removeprefix(progress.MARK))
        assert console._under_way() == "search@demo (search: trials 1 to 4 of 16: 0 of 1, 0 s)"
    assert console._under_way() == ""


def test_where_stderr_is_closed_nothing_is_printed_anywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.01)
    monkeypatch.setattr(sys, "stderr", None)
    for _ in progress.track("a", "letters", 1):
        time.sleep(0.05)
    assert capsys.readouterr().out == "", "a program reads JSON there"


@pytest.mark.parametrize("period", ["soon", "0", "-1", "nan", "inf"])
def test_a_period_that_is_none_is_not_taken(period: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(progress.PERIOD, period)
    assert progress._period_s() == progress.EVERY_S


def test_on_a_terminal_bars_show_outer_and_inner_work_and_go() -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=follower, text=True) as process:
        assert process.communicate(timeout=60)[0] == "done\n"
    os.close(follower)
    seen = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:      # Linux: the other side is closed
            break
        seen += piece
        if not piece:
            break
    os.close(leader)
    assert b"letters: " in seen and b"digits: " in seen and b" of 6, " in seen
