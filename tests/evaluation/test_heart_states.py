"""Heart states of held-out recordings: every one is heard, only annotated stretches are measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from heartml.core import frame_store, paths
from heartml.core.system import files
from heartml.evaluation import heart_states
from heartml.models.ensemble.candidate import CandidateSpec, Member
from heartml.models.fitted_model import Model
from heartml.models.heads.sequence import FittedSequence, SequenceNetwork

NAME, DIM, RATE_HZ, SECONDS = "simulated-murmur", 48, 50.0, 6.0
IDS = ["a" * 64, "b" * 64]


@pytest.fixture
def held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: dict[str, Path]) -> pd.DataFrame:
    """Two recordings with frames, and a model with a network that tells heart states (as chance made it)."""
    monkeypatch.chdir(tmp_path)
    loaded = Model.load(fitted[NAME])
    torch.manual_seed(1)
    shape = {"dim": DIM, "classes": 3, "channels": 8, "dropout": 0.1, "states": True}
    head = FittedSequence(SequenceNetwork(DIM, 3, 8, 0.1).eval(), shape)
    trial = next(iter(loaded.members))
    member = Member(CandidateSpec("logspec", "sequence", "recording", None, {}), (head,))
    paths.model(NAME).mkdir(parents=True)
    replace(loaded, members={**loaded.members, trial: member}).save(paths.model(NAME))
    rng, count = np.random.default_rng(1), round(SECONDS * RATE_HZ)
    for encoder, made in loaded.encoder_specs.items():
        arrays = {i: rng.normal(size=(count, int(made["dim"]))).astype(np.float16) for i in IDS}
        frame_store.write(paths.features(NAME, encoder), arrays, RATE_HZ, made)
    return pd.DataFrame({"recording_id": IDS, "seconds": SECONDS})


def annotate(width_s: float) -> None:
    """The first recording has beats of 0.8 s; `width_s` long, the rest of each is not annotated."""
    starts = np.arange(0.2, 5.5, 0.4)
    files.write_parquet(paths.ANNOTATIONS, pd.DataFrame({
        "recording_id": IDS[0], "start_s": starts, "end_s": starts + width_s,
        "state": [("S1", "S2")[n % 2] for n in range(len(starts))]}))


def test_every_recording_is_heard_and_the_annotated_one_is_measured(held_out: pd.DataFrame) -> None:
    annotate(0.1)
    found = heart_states.segment_held_out(NAME, held_out)
    states = pd.read_parquet(paths.heart_states(NAME) / "states.parquet")
    assert set(states["recording_id"]) == set(IDS)
    assert (states["end_s"] > states["start_s"]).all() and states["end_s"].max() <= SECONDS
    assert found["network"]["recordings"] == found["by_loudness"]["recordings"] == 1
    assert files.read_json(paths.heart_states(NAME) / "measures.json").keys() == found.keys()


def test_points_in_time_measure_nothing(held_out: pd.DataFrame) -> None:
    annotate(0.0)
    assert heart_states.segment_held_out(NAME, held_out) == {}
