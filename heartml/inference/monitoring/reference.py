"""What the recordings were like that a version learnt from: the side of the comparison that does not move.

`reference.parquet`, stored with the run that registered the version: one recording of each group (recordings of one
person are not independent), drawn by hash, of at most `monitor.most_groups` groups and as many of the held-out ones.

| column | what |
| --- | --- |
| group_id, recording_id, part | the group, the recording drawn from it, its fold or `test` |
| seconds ... contrast_db | `heartml.audio.quality.Quality` |
| sample_rate_hz | of the file |
| embedding | float32: mean and deviation of every band of the frames that the model hears |
| leaning, confidence | what the model says of the recording's unit, held-out groups alone: too sure of the others |

Everything is read from what the stages left under `artifacts/`; the same artifacts give the same bytes.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heartml.audio.quality import Quality
from heartml.core import config, paths
from heartml.core.frame_store import Frames
from heartml.core.schema import TEST
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json, scratch, write_parquet
from heartml.core.system.hashing import sha256, sha256_folder
from heartml.inference import batch
from heartml.inference.model_lookup import Located
from heartml.registry import tracking, versions

NAME = "reference.parquet"
MEASURED = (*(field.name for field in fields(Quality)), "sample_rate_hz")


class NoReference(HeartMLError):  # noqa: N818 - reads as what is the case
    """Nothing is known of the recordings that this model learnt from; the message says how to get at it."""


def write(task: str) -> Path:
    """Make the reference of the model in `artifacts/`; there is no file where what it needs is not there."""
    file = paths.STATE / "reference" / f"{task}.parquet"
    file.unlink(missing_ok=True)
    encoders = read_json(paths.model(task) / "model.json").get("encoders", {})
    needed = [paths.VALIDATION / "signal.parquet", paths.RECORDINGS, paths.folds(task),
              paths.evaluation(task) / "predictions.parquet", *(paths.features(task, name) for name in encoders)]
    if encoders and all(path.exists() for path in needed):
        write_parquet(file, build(task, sorted(encoders), config.load().monitor.most_groups))
    return file


def build(task: str, encoders: Sequence[str], most_groups: int) -> pd.DataFrame:
    """The table, see above, of the model in `artifacts/` that hears these encoders."""
    table = drawn(pd.read_parquet(paths.folds(task), columns=["recording_id", "unit_id", "group_id", "part"]))
    held_out = thinned(table[table["part"] == TEST], most_groups)
    kept = pd.concat([held_out, thinned(table, most_groups)]).drop_duplicates("group_id")
    signal = pd.read_parquet(paths.VALIDATION / "signal.parquet")
    rates = pd.read_parquet(paths.RECORDINGS, columns=["recording_id", "sample_rate_hz"])
    answers = _answers(pd.read_parquet(paths.evaluation(task) / "predictions.parquet"))
    whole = (kept.merge(signal, on="recording_id").merge(rates.drop_duplicates("recording_id"), on="recording_id")
             .merge(answers, on="unit_id", how="left").sort_values("group_id", ignore_index=True))
    opened = [Frames.open(paths.features(task, name)) for name in encoders]
    embeddings = [batch.embedding([frames[i] for frames in opened]) for i in whole["recording_id"]]
    columns = ["group_id", "recording_id", "part", *MEASURED, "leaning", "confidence"]
    return whole[columns].assign(embedding=pd.Series(embeddings, index=whole.index, dtype=object))


def drawn(recordings: pd.DataFrame) -> pd.DataFrame:
    """One recording of each `group_id`: the one whose hash is the smallest, a fair draw that anybody can repeat.

    The same audio in two groups counts in one of them.
    """
    ordered = recordings.sort_values(["recording_id", "group_id"], kind="stable").drop_duplicates("recording_id")
    return ordered.drop_duplicates("group_id")


def thinned(groups: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most so many of the groups, drawn by the hash of their names."""
    order = np.argsort([sha256(str(group_id).encode()) for group_id in groups["group_id"]])
    return groups.iloc[order[:most]]


def _answers(predictions: pd.DataFrame) -> pd.DataFrame:
    """unit_id, leaning and its calibrated confidence."""
    rows: list[dict[str, Any]] = [
        {"unit_id": row["unit_id"], "leaning": row["decision"], "confidence": row[f"c_{row['decision']}"]}
        for row in predictions.to_dict("records")
    ]
    return pd.DataFrame(rows, columns=["unit_id", "leaning", "confidence"]).astype({"unit_id": "string"})


def of(located: Located, task: str) -> tuple[pd.DataFrame, frozenset[str]]:
    """The reference of a model, and every recording that it learnt from or was tested on.

    That of a registered version comes from its run; that of a model in `artifacts/` is made from what lies beside it.

    Raises:
        NoReference: there is none.
    """
    stored = _stored(located) if located.name and located.version else None
    if stored is not None:
        return stored
    same = paths.model(task).is_dir() and sha256_folder(paths.model(task)) == sha256_folder(located.folder)
    file = write(task) if same else None
    if file is None or not file.exists():
        raise NoReference(f"{located.words}: no {NAME} is stored with it, and the model in {paths.model(task)} is "
                          "another or its features are gone. Run `heartml retrain`, or name a version with --model")
    known = pd.read_parquet(paths.folds(task), columns=["recording_id"])["recording_id"]
    return pd.read_parquet(file), frozenset(known)


def _stored(located: Located) -> tuple[pd.DataFrame, frozenset[str]] | None:
    client = tracking.connect()
    version = next((v for v in versions.versions(client, str(located.name)) if v.number == located.version), None)
    if version is None or NAME not in tracking.stored(client, version.run_id):
        return None
    with scratch() as folder:
        table = pd.read_parquet(tracking.fetch(client, version.run_id, NAME, folder))
        folds = pd.read_parquet(tracking.fetch(client, version.run_id, "folds.parquet", folder))
    return table, frozenset(folds["recording_id"])
