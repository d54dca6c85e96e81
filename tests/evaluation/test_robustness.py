"""Laws of the stage `robustness`: what does not matter changes nothing, what matters costs, bytes repeat."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import finished_project, tiny_models
from support.small_project import TASK as SMALL_TASK
from support.workspaces import Workspace

from heartml.audio import sound_files
from heartml.core import config, folds, paths, tasks
from heartml.core.schema import TEST
from heartml.core.system import files, parallel
from heartml.evaluation import robustness
from heartml.evaluation.robustness import Condition, RobustnessRules, RobustnessSet
from heartml.stages import robustness as robustness_stage

TASK = finished_project.TASK


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a model that hears a murmur."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        finished_project.write_project(root, patch, children=90, seconds=2.5)
        tiny_models.fit(root / paths.model(TASK), TASK)
    return root


@pytest.fixture
def project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as the working folder, on one worker, which is this process; do not write to what is there."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(parallel, "available_workers", lambda _: 1)
    return root


def held_out() -> pd.DataFrame:
    table = folds.load(paths.folds(TASK))
    return table[table["part"] == TEST].reset_index(drop=True)


def asked(chosen: pd.DataFrame, root: Path, seed: int = 3) -> RobustnessSet:
    return RobustnessSet(root, TASK, tuple(chosen["recording_id"]), tuple(chosen["unit_id"]), seed, (25.0, 800.0))


def judged(root: Path, *conditions: Condition) -> dict:
    params = config.load()
    rules = RobustnessRules(tasks.resolve(TASK).task, params.evaluate, params.seed)
    said = robustness.predict_all(asked(held_out(), root), conditions)
    return robustness.compare_conditions(said, conditions, held_out(), rules)


@pytest.mark.parametrize("condition", [
    Condition("white_snr_db", np.inf), Condition("friction_snr_db", np.inf), Condition("clipped_share", 0.0),
    Condition("clock_share", 0.0), Condition("gain_db", 0.0),
])
def test_no_noise_no_clipping_and_a_right_clock_give_the_score_as_recorded(
    project: Path, condition: Condition
) -> None:
    found = judged(project, condition)
    assert found["conditions"][0]["scores"] == found["clean"]["scores"]
    assert found["conditions"][0]["change"] == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


@pytest.mark.parametrize("gain_db", [-40.0, 20.0])
def test_gain_changes_nothing(project: Path, gain_db: float) -> None:
    test = asked(held_out(), project)
    plain, loud = (robustness.predict_under(test, c) for c in (None, Condition("gain_db", gain_db)))
    assert np.array_equal(plain.decisions, loud.decisions)
    assert np.allclose(plain.probabilities, loud.probabilities, atol=0.01)


@pytest.mark.parametrize(("below", "share"), [(0.0, 0.0), (1.1, 1.0), (0.5, None)])
def test_the_share_left_to_a_human_is_that_of_the_verdicts(project: Path, below: float, share: float | None) -> None:
    condition, params = Condition("white_snr_db", 0.0), config.load()
    said = [replace(one, refer_below=below) for one in robustness.predict_all(asked(held_out(), project), [condition])]
    rules = RobustnessRules(tasks.resolve(TASK).task, params.evaluate, params.seed)
    found = robustness.compare_conditions(said, [condition], held_out(), rules)
    for told, one in zip((found["clean"], *found["conditions"]), said, strict=True):
        assert told["referred"] == one.verdicts.count("refer") / len(one.verdicts)
        assert share is None or told["referred"] == share


def test_a_drowned_heart_is_not_heard_and_worse_never_helps_beyond_chance(project: Path) -> None:
    levels = [Condition("white_snr_db", snr_db) for snr_db in (20.0, 0.0, -20.0)]
    found = judged(project, *levels)
    quiet, _, drowned = (c["change"] for c in found["conditions"])
    assert found["clean"]["scores"]["uar"]["value"] > 0.6
    assert abs(quiet["value"]) < 0.15
    assert drowned["value"] < -0.2
    assert drowned["p"] > 0.95, "noise a hundred times the heart costs more than chance explains"
    assert all(c["change"]["low"] <= 0 for c in found["conditions"])


def test_the_noise_depends_on_seed_recording_and_kind_alone(project: Path) -> None:
    waveform = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    loud = Condition("white_snr_db", 0.0)
    one, other_seed = (asked(held_out(), project, seed) for seed in (1, 2))
    first = robustness.degrade(waveform, 4000, loud, "a" * 64, one)
    assert np.array_equal(first, robustness.degrade(waveform, 4000, loud, "a" * 64, one))
    for other in (("b" * 64, one), ("a" * 64, other_seed)):
        assert not np.array_equal(first, robustness.degrade(waveform, 4000, loud, *other))
    rows = held_out()
    alone = rows[rows["unit_id"] == rows["unit_id"].iloc[-1]]
    of_all = robustness.predict_under(asked(rows, project), loud)
    of_one = robustness.predict_under(asked(alone, project), loud)
    assert np.allclose(of_all.probabilities[-1], of_one.probabilities[0], atol=1e-12)


def test_the_same_bytes_whatever_the_workers(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conditions = [Condition("speech_snr_db", 5.0), Condition("lowpass_hz", 300.0)]
    chosen = robustness.sample(held_out(), 6, 0)
    one = robustness.predict_all(asked(chosen, project), conditions)
    monkeypatch.setattr(robustness, "IN_PROCESS_UP_TO", 0)
    monkeypatch.setattr(parallel, "available_workers", lambda _: 2)
    two = robustness.predict_all(asked(chosen, project), conditions)
    for a, b in zip(one, two, strict=True):
        assert a.unit_ids == b.unit_ids
        assert a.probabilities.tobytes() == b.probabilities.tobytes()


def test_the_stage_writes_what_it_measured_and_the_same_bytes_twice(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    text = Path("params.yaml").read_text()
    start, end = text.index("\nrobustness:") + 1, text.index("report:")
    few = "robustness:\n  max_recordings: 12\n  conditions: {room_snr_db: [10, 0], clock_share: [0.02]}\n\n"
    Path("params.yaml").write_text(text[:start] + few + text[end:])
    written = []
    for _ in range(2):
        robustness_stage.run(TASK)
        written.append([paths.robustness(TASK).read_bytes(), paths.robustness_plot(TASK).read_bytes()])
    assert written[0] == written[1]
    found = files.read_json(paths.robustness(TASK))
    assert found["recordings"] <= 12 < len(held_out())
    assert found["units"] < found["held_out_units"] == held_out()["unit_id"].nunique()
    assert [(c["kind"], c["level"]) for c in found["conditions"]] == [
        ("room_snr_db", 10), ("room_snr_db", 0), ("clock_share", 0.02)]
    table = pd.read_csv(paths.robustness_plot(TASK))
    assert list(table["condition"]) == ["As recorded", "Room and breath, 10 dB SNR", "Room and breath, 0 dB SNR",
                                        "Clock, +2 %"]
    shown = [found["clean"], *found["conditions"]]
    assert np.allclose(table["value"], [one["scores"][found["metric"]]["value"] for one in shown], atol=1e-5)
    assert capsys.readouterr().err.count("\n") == 2, "one line a run"


def test_no_held_out_unit_is_torn_and_classes_stay_in_proportion() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame([
        {"recording_id": f"{unit}-{k}", "unit_id": f"u{unit}", "label": ["Absent", "Absent", "Present"][unit % 3]}
        for unit in range(90) for k in range(rng.integers(1, 5))
    ])
    found = robustness.sample(table, 100, 1)
    assert len(found) <= 100 and len(found) > 95
    kept = table[table["unit_id"].isin(found["unit_id"])]
    assert list(kept["recording_id"]) == list(found["recording_id"])
    assert found.drop_duplicates("unit_id")["label"].eq("Present").mean() == pytest.approx(1 / 3, abs=0.04)
    shuffled = robustness.sample(table.sample(frac=1, random_state=0), 100, 1)
    assert set(shuffled["unit_id"]) == set(found["unit_id"]) != set(robustness.sample(table, 100, 2)["unit_id"])
    assert robustness.sample(table, 1000, 1).equals(table)
    assert robustness.sample(table, 1, 1)["unit_id"].nunique() == 1


def test_a_recording_that_is_not_what_its_name_says_is_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(root, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    first, second = held_out()["recording_id"].iloc[:2]
    sound_files.write_flac(paths.audio(first), sound_files.read(paths.audio(second)))
    with pytest.raises(sound_files.OtherSamplesError, match=f"recording {first[:12]}: its samples are not"):
        robustness.predict_under(asked(held_out(), tmp_path / "project"), None)


def test_the_score_as_recorded_is_the_evaluations(retrained: Workspace) -> None:
    folder = retrained.root / "artifacts" / SMALL_TASK
    found, metrics = files.read_json(folder / "robustness.json"), files.read_json(folder / "evaluation/metrics.json")
    assert found["units"] == found["held_out_units"] == metrics["counts"]["held_out"]["units"]
    for name in found["official"]:
        assert found["clean"]["scores"][name] == pytest.approx(metrics["held_out"][name], abs=1e-6)
