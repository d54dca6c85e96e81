"""Pre-training of the heart encoder: what it may hear, what it learns, and that a killed run ends in the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from heartml.core import config
from heartml.core.config import PretrainParams
from heartml.core.stage import StageError
from heartml.models import encoders, heard
from heartml.models.encoders import heart, weight_files
from heartml.models.encoders.logspec import LogspecParams
from heartml.training.pretraining import corpus, fit, loop, outputs, selection, targets
from heartml.training.pretraining.corpus import Corpus

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")
SPEC = encoders.spec("logspec", PARAMS)
ANNOTATIONS = pd.DataFrame({"recording_id": pd.Series(dtype="string"), "start_s": pd.Series(dtype=float),
                            "end_s": pd.Series(dtype=float), "state": pd.Series(dtype="string")})
NOTHING = pd.DataFrame({"recording_id": [], "seconds": []})


def small(**changed: object) -> PretrainParams:
    assert PARAMS.pretrain
    return PARAMS.pretrain.model_copy(update={"channels": 8, "batch": 4, "steps": 30, "checkpoint_s": 1e9, **changed})


@pytest.fixture(scope="module")
def simulated() -> Corpus:
    return corpus.build(NOTHING, [], ANNOTATIONS, corpus.EncoderPicture(SPEC), simulated_children=3, seed=5)


@pytest.fixture(scope="module")
def whole(simulated: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Any, bytes]:
    """A training that nobody stopped: the network, its curves, its last checkpoint."""
    file = tmp_path_factory.mktemp("whole") / "checkpoint.safetensors"
    network, curves = fit.train(simulated, small(), file)
    return network, curves, file.read_bytes()


def bytes_of(network: torch.nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}


def test_a_stopped_training_ends_in_the_same_bytes(simulated: Corpus, whole: tuple[torch.nn.Module, Any, bytes],
                                                   tmp_path: Path) -> None:
    file = tmp_path / "stopped.safetensors"
    said: list[str] = []
    fit.train(simulated, small(), file, stop_at=17, say=said.append)
    assert said == ["pretrain: step 17 of 30, about 1 min left"]
    assert file.read_bytes() != whole[2]
    again, curves = fit.train(simulated, small(), file)
    assert bytes_of(again) == bytes_of(whole[0])
    assert curves == whole[1]
    assert file.read_bytes() == whole[2]


def test_the_order_of_the_curves_survives_a_checkpoint(tmp_path: Path) -> None:
    """It is that of the columns of curves.csv."""
    before, after = (loop.begin(torch.nn.Linear(2, 2), 0.1, 0.0) for _ in range(2))
    before.curves = {"murmur": [1.0], "diastolic_murmur_pitch": [2.0]}
    loop._save(before, tmp_path / "checkpoint.safetensors")
    loop._restore(after, tmp_path / "checkpoint.safetensors")
    assert list(after.curves) == ["murmur", "diastolic_murmur_pitch"]


KILLED = """
import sys, time
from pathlib import Path
from heartml.core import config
from heartml.models import encoders
from heartml.training.pretraining import corpus, fit, loop
sys.path.insert(0, {tests!r})
from training.test_pretraining import ANNOTATIONS, NOTHING, SPEC, small
found = corpus.build(NOTHING, [], ANNOTATIONS, corpus.EncoderPicture(SPEC), simulated_children=3, seed=5)
save = loop._save
loop._save = lambda *given: (save(*given), time.sleep(0.3))
fit.train(found, small(checkpoint_s=1e-9), Path({file!r}))
"""


def test_kill_9_and_the_same_bytes(simulated: Corpus, whole: tuple[torch.nn.Module, Any, bytes],
                                   tmp_path: Path) -> None:
    tests, file = Path(__file__).parents[1], tmp_path / "killed.safetensors"
    code = KILLED.format(tests=str(tests), file=str(file))
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": f"{tests.parent}:{tests}"}
                          ) as process:
        until = time.monotonic() + 100
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.05)
        process.kill()
    assert process.returncode == -signal.SIGKILL, "killed while it trained"
    again, _ = fit.train(simulated, small(), file)
    assert bytes_of(again) == bytes_of(whole[0])


def test_checkpoints_are_written_while_it_trains(simulated: Corpus, tmp_path: Path) -> None:
    file, seen = tmp_path / "checkpoint.safetensors", []

    class StoppedError(RuntimeError):
        pass

    real = loop._save

    def save(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        seen.append(arguments)
        if len(seen) == 2:
            raise StoppedError

    loop._save = save
    try:
        with pytest.raises(StoppedError):
            fit.train(simulated, small(checkpoint_s=1e-9), file)
    finally:
        loop._save = real
    assert file.exists() and len(load_file(file)) > 20


def test_it_learns_heart_states_and_nothing_of_torch_changes(simulated: Corpus, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    _, curves = fit.train(simulated, small(steps=75), tmp_path / "checkpoint.safetensors")
    assert torch.equal(before, torch.random.get_rng_state())
    assert curves[fit.FRAMES][-1] < 0.85 * curves[fit.FRAMES][0]
    assert {fit.FRAMES, "murmur", "outcome"} <= set(curves)


def test_the_file_is_an_encoder_that_says_what_it_heard(simulated: Corpus, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(tmp_path / "cache"))
    network, curves = fit.train(simulated, small(steps=25), tmp_path / "checkpoint.safetensors")
    real = pd.DataFrame({"recording_id": ["a" * 64, "b" * 64], "group_id": "x", "dataset": "clinic", "seconds": 36.0,
                         "licence": "CC0-1.0"})
    facts = outputs.describe(real, 3, {"murmur": 2}, small())
    spectrogram = SPEC.sections["logspec"]
    assert isinstance(spectrogram, LogspecParams)
    outputs.write(tmp_path / "out", network.trunk, spectrogram, real, curves, facts)
    file = tmp_path / "out" / outputs.WEIGHTS
    spec = encoders.spec_of_weights("heart", {"weights": str(file), "sha256": weight_files.hash_of(file)}, PARAMS)
    encoder = encoders.load(spec)
    wave = np.random.default_rng(0).normal(size=12000).astype(np.float32)
    frames = encoders.frames_of(encoder, spec, wave, 4000)
    own = encoders.frames_of(encoders.load(SPEC), SPEC, wave, 4000).astype(np.float32)
    with torch.no_grad():
        hidden, logits = network.trunk(torch.from_numpy((own - own.mean()).T[None].copy()))
    expected = torch.cat([hidden, heart.state_probabilities(logits)], 1)[0].T
    np.testing.assert_allclose(frames, expected, atol=0.02)
    np.testing.assert_allclose(frames[:, -4:].sum(1), 1, atol=2e-3)
    assert len(heard.of({"weights": str(file), "sha256": weight_files.hash_of(file)}).recordings) == 2
    assert facts["heard"]["clinic"] == {"recordings": 2, "groups": 1, "hours": 0.02, "licences": ["CC0-1.0"]}
    assert pd.read_csv(tmp_path / "out" / outputs.CURVES)["step"].tolist() == [25]


def test_layers_are_blocks_and_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    from support import tiny_checkpoints

    file = tiny_checkpoints.heart(tmp_path / "heart.safetensors")[0]
    wave = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    both = heart.Heart.from_pretrained(file, layers=(2, "last"))
    frames = both.encode(wave)[0]
    assert frames.shape[1] == both.dim == 2 * 8 + 4
    last = heart.Heart.from_pretrained(file).encode(wave)[0]
    assert torch.equal(frames[:, 8:], last)
    assert not torch.equal(frames[:, :8], last[:, :8])
    with pytest.raises(weight_files.WeightsError, match="`last` and 0 to 5, not 6"):
        heart.Heart.from_pretrained(file, layers=(6,))


def test_simulated_children_are_not_those_of_a_demo_corpus() -> None:
    from heartml.data.simulation import children, visits

    assert corpus.SEED_APART > 10**6
    other = visits.draw_visits(PARAMS.simulate.seed, children.draw_child(PARAMS.simulate.seed, 0))[0]
    own = visits.draw_visits(corpus.SEED_APART + 1, children.draw_child(corpus.SEED_APART + 1, 0))[0]
    assert other.child != own.child


def test_a_recording_without_a_murmur_has_clean_systole_and_no_features_of_a_murmur() -> None:
    table = pd.DataFrame({"label_murmur": ["Present", "Present", "Absent"],
                          "label_murmur_here": ["Present", "Absent", None],
                          "label_systolic_murmur_timing": ["Early-systolic", "Holosystolic", None],
                          "label_systolic_murmur_pitch": ["Low", "High", None]})
    found = targets.label_numbers(table)
    assert found["murmur"].tolist() == [0, 2, 2]
    assert set(found) == {"murmur"}, "one recording with a murmur has one timing: nothing to tell apart"
    states = np.array([1, 1], np.int8)
    assert targets.frame_classes(states, {"murmur": "Present", "murmur_here": "Absent"}).tolist() == [4, 4]
    assert targets.frame_classes(states, {}).tolist() == [-1, -1]


def test_every_group_that_a_task_is_scored_on_is_left_out_with_all_its_recordings() -> None:
    recordings = pd.DataFrame({"recording_id": list("abcd"), "group_id": list("abcd")})
    joined = pd.DataFrame({"recording_id": list("abcd"), "group_id": ["x", "x", "y", "z"]})
    folds = {"one-murmur": pd.DataFrame({"group_id": ["x"], "part": ["0"]}),
             "two-sounds": pd.DataFrame({"group_id": ["y"], "part": ["test"]})}
    assert list(selection.allowed(recordings, joined, folds, "scored")["recording_id"]) == ["d"]
    assert list(selection.allowed(recordings, joined, folds, "held_out")["recording_id"]) == ["a", "b", "d"]
    with pytest.raises(StageError, match="no recording may be heard"):
        selection.need_something(recordings.head(0), 0.25)
    selection.need_something(recordings.head(0), 1.0)
