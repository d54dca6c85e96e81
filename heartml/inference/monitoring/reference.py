"""The reference of a version: a table about the recordings that it was trained and tested on, for the comparison.

`reference.parquet` is stored with the run that registered the version. It has one recording of each group, because
recordings of one person are not independent. Groups are drawn by hash: at most `monitor.most_groups` of all groups, and
at most as many of the held-out ones.

| column | what |
| --- | --- |
| group_id, recording_id, part | the group, the recording drawn from it, its fold or `test` |
| seconds ... contrast_db | `heartml.audio.quality.Quality` |
| sample_rate_hz | of the file |
| embedding | float32: mean and deviation of every band of the model's frames |
| leaning, confidence | top class of the recording's unit and its confidence; only of held-out groups |

A model is too confident about groups that it was trained on. Everything is read from the outputs of the stages under
`artifacts/`; the same outputs give the same bytes.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heartml.audio.quality import Quality
from heartml.core import config, folds, paths
from heartml.core.frame_store import Frames
from heartml.core.schema import TEST
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json, temporary_folder, write_parquet
from heartml.core.system.hashing import sha256, sha256_folder
from heartml.inference import batch
from heartml.inference.model_lookup import LocatedModel
from heartml.registry import tracking, versions

NAME = "reference.parquet"
_NOT_COMPARED = ("heard_bandwidth_hz",)      # only for a warning; references of older versions do not have it
MEASURED = (*(field.name for field in fields(Quality) if field.name not in _NOT_COMPARED), "sample_rate_hz")


class NoReference(HeartMLError):  # noqa: N818 - names what is the case
    """Nothing is known of the recordings that this model was trained on; the message says how to get a reference."""


def write(task: str) -> Path:
    """Write the reference of the model in `artifacts/`; returns its path. No file is written if an input is missing."""
    file = paths.STATE / "reference" / f"{task}.parquet"
    file.unlink(missing_ok=True)
    encoders = read_json(paths.model(task) / "model.json").get("encoders", {})
    needed = [paths.VALIDATION / "signal.parquet", paths.RECORDINGS, paths.folds(task),
              paths.evaluation(task) / "predictions.parquet", *(paths.features(task, name) for name in encoders)]
    if encoders and all(path.exists() for path in needed):
        write_parquet(file, build(task, sorted(encoders), config.load().monitor.most_groups))
    return file


def build(task: str, encoders: Sequence[str], most_groups: int) -> pd.DataFrame:
    """Make the table for the model in `artifacts/` whose frames come from these encoders."""
    table = one_per_group(folds.read(paths.folds(task), ["recording_id", "unit_id", "group_id", "part"]))
    held_out = at_most(most_groups, table[table["part"] == TEST])
    chosen = pd.concat([held_out, at_most(most_groups, table)]).drop_duplicates("group_id")
    signal = pd.read_parquet(paths.VALIDATION / "signal.parquet")
    rates = pd.read_parquet(paths.RECORDINGS, columns=["recording_id", "sample_rate_hz"])
    predictions = _top_classes(pd.read_parquet(paths.evaluation(task) / "predictions.parquet"))
    whole = (chosen.merge(signal, on="recording_id").merge(rates.drop_duplicates("recording_id"), on="recording_id")
             .merge(predictions, on="unit_id", how="left").sort_values("group_id", ignore_index=True))
    opened = [Frames.open(paths.features(task, name)) for name in encoders]
    embeddings = [batch.embedding([frames[i] for frames in opened]) for i in whole["recording_id"]]
    columns = ["group_id", "recording_id", "part", *MEASURED, "leaning", "confidence"]
    return whole[columns].assign(embedding=pd.Series(embeddings, index=whole.index, dtype=object))


def one_per_group(recordings: pd.DataFrame) -> pd.DataFrame:
    """Draw one recording of each `group_id`: the one with the smallest id, which is a hash.

    The draw is random and can be repeated. A recording in two groups counts in one of them only.
    """
    ordered = recordings.sort_values(["recording_id", "group_id"], kind="stable").drop_duplicates("recording_id")
    return ordered.drop_duplicates("group_id")


def at_most(count: int, groups: pd.DataFrame) -> pd.DataFrame:
    """Draw at most `count` of the groups, by the hash of their names."""
    order = np.argsort([sha256(str(group_id).encode()) for group_id in groups["group_id"]])
    return groups.iloc[order[:count]]


def _top_classes(predictions: pd.DataFrame) -> pd.DataFrame:
    """Table of unit_id, leaning (the top class) and its calibrated confidence."""
    rows: list[dict[str, Any]] = [
        {"unit_id": row["unit_id"], "leaning": row["decision"], "confidence": row[f"c_{row['decision']}"]}
        for row in predictions.to_dict("records")
    ]
    return pd.DataFrame(rows, columns=["unit_id", "leaning", "confidence"]).astype({"unit_id": "string"})


def read(located: LocatedModel, task: str) -> tuple[pd.DataFrame, frozenset[str]]:
    """The reference of a model, and the ids of all recordings that it was trained or tested on.

    The reference of a registered version is read from its run. The one of a model in `artifacts/` is made from the
    outputs of the stages beside it.

    Raises:
        NoReference: there is none.
    """
    stored = _from_run(located) if located.name and located.version else None
    if stored is not None:
        return stored
    same = paths.model(task).is_dir() and sha256_folder(paths.model(task)) == sha256_folder(located.folder)
    file = write(task) if same else None
    if file is None or not file.exists():
        raise NoReference(f"{located.description}: no {NAME} is stored with it, and the model in {paths.model(task)} "
                          "is another one or has no features any more. "
                          "Run `heartml retrain`, or name a version with --model")
    known = folds.read_heard(paths.folds(task))["recording_id"]
    return pd.read_parquet(file), frozenset(known)


def _from_run(located: LocatedModel) -> tuple[pd.DataFrame, frozenset[str]] | None:
    client = tracking.connect_to_existing()
    version = next((v for v in versions.list_versions(client, str(located.name)) if v.number == located.version), None)
    if version is None or NAME not in tracking.list_files(client, version.run_id):
        return None
    with temporary_folder() as folder:
        table = pd.read_parquet(tracking.fetch(client, version.run_id, NAME, folder))
        known = folds.read_heard(tracking.fetch(client, version.run_id, "folds.parquet", folder))
    return table, frozenset(known["recording_id"])
