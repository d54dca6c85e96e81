"""Heart states of held-out recordings: the right states at the right times, and how well they agree with annotations.

The network here reads the state of each frame from the frame, so that what it has to find is known.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from heartml.core import frame_store, paths, schema
from heartml.core.system import files
from heartml.evaluation import heart_states
from heartml.models.ensemble.candidate import CandidateSpec, Member
from heartml.models.fitted_model import Model
from heartml.models.heads.segment_features import DIASTOLE, FIRST_SYSTOLE, S1, S2
from heartml.models.heads.sequence import FittedSequence, SequenceNetwork

NAME, RATE_HZ, SECONDS = "simulated-murmur", 50.0, 6.0
BEAT_S = (0.12, 0.20, 0.12, 0.36)      # S1, systole, S2, diastole: 75 beats a minute
BEAT_STARTS_S = {"a" * 64: 0.2, "b" * 64: 0.5}      # recording -> its first onset of S1; diastole before it
IDS = list(BEAT_STARTS_S)
FIRST_STATE, LOW_BANDS = 40, 8         # columns of the frames: the states, and what `by_loudness` looks at
COLUMNS = (S1, FIRST_SYSTOLE + 1, S2, DIASTOLE)      # of the network's output, for each of schema.STATES
FRAME_S = 2 / RATE_HZ                  # the network sees every second frame: it cannot place an onset better


def beats(recording_id: str, shift_s: float = 0.0) -> pd.DataFrame:
    """The whole truth about a recording as rows of `schema.ANNOTATIONS`, later by `shift_s`."""
    first = BEAT_STARTS_S[recording_id]
    starts = first + np.concatenate([[0.0], np.cumsum(np.tile(BEAT_S, 10))])
    starts = np.concatenate([[0.0], starts[starts < SECONDS - 0.1]])
    states = ["diastole", *np.resize(schema.STATES, len(starts) - 1)]
    table = pd.DataFrame({"recording_id": recording_id, "start_s": starts, "end_s": [*starts[1:], SECONDS],
                          "state": states})
    return table.assign(start_s=table["start_s"] + shift_s, end_s=table["end_s"] + shift_s)


def frames(recording_id: str, dim: int) -> np.ndarray:
    """Frames [t, dim] of a recording: one column a state, and loud low bands at every heart sound."""
    truth, count = beats(recording_id), round(SECONDS * RATE_HZ)
    times_s = (SECONDS - (count - 1) / RATE_HZ) / 2 + np.arange(count) / RATE_HZ
    state = truth["state"].to_numpy()[np.searchsorted(truth["start_s"], times_s, side="right") - 1]
    made = np.random.default_rng(IDS.index(recording_id)).normal(0, 0.05, (count, dim))
    made[np.isin(state, ["S1", "S2"]), :LOW_BANDS] += 3
    for column, name in enumerate(schema.STATES):
        made[state == name, FIRST_STATE + column] += 8
    return made.astype(np.float16)


def reading_network(dim: int) -> FittedSequence:
    """A network that does nothing but to pass on the column of the state."""
    shape = {"dim": dim, "classes": 3, "channels": 8, "dropout": 0.1, "states": True}
    network = SequenceNetwork(dim, 3, 8, 0.1).eval()
    with torch.no_grad():
        for block in network.blocks:
            block.second.weight.zero_()
            block.second.bias.zero_()
        for layer in (network.stem, network.frame):
            layer.weight.zero_()
            layer.bias.zero_()
        for channel, column in enumerate(COLUMNS):
            network.stem.weight[channel, FIRST_STATE + channel, 2] = 1.0
            network.frame.weight[column, channel, 0] = 2.0
    return FittedSequence(network, shape)


@pytest.fixture
def held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: dict[str, Path]) -> pd.DataFrame:
    """Two recordings with frames, and a model whose network knows their states."""
    monkeypatch.chdir(tmp_path)
    loaded = Model.load(fitted[NAME])
    dim = int(loaded.encoder_specs["logspec"]["dim"])
    trial = next(iter(loaded.members))
    member = Member(CandidateSpec("logspec", "sequence", "recording", None, {}), (reading_network(dim),))
    paths.model(NAME).mkdir(parents=True)
    replace(loaded, members={**loaded.members, trial: member}).save(paths.model(NAME))
    for encoder, made in loaded.encoder_specs.items():
        assert made["frame_rate_hz"] == RATE_HZ
        frame_store.write(paths.features(NAME, encoder), {i: frames(i, dim) for i in IDS}, RATE_HZ, made)
    return pd.DataFrame({"recording_id": IDS, "seconds": SECONDS})


def annotate(table: pd.DataFrame) -> None:
    files.write_parquet(paths.ANNOTATIONS, table)


def test_every_state_of_every_recording_is_found_at_its_time(held_out: pd.DataFrame) -> None:
    annotate(beats(IDS[0]))
    heart_states.segment_held_out(NAME, held_out)
    found = pd.read_parquet(paths.heart_states(NAME) / "states.parquet")
    assert found["recording_id"].drop_duplicates().tolist() == IDS
    for recording_id, own in found.groupby("recording_id"):
        truth = beats(str(recording_id))
        assert own["state"].tolist() == truth["state"].tolist()
        np.testing.assert_allclose(own["start_s"], truth["start_s"], atol=FRAME_S)
        assert abs((own["start_s"].to_numpy() - truth["start_s"].to_numpy()).mean()) < FRAME_S / 4, "none is late"
        np.testing.assert_array_equal(own["start_s"].to_numpy()[1:], own["end_s"].to_numpy()[:-1])
        assert own["end_s"].iloc[-1] == pytest.approx(SECONDS, abs=FRAME_S)


@pytest.mark.parametrize(("late_s", "right", "f1"), [(0.0, 1.0, 1.0), (0.03, 0.85, 1.0), (0.1, 0.5, 0.0)])
def test_agreement_is_what_the_distance_from_the_annotation_makes_it(
    held_out: pd.DataFrame, late_s: float, right: float, f1: float
) -> None:
    """Each beat of 0.8 s has four borders, so an annotation that is late by d agrees in 1 - 4 d / 0.8 of the time.

    An onset counts within 60 ms (Schmidt et al. 2010).
    """
    annotate(beats(IDS[0], late_s))
    found = heart_states.segment_held_out(NAME, held_out)
    assert files.read_json(paths.heart_states(NAME) / "measures.json") == found
    assert set(found) == {"network", "by_loudness"}
    network = found["network"]
    assert network["recordings"] == 1, "the other one has no annotation"
    assert network["frame_accuracy"] == pytest.approx(right, abs=0.08)
    assert network["s1_f1"] == pytest.approx(f1, abs=0.07)
    assert network["s2_f1"] == pytest.approx(f1, abs=0.07)
    assert network["heart_rate_told"] == 1
    assert network["heart_rate_error_median_per_min"] == pytest.approx(0, abs=1.0), "late, but as fast"


def test_the_baseline_finds_loud_sounds_by_loudness_alone(held_out: pd.DataFrame) -> None:
    annotate(pd.concat([beats(recording_id) for recording_id in IDS]))
    found = heart_states.segment_held_out(NAME, held_out)["by_loudness"]
    assert found["recordings"] == 2
    assert min(found["s1_f1"], found["s2_f1"]) > 0.8
    assert found["frame_accuracy"] < 0.95, "borders are not where the peaks are"


def test_points_in_time_measure_nothing(held_out: pd.DataFrame) -> None:
    annotate(beats(IDS[0]).assign(end_s=lambda table: table["start_s"]))
    assert heart_states.segment_held_out(NAME, held_out) == {}
