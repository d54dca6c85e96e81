"""Distillation: a student learns the ensemble's probabilities, and is judged on folds that it had not seen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import tiny_models
from support.small_heads import HYPERPARAMETERS

from heartml.core import tasks
from heartml.core.frame_store import Frames
from heartml.models.ensemble.candidate import CandidateSpec, FeatureSet
from heartml.models.ensemble.selection import EnsembleTerms
from heartml.models.pooling import Grid
from heartml.training import distillation
from heartml.training.distillation import CannotDistil, student_spec
from heartml.training.fold_fits import TrainingData
from heartml.training.training_set import TrainingSet

UNITS, FOLDS, DIM, FRAMES = 24, 3, 12, 130
TASK = tasks.resolve("simulated-murmur").task
PARAMS = tiny_models.PARAMS
SPEC = CandidateSpec("logspec", "sequence", "recording", None,
                     {**HYPERPARAMETERS["sequence"], "steps": 80, "batch": 24, "rate": 0.005, "dropout": 0.0,
                      "frame_weight": 0.0, "noise_share": 0.0, "mixup": 0.0, "strength": 0.0})
TERMS = EnsembleTerms(TASK, PARAMS.stacking, PARAMS.ensemble.for_task("simulated-murmur"))


@pytest.fixture(scope="module")
def data() -> TrainingData:
    """Two recordings of each patient, whose label is the band that is loud."""
    rng = np.random.default_rng(0)
    labels = np.arange(UNITS) % 3
    unit = np.repeat(np.arange(UNITS), 2)
    frames = rng.normal(size=(2 * UNITS, FRAMES, DIM)).astype(np.float32)
    frames[np.arange(2 * UNITS), :, labels[unit]] += 3
    ids = tuple(f"r{n:02}" for n in range(2 * UNITS))
    units = tuple(f"u{n:02}" for n in range(UNITS))
    train_set = TrainingSet("simulated-murmur", TASK, ids, units, units, unit, labels[unit], labels, np.arange(UNITS),
                            np.arange(UNITS) // 3 % FOLDS)
    encoder = {"frame_rate_hz": 50.0, "dim": DIM, "bands_hz": []}
    stored = Frames(Path("nowhere"), frames.reshape(-1, DIM).astype(np.float16),
                    {one: (n * FRAMES, FRAMES) for n, one in enumerate(ids)}, encoder)
    features = FeatureSet({"logspec": list(frames)}, {"logspec": 50.0}, {"logspec": Grid(DIM, 1)}, unit)
    annotations = pd.DataFrame({"recording_id": [], "start_s": [], "end_s": [], "state": []})
    return TrainingData(train_set, features, {"logspec": stored}, annotations, (FRAMES / 50,) * 2 * UNITS)


def test_a_student_learns_what_the_ensemble_says(data: TrainingData) -> None:
    """Where the ensemble takes one class for the next, so does its student, whatever the labels are."""
    taught = np.full((UNITS, 3), 0.05)
    taught[np.arange(UNITS), (data.train_set.labels + 1) % 3] = 0.9
    head = data.fit(SPEC, np.ones(UNITS, bool), 0, probabilities=taught)
    found = data.predict_proba(head, SPEC, np.ones(UNITS, bool)).log_p.argmax(axis=1)
    assert np.mean(found == (data.train_set.recording_labels + 1) % 3) > 0.75      # by chance 0.33


def test_a_student_is_judged_on_folds_that_it_had_not_seen(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[np.ndarray] = []
    whole = TrainingData.fit

    def watched(self: TrainingData, spec: CandidateSpec, units: np.ndarray, *rest: object, **more: object) -> object:
        fitted.append(units)
        return whole(self, spec, units, *rest, **more)

    monkeypatch.setattr(TrainingData, "fit", watched)
    taught = np.full((UNITS, 3), 0.05)
    taught[np.arange(UNITS), data.train_set.labels] = 0.9
    student = distillation.train(data, taught, SPEC, TERMS, 0)
    parts = data.train_set.parts
    assert [sorted(set(parts[units])) for units in fitted] == [[1, 2], [0, 2], [0, 1], [0, 1, 2]]
    assert np.mean(student.out_of_fold.decisions == data.train_set.labels) > 0.6       # by chance 0.33
    assert next(iter(student.ensemble.weights)).trials == (distillation.TRIAL,)


def test_the_network_is_the_best_of_the_search_or_the_first_initial_trial(tmp_path: Path) -> None:
    def table(*values: float) -> None:
        rows = [{"trial": n, "state": "COMPLETE", "value": value, "encoder": "logspec", "level": "recording",
                 "pooling": None, "head": "sequence", "numbers": f'{{"dropout": 0.{n}}}'}
                for n, value in enumerate(values)]
        rows.append({**dict.fromkeys(("pooling", "level")), "trial": 9, "state": "COMPLETE", "value": 1.0,
                     "encoder": "logspec", "head": "logistic", "numbers": "{}"})
        pd.DataFrame(rows).to_parquet(tmp_path / "trials.parquet")

    search = PARAMS.search
    table(0.5, 0.7, 0.6)
    assert student_spec(tmp_path, search).hyperparameters == {"dropout": 0.1}
    table()
    assert student_spec(tmp_path, search).hyperparameters["rate"] == 4e-3
    left = search.model_copy(update={"initial_trials": ()})
    with pytest.raises(CannotDistil, match=r"search\.initial_trials has none: add a line"):
        student_spec(tmp_path, left)


def test_training_on_labels_is_as_it_was(data: TrainingData) -> None:
    """One-hot probabilities without class weights are the labels."""
    flat = replace(SPEC, hyperparameters={**SPEC.hyperparameters, "class_weight_power": 0.0, "label_smoothing": 0.0,
                                          "loss": "cross_entropy", "steps": 3})
    everything, hot = np.ones(UNITS, bool), np.eye(3)[data.train_set.labels]
    one, two = data.fit(flat, everything, 0).state(), data.fit(flat, everything, 0, probabilities=hot).state()
    assert all(np.allclose(two.arrays[name], array, atol=1e-5) for name, array in one.arrays.items())
