"""Pooled vectors in files: the values of memory, made once for all processes, and never those of other frames."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import search_project
from support.search_project import NAME

from heartml.core import config, frame_store, paths
from heartml.core.frame_store import Frames
from heartml.models import pooling
from heartml.models.ensemble import pooled_files
from heartml.models.ensemble.candidate import CandidateSpec, FeatureSet
from heartml.models.pooling import POOLINGS, Grid
from heartml.training import fold_fits, training_set

RNG = np.random.default_rng(3)
FRAMES = [RNG.normal(size=(200 + n, 8)).astype(np.float32) for n in range(12)]
UNIT = np.array([0, 1, 2, 3, 0, 1, 2, 3, 3, 3, 1, 0])


def feature_set(folder: Path | None) -> FeatureSet:
    return FeatureSet({"logspec": FRAMES}, {"logspec": 50.0}, {"logspec": Grid(8, 1)}, UNIT, folder)


@pytest.mark.parametrize("name", sorted(POOLINGS))
def test_a_file_has_the_values_that_memory_has(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory, first = feature_set(None), feature_set(tmp_path)
    wanted = [np.array([3, 1, 2]), np.array([0])]
    for level in ("recording", "unit"):
        spec = CandidateSpec("logspec", "logistic", level, name, {})
        for rows in wanted:
            assert first.inputs(spec, rows).tobytes() == in_memory.inputs(spec, rows).tobytes()
    monkeypatch.setitem(POOLINGS, name, None)      # a second process pools nothing
    second = feature_set(tmp_path)
    for level in ("recording", "unit"):
        found = second._pooled("logspec", name, level)
        assert found.tobytes() == in_memory._pooled("logspec", name, level).tobytes()
        assert isinstance(found.base, np.memmap), "it is not read into memory"


def test_one_vector_is_in_memory_at_a_time(tmp_path: Path) -> None:
    waiting: list[int] = []

    def rows():
        for number in range(3):
            waiting.append(number)
            yield np.full(4, number, float)
        assert (tmp_path / "a.npy").exists() is False, "a file is whole or not there"

    assert pooled_files.mapped(tmp_path / "a.npy", rows(), 3)[:, 0].tolist() == [0, 1, 2]
    assert pooled_files.mapped(tmp_path / "a.npy", rows(), 3).shape == (3, 4)
    assert waiting == [0, 1, 2]


def test_other_frames_units_or_code_are_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    search_project.write(tmp_path, children=20)
    place = paths.features(NAME, "logspec")

    def folder() -> Path:
        return fold_fits.pooled_folder(NAME, training_set.load(NAME), {"logspec": Frames.open(place)})

    first = folder()
    assert folder() == first
    recordings, drawn = pd.read_parquet(paths.RECORDINGS), pd.read_parquet(paths.folds(NAME))
    fewer = training_set.build(NAME, drawn[drawn["part"] != "test"].iloc[3:], recordings)
    assert fold_fits.pooled_folder(NAME, fewer, {"logspec": Frames.open(place)}) != first
    described = json.loads((place / "encoder.json").read_text())
    stored = Frames.open(place)
    changed = {i: (stored[i] + 1).astype(np.float16) for i in stored.recording_ids}
    frame_store.write(tmp_path / "new", changed, 50.0, described)
    shutil.rmtree(place)
    shutil.move(tmp_path / "new", place)
    assert folder() != first
    second = folder()
    monkeypatch.setattr(fold_fits, "_POOLING_CODE", ("models/pooling.py",))
    assert folder() not in (first, second)


def test_the_files_of_a_task_are_removed_together_with_those_of_its_earlier_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    search_project.write(tmp_path, children=20)
    params = config.load()
    data = fold_fits.training_data(NAME, params.encoders, tmp_path, shared=True)
    data.feature_set.inputs(CandidateSpec("logspec", "logistic", "unit", "moments", {}), np.array([0]))
    left = sorted(file.name for file in (tmp_path / ".heartml/pooled").glob(f"{NAME}-*/*.npy"))
    assert left == ["logspec-moments-unit.npy", "logspec-moments.npy"]
    old = tmp_path / ".heartml/pooled" / f"{NAME}-{'0' * 16}"
    other = tmp_path / ".heartml/pooled" / f"{NAME}-lungs-{'0' * 16}"
    old.mkdir()
    other.mkdir()
    fold_fits.remove_pooled(NAME)
    assert list((tmp_path / ".heartml/pooled").iterdir()) == [other], "of this task, also of earlier frames"


def test_pooling_one_by_one_is_pooling_all() -> None:
    for name in POOLINGS:
        each = list(pooling.each(name, iter(FRAMES), 50.0, Grid(8, 1)))
        assert np.stack(each).tobytes() == pooling.pool(name, FRAMES, 50.0, Grid(8, 1)).tobytes()
