"""What everything stands on: lazy sequences, families, processes by name."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.workspaces import ROOT

from heartml.core.system import family, processes
from heartml.core.system.lazy import LazySequence, select_rows


@settings(deadline=None)
@given(st.lists(st.integers(), max_size=8), st.integers(-10, 10), st.slices(8))
def test_a_lazy_sequence_has_the_items_and_slices_of_a_list(items: list[int], position: int, part: slice) -> None:
    lazy = LazySequence(items.__getitem__, len(items))
    assert list(lazy) == items
    assert list(lazy[part]) == items[part]
    if -len(items) <= position < len(items):
        assert lazy[position] == items[position]
    else:
        with pytest.raises(IndexError):
            lazy[position]


def test_a_lazy_sequence_makes_an_item_when_it_is_looked_at_and_not_before() -> None:
    made: list[int] = []
    lazy = LazySequence(lambda i: made.append(i) or i * i, 1000)
    part = select_rows(lazy[10:20], np.array([9, 0]))
    assert (len(lazy), len(part), made) == (1000, 2, [])
    assert list(part) == [361, 100]
    assert made == [19, 10]


def test_a_member_of_a_family_is_imported_at_the_first_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "animals").mkdir()
    (tmp_path / "animals/__init__.py").write_text("")
    (tmp_path / "animals/cat.py").write_text("SOUND = 'meow'")
    (tmp_path / "animals/dog.py").write_text("raise ImportError('no dog is here')")
    monkeypatch.syspath_prepend(tmp_path)
    members = family.members("animals", ["cat", "dog"])
    assert list(members) == ["cat", "dog"]
    assert not {"animals", "animals.cat"} & set(sys.modules)
    assert members["cat"]().SOUND == "meow"
    assert members["cat"]() is sys.modules["animals.cat"]
    with pytest.raises(ImportError, match="no dog is here"):
        members["dog"]()


def test_a_process_is_known_by_its_name_until_it_ends() -> None:
    code = ("from heartml.core.system import processes; print(processes.own_name(), flush=True); input()")
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}) as child:
        assert child.stdout
        name = child.stdout.readline().strip()
        host, pid, start = name.split("/")
        assert int(pid) == child.pid
        assert not processes.has_ended(name)
        assert processes.has_ended(f"{host}/{pid}/{start}0"), "the number belongs to a later process"
        child.communicate("")
        assert processes.has_ended(name)
        assert not processes.has_ended(f"not-{name}"), "nobody can tell of another machine"
    assert not processes.has_ended(processes.own_name())


def test_a_process_ends_with_its_parent(tmp_path: Path) -> None:
    """The parent starts a child that would sleep for an hour, and is killed."""
    child = ("import os, sys, time; from heartml.core.system.processes import die_with_parent; "
             "die_with_parent(int(sys.argv[1])); print(os.getpid(), flush=True); time.sleep(3600)")
    parent = (f"import os, subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}, "
              "str(os.getpid())]); time.sleep(3600)")
    with subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}) as started:
        assert started.stdout
        pid = int(started.stdout.readline())
        assert processes.alive(pid)
        started.kill()
        assert started.stdout.read() == "", "the pipe ends when the child does"
    late = subprocess.run([sys.executable, "-c", child, str(started.pid)], cwd=ROOT, text=True, capture_output=True,
                          check=False, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (late.returncode, late.stdout) == (1, ""), "whose parent has ended already ends at once"
