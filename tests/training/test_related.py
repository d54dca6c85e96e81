"""The murmur task's networks for a descriptor: whom they heard, what they are asked, and that nothing of it leaks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import search_project
from support.small_heads import HYPERPARAMETERS

from heartml.core import config, folds, frame_store, paths, schema
from heartml.core.folds import TEST
from heartml.core.system import files
from heartml.metrics import METRICS
from heartml.models import encoders
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.models.ensemble.stacking import out_of_fold_log_p, stacking_features, view_kinds
from heartml.models.heads import HEADS, HeadState, related
from heartml.stages import split
from heartml.training import fold_fits, search_run
from heartml.training.fold_fits import FoldFit, NoParent, TrainingData, fit_fold, training_data

PITCH, MURMUR, TIMING = "simulated-systolic_pitch", "simulated-murmur", "simulated-systolic_timing"
CHILDREN = 90
NUMBERS = {**HYPERPARAMETERS["related"], "steps": 40, "noise_share": 0.0}
SPEC = CandidateSpec("logspec", "related", "recording", None, NUMBERS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Children of whom two in five have a murmur, high or low: louder in the upper bands early in systole, or late."""
    root = tmp_path_factory.mktemp("related")
    search_project.write(root, children=CHILDREN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        table = pd.read_parquet(paths.RECORDINGS)
        child = table["patient_id"].str.rpartition("-")[2].astype(int)
        present = table["label_murmur"] == "Present"
        high = present & (child % 2 == 0)
        table["label_systolic_murmur_pitch"] = np.where(high, "High", np.where(present, "Low", None))
        known = present & (child % 25 != 0)      # some have a pitch and no timing
        table["label_systolic_murmur_timing"] = np.where(
            known, np.where(high, "Early-systolic", "Holosystolic"), None)
        table = schema.conform(table, schema.RECORDINGS, "recordings")
        files.write_parquet(paths.RECORDINGS, table)
        files.write_parquet(paths.VALIDATION / "groups.parquet", table[["recording_id", "group_id"]])
        files.write_json(paths.VALIDATION / "validation.json", {"success": True, "errors": []})
        rng = np.random.default_rng(1)
        frames = {one: _frames(str(murmur), bool(is_high), rng) for one, murmur, is_high in zip(
            table["recording_id"], table["label_murmur"], high, strict=True)}
        spec = encoders.spec("logspec", config.load()).to_json()
        for name in (MURMUR, PITCH, TIMING):
            split.run(name)
            heard = folds.read_heard(paths.folds(name))["recording_id"]
            frame_store.write(paths.features(name, "logspec"), {one: frames[one] for one in heard}, 50.0, spec)
    return root


def _frames(murmur: str, high: bool, rng: np.random.Generator) -> np.ndarray:
    found = search_project._frames(murmur, "logspec", rng).astype(np.float32)
    place = np.resize(np.concatenate([np.zeros(5), np.arange(12), np.full(23, 99)]), len(found))
    if murmur == "Present":
        found[(place < 6) if high else (place >= 6) & (place < 12), 4:] += 4.0
    return found.astype(np.float16)


@pytest.fixture
def data(made: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingData:
    monkeypatch.chdir(made)
    fold_fits.training_data.cache_clear()
    return training_data(PITCH, ("logspec",), made)


def fit(made: Path, name: str, fold: int, file: Path, seed: int = 3) -> Path:
    fold_fits.training_data.cache_clear()
    fit_fold(FoldFit(name, ("logspec",), made, SPEC, fold, seed, file))
    return file


def out_of_fold(data: TrainingData, labels: np.ndarray, made: Path, to: Path) -> float:
    """UAR of a stacker of what the networks of all folds hear, each fold by a stacker of the others."""
    files_ = [to / f"{fold}.safetensors" for fold in range(data.train_set.folds)]
    for fold, file in enumerate(files_):
        if not file.exists():
            fit(made, PITCH, fold, file)
    prediction = search_run.joined_folds(SPEC, [fold_fits.read_prediction(file) for file in files_], data.train_set)
    [kind] = view_kinds(SPEC, data.train_set.task, prediction)
    columns = stacking_features(kind, prediction, data.train_set.unit)
    log_p = out_of_fold_log_p(kind, columns, labels, data.train_set.parts, np.ones(3), config.load().stacking)
    classes = data.train_set.task.classes
    return METRICS["uar"].function(labels, np.exp(log_p), log_p.argmax(1), classes)


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fits")


def test_no_network_hears_a_recording_of_the_fold_that_it_describes_or_of_the_held_out_part(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[np.ndarray] = []
    monkeypatch.setattr(related, "fit", lambda inputs, targets, *_: heard.append((len(inputs), targets)))
    murmur = folds.load(paths.folds(MURMUR))
    for fold in range(data.train_set.folds):
        parent, units = fold_fits.parent_units(data, data.train_set.parts != fold)
        ids = {parent.train_set.recording_ids[row] for row in parent.train_set.recordings_of(units)}
        assert ids == set(murmur.loc[~murmur["part"].isin([TEST, str(fold)]), "recording_id"])
        data.fit(SPEC, data.train_set.parts != fold, 1)
        count, targets = heard[-1]
        assert (count, targets.classes, targets.described) == (len(ids), 3, 3)
        assert set(targets.labels) == {0, 1, 2} and targets.states is not None


def test_context_is_heard_and_never_a_case(data: TrainingData) -> None:
    described = folds.load(paths.folds(PITCH))
    assert set(data.train_set.recording_ids) == set(described.loc[described["part"] != TEST, "recording_id"])
    assert len(data.parent.train_set.recording_ids) > 2 * len(data.train_set.recording_ids)
    assert set(np.array(data.parent.train_set.task.classes)[data.parent.train_set.labels]) == {
        "Present", "Absent", "Unknown"}


def test_it_tells_what_it_hears_and_holds_no_opinion(data: TrainingData, made: Path, fits: Path) -> None:
    prediction = fold_fits.read_prediction(fit(made, PITCH, 0, fits / "0.safetensors"))
    assert np.allclose(prediction.log_p, -np.log(3)), "shares of the other folds would tell of this one"
    assert np.allclose(np.exp(prediction.details[:, -3:]).sum(1), 1), "the last columns are the murmur's classes"
    state = fold_fits.read_state(fits / "0.safetensors")
    loaded = HEADS["related"]().load(HeadState(state.arrays, dict(state.scalars)))
    again = data.predict_proba(loaded, SPEC, data.train_set.parts == 0)
    assert np.allclose(again.details, prediction.details, atol=1e-5)
    assert fold_fits.read_curves(fits / "0.safetensors")["validation"][-1] < np.log(3)


def test_a_stacker_learns_the_descriptor_from_it_and_nothing_where_labels_are_shuffled(
    data: TrainingData, made: Path, fits: Path
) -> None:
    labels = data.train_set.labels
    classes = sorted(set(labels))
    coded = np.searchsorted(classes, labels)
    assert out_of_fold(data, coded, made, fits) > 0.85
    shuffled = [out_of_fold(data, np.random.default_rng(seed).permutation(coded), made, fits) for seed in range(12)]
    assert np.mean(shuffled) < 0.55, "a leak lies above chance, .5; a class that other folds have more of, below it"
    one_fold_each = (data.train_set.parts % 2).astype(np.int64)      # nothing but the fold tells this label
    assert out_of_fold(data, one_fold_each, made, fits) < 0.6


def test_descriptors_share_a_network_and_another_seed_is_another_one(
    made: Path, fits: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(made, PITCH, 0, fits / "0.safetensors")
    assert len(folds.load(paths.folds(TIMING))) < len(folds.load(paths.folds(PITCH)))
    calls: list[int] = []
    monkeypatch.setattr(related, "fit", lambda *_: calls.append(1))
    fit(made, TIMING, 0, fits / "timing.safetensors")
    assert not calls, "the network of the same folds is there already"
    first, second = (fold_fits.read_state(fits / name) for name in ("0.safetensors", "timing.safetensors"))
    assert {key: value.tobytes() for key, value in first.arrays.items()} == {
        key: value.tobytes() for key, value in second.arrays.items()}
    assert (first.scalars["described"], second.scalars["described"]) == (3, 4)
    assert fold_fits.read_curves(fits / "0.safetensors") == fold_fits.read_curves(fits / "timing.safetensors")
    with pytest.raises(AttributeError):
        fit(made, TIMING, 0, fits / "other.safetensors", seed=4)
    assert calls


def test_a_task_within_none_refuses_the_head_in_one_line(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    fold_fits.training_data.cache_clear()
    data = training_data(MURMUR, ("logspec",), made)
    with pytest.raises(NoParent, match=r"simulated-murmur: the head `related` needs .* Take it out of `search.heads`"):
        data.fit(SPEC, np.ones(len(data.train_set.unit_ids), bool), 1)
