"""Text that others wrote is shown as text: in spreadsheets, terminals, logs and pages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.workspaces import ROOT

from heartml.cli import tables
from heartml.core.system.text import csv_cell, one_line, printable
from heartml.registry.versions import Version
from heartml.release import outcome as results

# Spreadsheets, terminals, pages
FEW = settings(max_examples=60, deadline=None, derandomize=True)
SIGNS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠A")


@FEW
@given(st.text())
@example("=cmd|' /C calc'!A0")
def test_no_text_becomes_a_formula_or_a_control_character(text: str) -> None:
    shown = csv_cell(text)
    assert not shown.startswith(SIGNS)
    assert shown.isprintable()
    if text.isprintable() and not text.startswith(SIGNS):
        assert shown == text
    assert one_line(text).isprintable()


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_shown(text: str) -> None:
    shown = csv_cell(text)
    assert shown.startswith(("'", "\\"))
    assert shown.endswith(text.strip())


HOSTILE_NAME = "x\x1b[2J\x1b]0;owned\x07[bold red][/nothing]\u202e<script>alert(1)</script>\nheartml: all is well"


def no_command(text: str) -> None:
    """Nothing in `text` speaks to a terminal."""
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text
    assert "heartml: all is well" not in text.splitlines()


def test_an_error_cannot_command_the_terminal_or_look_like_two(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    done = subprocess.run([sys.executable, "-m", "heartml", "ingest", "generic", tmp_path / HOSTILE_NAME],
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    no_command(done.stderr)


def test_the_registrys_words_are_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "600")
    results.show_versions([Version(HOSTILE_NAME, "1", "r", "s", (HOSTILE_NAME,), {"heartml.reason": HOSTILE_NAME}, 0)])
    shown = capsys.readouterr().out
    no_command(shown)
    assert "[bold" in shown


def test_a_collections_name_is_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    number = {"value": 0.5, "low": 0.4, "high": 0.6}
    scores = {"macro_auc": number}
    one = {"value": HOSTILE_NAME, "units": 3, "groups": 2, "best_floor": None, "floors": {}, "scores": scores,
           "in_collection": scores, "difference": number, "unheard": ["Unknown"],
           "per_class": {"Present": {"units": 3, "estimable": False}}}
    tables.leave_out({"metric": "macro_auc", "task": "circor-murmur", "by": "source", "left_out": [one],
                       "min_groups": 10, "confidence": 0.95})
    shown = capsys.readouterr().out
    no_command(shown)
    assert "[/nothing]" in shown.replace("\n", "")


def test_a_log_line_cannot_forge_another(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    from flows.support import console

    with console.verbose():
        logging.getLogger("prefect.flow_runs").warning(HOSTILE_NAME)
    shown = capsys.readouterr().err
    no_command(shown)
    assert "[/nothing]" in shown.replace("\n", "")


@FEW
@given(st.text())
def test_what_is_printable_is_left_alone(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text) == text or not text.isprintable()
