"""How few patients teach a murmur, with ears that know hearts: AUC of Present against Absent for n training patients.

python benchmarks/heart_encoder.py [--general mn04] [--draws 12] [--sizes 20 40 80] [--json FILE]

Run it in a project that has CirCor and the folds of `circor-murmur`. The groups are divided into two halves by their
names. A heart encoder is trained on one half (`pretrain` of params.yaml, some minutes; done once), and everything else
happens in the other, then the other way round: a third of its groups is the test part, n patients of the rest, a fifth
of them Present, train a logistic regression whose penalty is chosen inside them. `--general` is a pre-trained encoder
of params.yaml to compare with, and to put beside the heart encoder. Each encoder has its network with random weights
beside it. Intervals are 95 %, over groups, of the mean over draws.
"""

import argparse
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from heartml.core import config, paths
from heartml.core.config import Params
from heartml.evaluation.probe import controls, linear, vectors
from heartml.metrics import class_auc
from heartml.metrics.bootstrap import group_weights
from heartml.models import encoders, heard
from heartml.models.encoders import EncoderSpec, weight_files
from heartml.stages import pretrain
from heartml.training import training_set
from heartml.training.training_set import TrainingSet

TASK, PRESENT, UNKNOWN = "circor-murmur", 0, 1
TEST_SHARE, PRESENT_SHARE = 1 / 3, 1 / 5
RESAMPLES = 400
FOLDER = paths.STATE / "heart-encoder"
POOLINGS = {"logspec": "everything", "general": "moments", "heart": "states"}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Half:
    """One half of the patients, and vectors of its recordings by encoders that did not hear it."""

    name: str
    data: TrainingSet
    vectors: dict[str, Floats]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--general", help="a pre-trained encoder of params.yaml")
    parser.add_argument("--draws", type=int, default=12, help="draws of test part and patients in each half")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 40, 80])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    params = config.load()
    table = pd.read_parquet(paths.folds(TASK)).assign(part="0")
    sides = {name: table[side_of(table) == number].reset_index(drop=True) for number, name in enumerate("ab")}
    found = [half(name, own, train(other, sides[other], params), options.general, params)
             for (name, own), other in zip(sides.items(), "ba", strict=True)]
    rows = measure(found, options.sizes, options.draws)
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def side_of(table: pd.DataFrame) -> "pd.Series[int]":
    """0 or 1 for each row, from the group's name alone."""
    return table["group_id"].map(lambda name: int(hashlib.sha256(str(name).encode()).hexdigest(), 16) % 2)


def train(name: str, table: pd.DataFrame, params: Params) -> Path:
    """The weights of a heart encoder that heard this half, trained unless they are there."""
    folder = FOLDER / name
    if not (folder / "heart.safetensors").exists():
        recordings = pd.read_parquet(paths.RECORDINGS).drop(columns="group_id")
        heard_rows = recordings.merge(table[["recording_id", "group_id"]], on="recording_id")
        assert params.pretrain
        print(pretrain.train(heard_rows.sort_values("recording_id", ignore_index=True), 0,
                             encoders.spec("logspec", params), params.pretrain, folder), flush=True)
    return folder / "heart.safetensors"


def half(name: str, table: pd.DataFrame, weights: Path, general: str | None, params: Params) -> Half:
    """The vectors of one half under every encoder."""
    own = encoders.spec_of_weights("heart", {"weights": str(weights), "sha256": weight_files.hash_of(weights)}, params)
    heard.refuse(TASK, {"heart": own.to_json()}, table)
    specs: dict[str, EncoderSpec] = {"logspec": encoders.spec("logspec", params), "heart": own}
    if general:
        specs["general"] = encoders.spec(general, params)
    data = training_set.build(TASK, table, pd.read_parquet(paths.RECORDINGS))
    found = {}
    for kind, spec in specs.items():
        pooling = POOLINGS[kind]
        found[kind] = vectors.pooled(spec, data.recording_ids, [pooling])[pooling]
        if (control := controls.random_weights(spec, params.seed)) is not None:
            found[f"{kind}, random"] = vectors.pooled(control, data.recording_ids, [pooling])[pooling]
    if general:
        found["heart + general"] = np.concatenate([found["heart"], found["general"]], axis=1)
    return Half(name, data, found)


def measure(halves: list[Half], sizes: list[int], draws: int) -> list[dict[str, object]]:
    """For each size and encoder the mean AUC, and the paired differences to logspec and to the general encoder."""
    rows: list[dict[str, object]] = []
    for size in sizes:
        curves = [of_half(one, size, draws) for one in halves]
        whole = {name: np.mean([own[name] for own in curves], axis=0) for name in curves[0]}     # [1 + resamples]
        for name, values in whole.items():
            row: dict[str, object] = {"patients": size, "encoder": name, "auc": interval(values)}
            for other in ("logspec", "general"):
                if other in whole and other != name:
                    row[f"minus {other}"] = interval(values - whole[other])
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def of_half(one: Half, size: int, draws: int) -> dict[str, Floats]:
    """Encoder -> mean AUC over the draws: first with every group counted once, then in each resample of groups."""
    data = one.data
    rng = np.random.default_rng([size, ord(one.name)])
    weights = np.concatenate([np.ones((1, len(data.labels))), *group_weights(data.group_ids, RESAMPLES, rng)])
    found: dict[str, list[Floats]] = {name: [] for name in one.vectors}
    for _ in range(draws):
        parts = draw(data, size, rng)
        units = parts >= 0
        subset = replace(data, parts=np.where(units, parts, -1))
        for name, own in one.vectors.items():
            here = subset.parts == 0
            c, _ = linear.choose(own, subset, subset.parts > 0)
            p = linear.predict(linear.fit(own, subset, subset.parts > 0, c), own, subset, here)
            found[name].append(class_auc(p[:, PRESENT], data.labels[here] == PRESENT, weights[:, here]))
    return {name: np.nanmean(values, axis=0) for name, values in found.items()}


def draw(data: TrainingSet, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Part of each unit: 0 test, 1 to 3 inner folds of the training patients, -1 not used."""
    names = rng.permutation(np.unique(data.groups))
    test = np.isin(data.groups, names[: round(TEST_SHARE * len(names))])
    parts = np.where(test & (data.labels != UNKNOWN), 0, -1)
    for label, count in ((PRESENT, round(size * PRESENT_SHARE)), (2, size - round(size * PRESENT_SHARE))):
        free = rng.permutation(np.flatnonzero(~test & (data.labels == label)))
        if len(free) < count:
            raise SystemExit(f"{count} patients are wanted of a class and {len(free)} are there: smaller --sizes")
        parts[free[:count]] = 1 + np.arange(count) % linear.INNER_FOLDS
    return parts


def interval(values: Floats) -> list[float]:
    """Value, and the 95 % interval of the resamples."""
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return [round(float(one), 4) for one in (values[0], low, high)]


def show(rows: list[dict[str, object]]) -> None:
    """Print a table."""
    table = Table(title="AUC of Present against Absent by number of training patients")
    for name in ("patients", "encoder", "AUC", "minus logspec", "minus general"):
        table.add_column(name)
    for row in rows:
        cells = [row.get(key) for key in ("auc", "minus logspec", "minus general")]
        table.add_row(str(row["patients"]), str(row["encoder"]), *(
            "" if cell is None else "{:.3f} [{:.3f}, {:.3f}]".format(*cell) for cell in cells))
    Console().print(table)


if __name__ == "__main__":
    main()
