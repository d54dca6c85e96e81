"""A tiny project in which encoders can be probed: tones in noise, higher where the label is Abnormal, and no files."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import tiny_checkpoints
from support.workspaces import ROOT

from heartml.core import config, paths
from heartml.core.config import Params
from heartml.evaluation.probe import vectors
from heartml.models.encoders import weight_files

TASK = "clinic-outcome"
UNITS, FOLDS = 40, 4


def make(root: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A project with sounds of two pitches, and an encoder that heard one recording of another clinic."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(root / "cache"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    file = tiny_checkpoints.heart(root / "heart.safetensors", pd.DataFrame(
        {"recording_id": ["f" * 64], "group_id": ["other-1"], "dataset": ["other"]}))[0]
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    found = tiny_checkpoints.with_sections(config.load(), {
        "ears": {"kind": "heart", "weights": str(file), "sha256": weight_files.hash_of(file)}})
    found = found.model_copy(update={"evaluate": found.evaluate.model_copy(update={"bootstrap": 100})})
    monkeypatch.setattr(config, "load", lambda: found)
    table = fold_table(names())
    paths.folds(TASK).parent.mkdir(parents=True)
    table.to_parquet(paths.folds(TASK))
    pd.DataFrame({"recording_id": table["recording_id"]}).to_parquet(_made(paths.RECORDINGS))
    monkeypatch.setattr(vectors.sound_files, "read_recording", lambda _, recording_id: sound(table, recording_id))
    return found


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    return path


def sound(table: pd.DataFrame, recording_id: str) -> object:
    """Half a second more than a second of a tone, higher where the label is Abnormal, in noise."""
    label = table.set_index("recording_id")["label"][recording_id]
    rng, time_s = np.random.default_rng(int(recording_id[:2])), np.arange(6000) / 4000
    wave = np.sin(2 * np.pi * (150 if label == "Normal" else 420) * time_s) + rng.normal(0, 1.5, 6000)
    return vectors.sound_files.Samples((wave * 3000).astype(np.int16), 4000)


def fold_table(ids: list[str]) -> pd.DataFrame:
    """schema.FOLDS of `UNITS` units of one recording each, and two that are held out."""
    labels = ["Abnormal", "Normal"] * (len(ids) // 2)
    parts = [str(number // 2 % FOLDS) for number in range(UNITS)] + ["test"] * (len(ids) - UNITS)
    return pd.DataFrame({"recording_id": ids, "unit_id": ids, "group_id": [f"g-{i[:2]}" for i in ids], "label": labels,
                         "part": parts}).astype("string")


def names() -> list[str]:
    return [f"{number:02d}" * 32 for number in range(UNITS + 2)]
