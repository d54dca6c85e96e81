"""Monitoring: drift is found, no drift raises no alarm, groups count and not recordings; a version has a reference."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from support import tiny_models
from support.workspaces import Workspace

from heartml.audio import sound_files
from heartml.audio.sound_files import Samples, write_flac
from heartml.cli import cli
from heartml.core import config, paths
from heartml.core.config import MonitorParams
from heartml.inference import batch, monitoring
from heartml.inference.model_lookup import LocatedModel
from heartml.inference.monitoring import drift, page, reference, show
from heartml.inference.monitoring.drift import DRIFT, FEW, SAME, SMALL
from heartml.inference.prediction_cache import PredictionCache

TASK = "simulated-murmur"
ROOT = Path(__file__).parents[2]
PARAMS = config.load(ROOT / "params.yaml").monitor
QUICK = PARAMS.model_copy(update={"permutations": 1199})


def groups(rng: np.random.Generator, count: int, **shifts: float) -> pd.DataFrame:
    """Independent groups as a clinic might send them, all measures correlated; `shifts` in standard deviations."""
    common = rng.normal(size=count)

    def drawn(name: str) -> np.ndarray:
        return (common + rng.normal(size=count)) / np.sqrt(2) + shifts.get(name, 0.0)

    leaning = np.where(drawn("leaning") > 0.5, "Present", "Absent")
    return pd.DataFrame({
        "group_id": [f"g{n}" for n in range(count)], "recording_id": [f"{n:064x}" for n in range(count)],
        "level_db": -30 + 6 * drawn("level_db"), "bandwidth_hz": 600 + 90 * drawn("bandwidth_hz"),
        "contrast_db": 15 + 3 * drawn("contrast_db"), "clipped_share": np.maximum(0, 0.01 * drawn("clipped_share")),
        "silent_share": np.zeros(count), "dc": 1e-5 * drawn("dc"), "seconds": 10 + drawn("seconds"),
        "sample_rate_hz": np.full(count, 4000.0), "confidence": 1 / (1 + np.exp(-drawn("confidence"))),
        "leaning": leaning,
        "embedding": list(rng.normal(size=(count, 40)) + common[:, None] + shifts.get("embedding", 0.0)),
    })


def states(base: pd.DataFrame, new: pd.DataFrame, params: MonitorParams = QUICK) -> dict[str, str]:
    return {f.measure.column: f.state for f in drift.compare(base, new, params, np.random.default_rng(1))}


def test_no_drift_is_certain_no_more_often_than_alpha_says() -> None:
    """At an alpha where that can be counted: 4 of 40 are expected at most; without a correction 17 were."""
    often, alarms = PARAMS.model_copy(update={"alpha": 0.1, "permutations": 199}), 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        alarms += not {DRIFT, SMALL}.isdisjoint(states(groups(rng, 60), groups(rng, 30), often).values())
    assert alarms <= 9       # ten or more come once in 200 times


def test_without_drift_alarms_are_as_rare_as_alpha_says() -> None:
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        alarms += DRIFT in states(groups(rng, 60), groups(rng, 30)).values()
    assert alarms <= 3       # at an alpha of 0.01; four or more come three times in a thousand


@pytest.mark.parametrize("name", ["level_db", "bandwidth_hz", "seconds", "confidence", "embedding"])
def test_a_strong_drift_of_one_measure_is_found_and_named(name: str) -> None:
    rng = np.random.default_rng(3)
    found = states(groups(rng, 100), groups(rng, 40, **{name: 2.0}))
    assert [column for column, state in found.items() if state == DRIFT] == [name]


def test_other_decisions_are_found() -> None:
    rng = np.random.default_rng(4)
    assert states(groups(rng, 100), groups(rng, 60, leaning=2.0))["leaning"] == DRIFT


def test_a_certain_drift_that_nobody_would_hear_raises_no_alarm() -> None:
    rng = np.random.default_rng(5)
    many = PARAMS.model_copy(update={"permutations": 99})
    assert states(groups(rng, 1000), groups(rng, 1000, level_db=0.3), many)["level_db"] == SMALL


def test_a_few_recordings_are_not_enough_to_say() -> None:
    rng = np.random.default_rng(6)
    found = states(groups(rng, 100), groups(rng, PARAMS.min_groups - 1, level_db=9.0))
    assert set(found.values()) == {FEW}


def test_an_offset_of_a_converter_is_no_difference() -> None:
    rng = np.random.default_rng(7)
    new = groups(rng, 60).assign(dc=3e-4)
    assert states(groups(rng, 100), new)["dc"] == SAME


def test_holm_is_what_the_textbook_says() -> None:
    assert drift.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert drift.holm([]) == []


def test_the_classifier_learns_nothing_from_noise_and_all_from_a_gap() -> None:
    rng = np.random.default_rng(8)
    noise, other = rng.normal(size=(60, 200)), rng.normal(size=(60, 200))
    assert 0.35 < drift.compare_embeddings(noise, other, 99, rng).effect < 0.65
    assert drift.compare_embeddings(noise, other + 3, 99, rng).effect > 0.99
    assert drift.compare_embeddings(np.ones((20, 3)), np.ones((20, 3)), 99, rng).p == 1.0


def test_p_of_a_shuffle_is_uniform_without_a_drift() -> None:
    rng = np.random.default_rng(9)
    p = [drift.compare_embeddings(rng.normal(size=(30, 8)), rng.normal(size=(20, 8)), 99, rng).p for _ in range(100)]
    assert 0.35 < np.mean(p) < 0.65
    assert np.mean(np.array(p) <= 0.05) < 0.15


def test_one_recording_of_each_group_is_drawn_and_no_recording_twice() -> None:
    table = pd.DataFrame({"recording_id": ["b", "a", "c", "a"], "group_id": ["g", "g", "h", "i"]})
    kept = reference.one_per_group(table)
    assert dict(zip(kept["group_id"], kept["recording_id"], strict=True)) == {"g": "a", "h": "c"}


def test_ignoring_patients_would_cry_wolf() -> None:
    """The same ten recordings of each of few patients: as recordings certain, as patients not."""
    rng = np.random.default_rng(10)
    few = [groups(rng, 20).loc[lambda t: t.index.repeat(10)] for _ in range(2)]
    for table in few:
        table["recording_id"] = [f"{n:064x}" for n in rng.permutation(10**6)[: len(table)]]
    assert DRIFT in states(*few).values()
    assert set(states(*map(reference.one_per_group, few)).values()) <= {SAME, SMALL}


# A version's own reference, new recordings, page, command


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory, retrained: Workspace) -> Workspace:
    """A retrained project with a folder of new recordings like the old, one of them quieter. Do not write here."""
    project = retrained.copy(tmp_path_factory.mktemp("clinic") / "project")
    recordings = pd.read_parquet(project / "data/recordings.parquet")
    for n, row in enumerate(recordings.drop_duplicates("patient_id").to_dict("records")):
        path = project / paths.audio(row["recording_id"])
        samples = sound_files.read(path)
        cut = Samples(samples.pcm[100:], samples.sample_rate_hz)      # another content, nearly the same sound
        write_flac(project / f"same/{n}_AV.flac", cut)
        write_flac(project / f"quiet/{n}_AV.flac", Samples((cut.pcm // 64).astype(np.int16), cut.sample_rate_hz))
    return project


@pytest.fixture
def here(clinic: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workspace:
    monkeypatch.chdir(clinic.root)
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    return clinic


def test_the_reference_is_stored_with_the_version_and_equals_the_artifacts(here: Workspace) -> None:
    work = batch.plan(Path("same"), TASK, None)
    stored, known = reference.read(work.located, TASK)
    made = pd.read_parquet(reference.write(TASK))
    pd.testing.assert_frame_equal(stored, made)
    folds = pd.read_parquet(paths.folds(TASK))
    assert known == set(folds["recording_id"])
    assert set(stored["group_id"]) == set(folds["group_id"])
    assert (stored["confidence"].notna() == (stored["part"] == "test")).all()


def test_a_recording_measures_the_same_in_reference_and_in_use(here: Workspace, tmp_path: Path) -> None:
    """What scoring measures of a training recording is what the reference says, to the last bit of the embedding."""
    stored, _ = reference.read(batch.plan(Path("same"), TASK, None).located, TASK)
    row = stored.iloc[0]
    shutil.copy(paths.audio(row["recording_id"]), tmp_path / "one.flac")
    work = batch.plan(tmp_path / "one.flac", TASK, None)
    batch.run(tmp_path / "one.flac", tmp_path / "one.parquet", TASK, None)
    with PredictionCache.open(work.cache_file) as cache:
        measured, embedding = cache.measurements([row["recording_id"]])[row["recording_id"]]
    own = {name: measured[name] for name in reference.MEASURED}
    assert own == pytest.approx(row[list(reference.MEASURED)].to_dict())
    np.testing.assert_array_equal(np.frombuffer(embedding, np.float32), row["embedding"])


def test_what_the_model_learnt_from_is_not_new(here: Workspace, tmp_path: Path) -> None:
    stored, _ = reference.read(batch.plan(Path("same"), TASK, None).located, TASK)
    for n, recording_id in enumerate(stored["recording_id"][:3]):
        shutil.copy(paths.audio(recording_id), tmp_path / f"{n}.flac")
    watch = monitoring.run(tmp_path, TASK, None).report
    assert (watch.seen, watch.recordings, watch.verdict) == (3, 0, FEW)


def test_the_command_finds_no_drift_in_the_same_and_drift_where_the_gain_fell(here: Workspace, tmp_path: Path) -> None:
    same = CliRunner().invoke(cli, ["monitor", "same", "--model", TASK, "--json"], catch_exceptions=False)
    told = json.loads(same.stdout)
    assert (same.exit_code, told["verdict"]) == (0, SAME), told
    assert told["scored"] == told["recordings"] == told["groups"]
    html = tmp_path / "page.html"
    quiet = CliRunner().invoke(cli, ["monitor", "quiet", "--model", TASK, "--html", str(html)], catch_exceptions=False)
    assert quiet.exit_code == 3
    assert quiet.stdout.startswith("Drift: level")
    again = CliRunner().invoke(cli, ["monitor", "same", "--model", TASK, "--json"])
    assert json.loads(again.stdout)["scored"] == 0
    text = html.read_text()
    assert text.index("Drift: level") < text.index("<table")
    assert "http" not in text.replace("http-equiv", "")
    assert not (tmp_path / "prefect").exists()


def test_the_page_is_the_same_for_the_same_recordings(here: Workspace) -> None:
    pages = [page.render(monitoring.run(Path("quiet"), TASK, None), PARAMS) for _ in range(2)]
    assert pages[0] == pages[1]


def test_a_model_without_a_reference_says_so(here: Workspace, fitted: dict[str, Path]) -> None:
    stranger = LocatedModel(fitted[TASK], "a stranger", None, None)
    with pytest.raises(reference.NoReference, match=r"a stranger: no reference\.parquet"):
        reference.read(stranger, TASK)


def test_names_of_patients_are_asked_for_where_there_are_none(here: Workspace, tmp_path: Path) -> None:
    for n in range(2):
        write_flac(tmp_path / f"visit{n}.flac", tiny_models.draw_sound("clean", n))
    watch = monitoring.run(tmp_path, TASK, None).report
    assert watch.unnamed == 2
    assert "without a patient's name" in show.counted(watch)


TOLD = """
import os
from pathlib import Path
from flows.support import private_server as server
server.start()
from prefect.events.clients import AssertingEventsClient
from prefect.events.worker import EventsWorker
EventsWorker.set_client_override(AssertingEventsClient)
from flows.monitor import monitor
for source in ("same", "quiet"):
    print(source, monitor(Path(source), "simulated-murmur").verdict)
EventsWorker.drain_all()
for client in AssertingEventsClient.all:
    for event in client.events:
        if event.event == "heartml.drift":
            print(event.resource.id, event.resource["heartml.reason"], event.payload["verdict"], sep=" | ", flush=True)
os._exit(0)      # a drained worker is not waited for
"""


def test_the_flow_tells_prefect_of_a_drift_and_of_nothing_else(
    here: Workspace, empty_history: Path, tmp_path: Path
) -> None:
    (tmp_path / "prefect").mkdir()
    shutil.copy(empty_history, tmp_path / "prefect")
    done = subprocess.run([sys.executable, "-c", TOLD], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    said = [line for line in done.stdout.splitlines() if line]
    assert said[:2] == ["same none", "quiet drift"], done.stderr
    [event] = said[2:]
    resource, reason, verdict = event.split(" | ")
    assert (resource, verdict) == (f"heartml.model.{TASK}", DRIFT)
    assert reason.startswith("level")
    assert (here / f"reports/{TASK}-monitor.html").exists()
