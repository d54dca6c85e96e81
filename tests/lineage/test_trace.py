"""Forward: a recording, a file or a patient is found in every data version, fold, run and model that it went into."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import click.testing
import pandas as pd
import pytest
from support.small_project import TASK
from support.workspaces import Workspace

from heartml import cli
from heartml.core import paths, schema
from heartml.core.schema import QUARANTINE, TEST
from heartml.core.system import files
from heartml.data.ingest import version
from heartml.inference import training_recordings
from heartml.lineage import trace
from heartml.lineage.capture import data_hash
from heartml.lineage.trace import HELD_OUT, TRAINING, Trace, UnknownName
from heartml.registry import tracking


@pytest.fixture(scope="module")
def project(retrained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """The retrained project, and behind it a data version without its first patient, where a file was refused."""
    copy = retrained.copy(tmp_path_factory.mktemp("trace") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy.root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tables = version.read()
        left = tables.recordings[tables.recordings["patient_id"] != tables.recordings["patient_id"].iloc[0]]
        refused = pd.DataFrame([("simulated", "training_data/7_AV.wav", "simulated-7", "silent", "peak 0")],
                               columns=list(QUARANTINE))
        following = version.DatasetTables(left, tables.annotations, refused, tables.withdrawn)
        version.publish(version.build(following, version.BUILD / "audio", {}))
        copy.commit("the next version")
        yield copy


@pytest.fixture(scope="module")
def folds(project: Workspace) -> pd.DataFrame:
    return pd.read_parquet(paths.folds(TASK))


@pytest.fixture(scope="module")
def recordings(retrained: Workspace) -> pd.DataFrame:
    """Of the version that the model was made from."""
    return pd.read_parquet(retrained / str(paths.RECORDINGS))


def find(asked: str) -> Trace:
    return trace.find(tracking.connect(), asked)


@pytest.mark.parametrize("part", ["0", TEST])
def test_a_recording_is_found_in_the_part_that_the_folds_put_it_in(
    project: Workspace, folds: pd.DataFrame, part: str
) -> None:
    key = folds.loc[folds["part"] == part, "recording_id"].iloc[0]
    found = find(key[:12])
    assert [one.recording_id for one in found.recordings] == [key] and found.kind == trace.RECORDING
    [use] = found.uses
    assert (use.task, use.version, use.parts) == (TASK, "1", {part: (key,)})
    assert use.roles == ((HELD_OUT,) if part == TEST else (TRAINING,))


def test_a_patient_is_all_of_its_recordings_in_all_versions_of_the_data(
    project: Workspace, recordings: pd.DataFrame
) -> None:
    for patient, versions in ((recordings["patient_id"].iloc[0], 1), (recordings["patient_id"].iloc[-1], 2)):
        own = recordings[recordings["patient_id"] == patient]
        found = find(patient)
        assert {one.recording_id for one in found.recordings} == set(own["recording_id"])
        assert {one.source_sha256 for one in found.recordings} == set(own["source_sha256"])
        assert all(len(one.data) == versions for one in found.recordings)
        assert find(patient.removeprefix("simulated-")).recordings == found.recordings
        assert sum(len(ids) for use in found.uses for ids in use.parts.values()) == len(own)


def test_data_versions_are_those_of_git_s_history_and_say_which_lies_here(
    project: Workspace, retrained: Workspace, recordings: pd.DataFrame
) -> None:
    [gone] = find(recordings["patient_id"].iloc[0]).data
    former, current = find(recordings["patient_id"].iloc[-1]).data
    assert former == gone and not former.current and len(former.commits) == 1 and len(former.runs) == 1
    assert current.current and current.md5 == data_hash() and current.runs == ()
    assert former.commits[0].when <= current.commits[0].when


def test_a_second_id_of_the_same_person_is_named(project: Workspace, recordings: pd.DataFrame) -> None:
    persons = recordings.groupby("group_id")["patient_id"].agg(["min", "max"])
    both = persons[persons["min"] != persons["max"]].iloc[0]
    assert [twin.patient_id for twin in find(both["min"]).twins] == [both["max"]]
    assert [twin.patient_id for twin in find(both["max"]).twins] == [both["min"]]


def test_a_file_is_found_by_its_name_and_what_was_refused_with_the_reason(
    project: Workspace, recordings: pd.DataFrame
) -> None:
    row = recordings.iloc[-1]
    for name in (row["source_file"], row["source_file"].rpartition("/")[2]):
        assert [one.recording_id for one in find(name).recordings] == [row["recording_id"]]
    for asked in ("simulated-7", "7_AV.wav"):
        found = find(asked)
        assert [(row.reason, row.data) for row in found.refused] == [("silent", (data_hash(),))]
        assert found.uses == () and "quarantined: training_data/7_AV.wav: silent" in "\n".join(trace.lines(found))


def test_what_nobody_knows_and_what_is_not_clear_is_one_line(
    project: Workspace, recordings: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownName, match="simulated-0: no recording, source file or patient of 2 data versions"):
        find("simulated-0")
    monkeypatch.setattr(trace, "_SHORTEST", 1)
    common = recordings["recording_id"].str[0].value_counts().index[0]
    with pytest.raises(UnknownName, match=r"recording ids .* give more digits"):
        find(str(common))


def test_the_command_says_the_same_as_text_and_as_json(project: Workspace, recordings: pd.DataFrame) -> None:
    key = recordings["recording_id"].iloc[0]
    text = click.testing.CliRunner().invoke(cli.cli, ["trace", key]).stdout
    told = json.loads(click.testing.CliRunner().invoke(cli.cli, ["trace", key, "--json"]).stdout)
    assert told == json.loads(json.dumps(find(key).as_dict()))
    [use] = told["uses"]
    assert f"{TASK} version {use['version']}, champion" in text and use["run_id"][:12] in text


def test_a_patient_whom_only_a_network_of_a_wider_task_heard_concerns_the_descriptors_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child without a murmur is no case of a descriptor, and its model's network learnt from the child."""
    table = pd.DataFrame({
        "recording_id": ["r1", "r2", "r3"], "unit_id": ["circor-1", "circor-2", "circor-3"],
        "group_id": ["circor-1", "circor-2", "circor-3"], "label": ["Low", "High", None], "part": ["0", TEST, "1"]})
    files.write_parquet(tmp_path / "folds.parquet", schema.conform(table, schema.FOLDS, "folds"))
    monkeypatch.setattr(tracking, "list_files", lambda *_: frozenset({"folds.parquet"}))
    monkeypatch.setattr(tracking, "fetch", lambda *_: tmp_path / "folds.parquet")
    name = "circor-systolic_pitch"
    version = SimpleNamespace(run_id="run", name=name, number="4", aliases=("champion",), verdict="promoted", tags={})
    monkeypatch.setattr(trace.versions, "model_names", lambda _: [name])
    monkeypatch.setattr(trace.versions, "list_versions", lambda *_: [version])
    run = SimpleNamespace(run_id="run", tags={"heartml.data": "d", "heartml.task": name})
    found = {key: trace._uses(SimpleNamespace(), [run], frozenset({key})) for key in ("r1", "r2", "r3", "r4")}
    roles = {key: [(use.task, use.version, use.roles) for use in uses] for key, (uses, _) in found.items()}
    assert roles == {"r1": [(name, "4", (TRAINING,))], "r2": [(name, "4", (HELD_OUT,))],
                     "r3": [(name, "4", (TRAINING,))], "r4": []}
    assert training_recordings.read(tmp_path / "folds.parquet").use_of("r3") == "trained"
