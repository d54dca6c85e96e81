"""DVC's graph is the pipeline's: what is stale, in which turn, how a stage fails; and what a killed run left behind."""

import errno
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support import toy_pipelines

from flows.support import run_local
from heartml.core import config
from heartml.core.system.errors import HeartMLError
from heartml.core.system.locks import Busy
from heartml.pipeline import graph, recovery, run_stage, stage_process
from heartml.pipeline.graph import PipelineError
from heartml.pipeline.run_stage import StageFailed, StageKilled, StageTimedOut
from heartml.pipeline.stage_process import StageResult


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy project as working folder; stages find this code."""
    root = toy_pipelines.make(tmp_path / "toy").root
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(toy_pipelines.ROOT))
    return root


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy project whose stages have all run. Do not write here."""
    root = toy_pipelines.make(tmp_path_factory.mktemp("finished") / "toy").root
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("PYTHONPATH", str(toy_pipelines.ROOT))
        assert set(run_due().values()) == {StageResult.RAN}
    toy_pipelines.stages_that_ran(root)
    return root


@pytest.fixture
def ran(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as working folder."""
    shutil.copytree(finished, tmp_path / "toy", symlinks=True)
    monkeypatch.chdir(tmp_path / "toy")
    monkeypatch.setenv("PYTHONPATH", str(toy_pipelines.ROOT))
    return tmp_path / "toy"


def run_due(**options) -> dict[str, StageResult]:
    return {s.address: run_stage.run(s.address, log_line=lambda _: None, **options).result for s in graph.plan().due}


def test_the_plan_is_dvcs_graph_with_every_stage_behind_what_it_needs(toy: Path) -> None:
    plan = graph.plan()
    order = [stage.address for stage in plan.stages]
    assert {s.address: set(s.needs) for s in plan.stages} == {n: set(needs) for n, needs in toy_pipelines.GRAPH.items()}
    assert all(order.index(need) < order.index(s.address) for s in plan.stages for need in s.needs)
    assert plan.upstream_of(Path("three.txt")) == {"one", "three"}


def test_only_what_is_stale_runs_and_what_comes_after_it(toy: Path) -> None:
    assert set(run_due().values()) == {StageResult.RAN}
    assert toy_pipelines.stages_that_ran(toy) in (["one", "two", "three", "four"], ["one", "three", "two", "four"])
    assert graph.plan().due == ()
    toy_pipelines.set_numbers(toy, three=1)
    due = graph.plan().due
    assert [s.address for s in due] == ["three", "four"]
    assert "version.three" in due[0].changed
    assert run_due() == {"three": StageResult.RAN, "four": StageResult.RAN}
    assert toy_pipelines.stages_that_ran(toy) == ["three", "four"]


def test_what_was_run_before_with_the_same_inputs_is_restored_and_stops_the_rest(ran: Path) -> None:
    (ran / "two.txt").unlink()
    assert run_due() == {"two": StageResult.RESTORED, "four": StageResult.UNCHANGED}
    assert toy_pipelines.stages_that_ran(ran) == []


def test_by_force_every_stage_is_due(ran: Path) -> None:
    assert not graph.plan().due
    assert len(graph.plan(force=True).due) == 4
    assert run_stage.run("one", force=True, log_line=lambda _: None).result is StageResult.RAN


def test_an_output_that_is_to_be_linked_is_one_file_with_dvcs_cache_run_or_restored(ran: Path) -> None:
    described = json.loads((ran / "dvc.yaml").read_text())
    described["stages"]["one"]["meta"] = {"link": True}
    (ran / "dvc.yaml").write_text(json.dumps(described))
    found = []
    for version in (1, 0):      # 0: as an earlier run made it
        toy_pipelines.set_numbers(ran, one=version)
        found.append(run_stage.run("one", log_line=lambda _: None).result)
        in_cache = {file.stat().st_ino for file in (ran / ".dvc/cache/files").rglob("*") if file.is_file()}
        assert (ran / "one.txt").stat().st_ino in in_cache
        assert (ran / "two.txt").stat().st_ino not in in_cache, "others are copies, as DVC has it"
    assert found == [StageResult.RAN, StageResult.RESTORED]


def test_a_stage_that_fails_says_its_own_line_and_where_the_rest_lies(toy: Path) -> None:
    toy_pipelines.set_numbers(toy, fails="one")
    heard: list[str] = []
    with pytest.raises(StageFailed) as failed:
        run_stage.run("one", log_line=heard.append)
    assert str(failed.value).startswith("one: recording 3f2a: one cannot read it. Run `heartml ingest` again. ")
    assert ".heartml/logs/one.log" in str(failed.value)
    assert not any("Traceback" in line or "heartml:" in line for line in heard)


def test_a_fault_of_ours_gives_its_last_line_and_keeps_the_traceback_in_the_log(toy: Path) -> None:
    toy_pipelines.set_numbers(toy, crashes="one")
    with pytest.raises(StageFailed, match="ZeroDivisionError: a fault of ours"):
        run_stage.run("one", log_line=lambda _: None)
    assert "Traceback" in (toy / ".heartml/logs/one.log").read_text()


def test_a_stage_that_is_killed_is_told_from_one_that_fails(toy: Path) -> None:
    toy_pipelines.set_numbers(toy, seconds={"one": 60})

    def kill(line: str) -> None:
        if line.startswith("started"):
            os.kill(int(line.rsplit(maxsplit=1)[-1]), signal.SIGKILL)

    with pytest.raises(StageKilled, match="killed by a signal"):
        run_stage.run("one", log_line=kill)


def test_a_stage_that_a_stop_reaches_before_it_reaches_us_is_stopped_and_not_killed(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_stage, "_stopping", threading.Event())
    monkeypatch.setattr(run_stage, "_reproduce", lambda *_, **__: (StageResult.KILLED, "", True))
    threading.Timer(0.1, run_stage._stopping.set).start()
    with pytest.raises(StageFailed, match="one: stopped"):
        run_stage.run("one", log_line=lambda _: None)


def test_a_stage_that_takes_too_long_is_killed_and_the_others_work_is_kept(toy: Path) -> None:
    toy_pipelines.set_numbers(toy, seconds={"two": 60})
    run_stage.run("one", log_line=lambda _: None)
    heard: list[str] = []
    with pytest.raises(StageTimedOut, match=r"two: not done after 4 s \(flow\.stage_timeout_s"):
        run_stage.run("two", log_line=heard.append, timeout_s=4)
    [started] = [line for line in heard if line.startswith("started")]
    deadline = time.monotonic() + 5
    while Path(f"/proc/{started.rsplit(maxsplit=1)[-1]}").exists():
        assert time.monotonic() < deadline, "the stage outlives its time"
        time.sleep(0.05)
    with graph.hold_pipeline(wait=False):
        assert [s.address for s in graph.plan().due] == ["two", "three", "four"]
        toy_pipelines.set_numbers(toy)
        unchanged = run_stage.run("one", log_line=lambda _: None)
        assert (unchanged.result, set(unchanged.used)) == (StageResult.UNCHANGED, {"seconds"})
        assert run_stage.run("two", log_line=lambda _: None, timeout_s=100).result is StageResult.RAN


def test_a_stage_of_a_stopped_flow_is_not_started_again(toy: Path) -> None:
    with pytest.raises(KeyboardInterrupt), run_stage.stopping_on_error():
        raise KeyboardInterrupt
    with pytest.raises(StageFailed, match="one: stopped"):
        run_stage.run("one", log_line=lambda _: None)
    with run_stage.stopping_on_error():
        assert run_stage.run("one", log_line=lambda _: None).result is StageResult.RAN


def test_what_is_started_while_a_flow_stops_is_killed() -> None:
    with pytest.raises(KeyboardInterrupt), run_stage.stopping_on_error():
        raise KeyboardInterrupt
    with run_stage.stage_subprocess([sys.executable, "-c", "import time; time.sleep(20)"]) as process:
        assert process.wait(15) == -signal.SIGKILL
    with run_stage.stopping_on_error(), run_stage.stage_subprocess([sys.executable, "-c", ""]) as process:
        assert process.wait(15) == 0


def test_who_has_to_wait_hears_for_whom(toy: Path) -> None:
    code = ("import time; from heartml.pipeline import graph as pipeline\n"
            "with pipeline.hold_pipeline(): print('in', flush=True); time.sleep(1)")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        first.stdout.readline()
        heard: list[str] = []
        with graph.hold_pipeline(log_line=heard.append):
            assert len(heard) == 1
            assert f"process {first.pid}" in heard[0]


def test_data_that_nobody_makes_is_named_with_the_way_to_it(toy: Path) -> None:
    (toy / "toy.py").rename(toy / "away.py")
    with pytest.raises(PipelineError, match=r"toy\.py: not here, and no stage makes it.*heartml ingest"):
        graph.plan()


@pytest.mark.parametrize(("read", "due"), [(False, 4), (True, None)])
def test_weights_that_were_not_pulled_are_in_the_way_of_no_stage_that_does_not_read_them(
        toy: Path, read: bool, due: int | None) -> None:
    (toy / "weights").mkdir()
    (toy / "weights/heart.dvc").write_text("outs:\n- md5: d3b07384d113edec49eaa6238ad5ff00\n  size: 4\n  hash: md5\n"
                                           "  path: heart.safetensors\n")
    if read:
        stages = json.loads((toy / "dvc.yaml").read_text())
        stages["stages"]["one"]["deps"].append("weights/heart.safetensors")
        (toy / "dvc.yaml").write_text(json.dumps(stages))
        with pytest.raises(PipelineError, match=r"`dvc pull weights/heart\.dvc` fetches it"):
            graph.plan()
    else:
        assert len(graph.plan().due) == due


@pytest.mark.parametrize(("key", "value", "words"), [
    ("encoders", "[logspec, logspc]", "encoders: 'logspc' is none of .*Did you mean logspec[?]"),
    ("tasks", "[simulated-mumur]", "no task 'simulated-mumur'.*Did you mean simulated-murmur[?] `heartml tasks` lists"),
    ("tasks", "[mumur]", "no task 'mumur'.*for instance circor-murmur. `heartml tasks` lists"),
    ("tasks", "[pascl-sounds]", "tasks: pascl-sounds: data set 'pascl' is none of .*Did you mean pascal[?]"),
    ("seeed", "1", "seeed: Extra inputs"),
    ("flow", "", r"line \d+: the key 'flow' is there twice"),
])
def test_a_name_that_is_none_is_told_before_anything_runs(toy: Path, key: str, value: str, words: str) -> None:
    (toy / "data").mkdir()
    text = re.sub(rf"(?m)^{key}: .*\n?", "", Path("params.yaml").read_text(encoding="utf-8"))
    Path("params.yaml").write_text(f"{text}\n{key}: {value}\n", encoding="utf-8")
    with pytest.raises(HeartMLError, match=f"^(params.yaml: )?{words}"):
        run_local.retrain(wait=False, force=False)
    assert not recovery.DVC_LOCK.exists()


@pytest.mark.parametrize("text", [None, "", "tasks: [", "- 1\n"])
def test_parameters_that_cannot_be_read_are_told_in_our_words(toy: Path, text: str | None) -> None:
    Path("params.yaml").unlink()
    if text is not None:
        Path("params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(config.ParamsError, match=r"^params\.yaml: (not found|not valid YAML|no sections)"):
        run_local.retrain(wait=False, force=False)


def test_siblings_run_side_by_side_and_end_in_one_whole_lock(toy: Path) -> None:
    toy_pipelines.set_numbers(toy, seconds={"two": 3, "three": 3})
    run_stage.run("one", log_line=lambda _: None)
    overlap: list[set[str]] = []
    going: set[str] = set()

    def sibling(name: str) -> None:
        def say(line: str) -> None:
            if line.startswith("started"):
                going.add(name)
                overlap.append(set(going))

        run_stage.run(name, log_line=say)
        going.discard(name)

    threads = [threading.Thread(target=sibling, args=(name,)) for name in ("two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {"two", "three"} in overlap
    assert run_due() == {"four": StageResult.RAN}
    assert graph.plan().due == ()


def test_a_second_one_waits_or_says_who_is_at_work(toy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = ("from heartml.pipeline import graph as pipeline; import time\n"
            "with pipeline.hold_pipeline(command='the first'): print('in', flush=True); time.sleep(3)")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        first.stdout.readline()
        with pytest.raises(Busy, match=rf"process {first.pid}.*--no-wait"), graph.hold_pipeline(wait=False):
            pass
        with graph.hold_pipeline(command="the second"):
            assert first.poll() is not None or first.wait(timeout=1) == 0
    said = f"the second: waiting for another retraining or ingest in this folder (process {first.pid})"
    assert said in capfd.readouterr().err


def test_a_dvc_repro_at_work_is_waited_for(toy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    toy_pipelines.set_numbers(toy, seconds={"one": 4})
    with subprocess.Popen([sys.executable, "-m", "dvc", "repro", "-q", "one"]) as other:
        while not (toy / "runs.txt").exists():
            time.sleep(0.1)
        with pytest.raises(Busy, match="DVC is at work"), graph.hold_pipeline(wait=False):
            pass
        with graph.hold_pipeline():
            assert (toy / "one.txt").exists()
        assert other.wait(timeout=60) == 0
    assert f"waiting for process {other.pid}" in capfd.readouterr().err
    toy_pipelines.stages_that_ran(toy)
    assert "one" not in run_due()


def test_a_stage_waits_for_a_dvc_that_came_in_between(toy: Path) -> None:
    toy_pipelines.set_numbers(toy, seconds={"one": 4})
    with subprocess.Popen([sys.executable, "-m", "dvc", "repro", "-q", "one"]) as other:
        while not (toy / "runs.txt").exists():
            time.sleep(0.1)
        heard: list[str] = []
        assert run_stage.run("one", log_line=heard.append).result is StageResult.UNCHANGED
        assert other.wait(timeout=60) == 0
    assert any("waiting for another DVC command" in line for line in heard)


@pytest.mark.parametrize("cut", [b"", b"schema: '2.0'\nstages:\n  one:\n    cmd: pyth", b"schema: '2.0'\nstages: \x00"])
def test_a_lock_that_was_cut_short_by_a_kill_is_mended(ran: Path, cut: bytes) -> None:
    recovery.save_lock_file()
    whole = (ran / "dvc.lock").read_bytes()
    (ran / "dvc.lock").write_bytes(cut)
    with graph.hold_pipeline():
        run_due()
    assert toy_pipelines.stages_that_ran(ran) == []
    assert _yaml((ran / "dvc.lock").read_bytes()) == _yaml(whole)


def _yaml(text: bytes) -> dict:
    import yaml

    return yaml.safe_load(text)


def test_the_order_in_which_siblings_ended_does_not_show_in_the_lock(toy: Path) -> None:
    texts = []
    for first, second in (("two", "three"), ("three", "two")):
        (toy / "dvc.lock").unlink(missing_ok=True)
        for address in ("one", first, second, "four"):
            run_stage.run(address, log_line=lambda _: None)
        recovery.sort_lock_file([stage.address for stage in graph.plan().stages])
        texts.append((toy / "dvc.lock").read_text())
    assert texts[0] == texts[1]
    assert graph.plan().due == ()


@pytest.mark.parametrize("left", ["dead", "recycled", "cut short"])
def test_dvcs_locks_of_dead_processes_do_not_block(ran: Path, left: str) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    rwlock = ran / ".dvc/tmp/rwlock"
    holder = {"pid": gone.pid if left == "dead" else os.getpid(), "cmd": "dvc repro"}
    text = json.dumps({"write": {str(ran / "one.txt"): holder}, "read": {}})
    rwlock.write_text(text[:20] if left == "cut short" else text)
    os.utime(rwlock, (1, 1) if left == "recycled" else None)   # this process started later than that
    with graph.hold_pipeline(wait=False):
        toy_pipelines.set_numbers(ran, one=1)
        assert run_stage.run("one", log_line=lambda _: None).result is StageResult.RAN


def test_half_written_files_of_dead_processes_are_removed(toy: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder = toy / "artifacts" / "circor-murmur"
    dead, mine = folder / f".model.{gone.pid}.tmp", folder / f".folds.parquet.{os.getpid()}.tmp"
    dead.mkdir(parents=True)
    mine.touch()
    with graph.hold_pipeline():
        assert not dead.exists()
        assert mine.exists()


def test_a_stage_whose_output_dvc_could_not_keep_has_failed_and_runs_again(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from dvc_objects.fs.base import FileSystem

    def full(self: FileSystem, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    toy_pipelines.set_numbers(ran, one=7)
    monkeypatch.setattr(logging.getLogger("dvc"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("dvc"), "propagate", True)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with monkeypatch.context() as disk:
        disk.setattr(FileSystem, "put_file", full)
        assert stage_process.reproduce("one", force=False) is StageResult.FAILED
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("heartml: ")]
    assert [line.partition(". ")[0] for line in said] == ["heartml: no space left on the disk"]
    assert run_due()["one"] in (StageResult.RAN, StageResult.RESTORED)
    assert not graph.plan().due


def test_what_a_killed_dvc_left_in_its_cache_is_removed_while_no_other_is_at_work(ran: Path) -> None:
    from dvc.lock import make_lock

    place = next(Path(".dvc/cache/files/md5").glob("??"))
    begun = [place / ".4LlIE6wBFr3aoZdqnscibA.tmp", place / f"{'0' * 30}.dir.kUf1.tmp", place.parent / ".Jb2.tmp"]
    for file in begun:
        file.touch()
    kept = {file for file in place.parent.rglob("*") if file not in begun}
    with make_lock(".dvc/tmp/lock", tmp_dir=".dvc/tmp"):
        recovery.clean_cache()
    assert all(file.exists() for file in begun), "somebody writes there"
    with graph.hold_pipeline():
        assert {*place.parent.rglob("*")} == kept
