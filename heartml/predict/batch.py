"""Scoring many recordings for a schedule: a folder or a table in, one Parquet table of probabilities out.

Work goes block by block; what a block answered is kept under `.heartml/score`, named by the content of its files and of
the model, until the table is written. A killed run goes on where it was, and no recording is scored twice.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from heartml import predict
from heartml.core import config, files, paths
from heartml.predict import AT_ONCE, Answer, Heard, inputs, locate, panel
from heartml.predict.inputs import Item
from heartml.predict.locate import Located


@dataclass(frozen=True)
class Block:
    """Some recordings that are scored together; a unit's recordings are never divided.

    Attributes:
        items, unit_of: recordings [n] and their units [n].
        kept: where its answers lie once it is done.
    """

    items: tuple[Item, ...]
    unit_of: tuple[str, ...]
    kept: Path


@dataclass(frozen=True)
class Batch:
    """All the work there is."""

    located: Located
    blocks: tuple[Block, ...]
    folder: Path


def plan(source: Path, model: str | None, task: str | None) -> Batch:
    """Divide the recordings behind `source` into blocks, for the model that `model` and `task` mean."""
    located = locate.locate(model, task, config.load().tasks)
    items = inputs.gather([source])
    models = panel.load(located)
    unit_of = inputs.units(items, models.model.task.unit)
    folders = [located.folder, *(descriptor.located.folder for descriptor in models.descriptors)]
    of_model = "".join(map(files.sha256_folder, folders))
    folder = paths.STATE / "score" / files.sha256(f"{source.absolute()} {of_model}".encode())[:16]
    blocks = [
        _block([items[i] for i in positions], [unit_of[i] for i in positions], of_model, folder)
        for positions in inputs.blocks(unit_of, AT_ONCE)
    ]
    return Batch(located, tuple(blocks), folder)


def _block(items: Sequence[Item], unit_of: Sequence[str], of_model: str, folder: Path) -> Block:
    contents = [files.sha256_file(item.path) if item.path.is_file() else "" for item in items]
    key = files.sha256(files.canonical_json([of_model, contents, list(unit_of), [str(i.path) for i in items]]).encode())
    return Block(tuple(items), tuple(unit_of), folder / f"{key}.parquet")


@contextmanager
def alone(batch: Batch) -> Iterator[None]:
    """Keep a second run of the same work waiting."""
    lock = paths.LOCKS / f"score-{batch.folder.name}.lock"
    with files.exclusive(lock, on_wait="heartml score: waiting for another run of the same work"):
        yield


def score(block: Block, located: Located) -> bool:
    """Score a block, unless that is done; whether it was to do."""
    if block.kept.exists():
        return False
    models = panel.load(located)
    answers, faults = predict.score_block(list(block.items), list(block.unit_of), models, config.load())
    files.write_parquet(block.kept, table(answers, faults, located, models.model.task.classes))
    return True


def finish(batch: Batch, to: Path) -> pd.DataFrame:
    """Put the blocks' answers into one table at `to`, and forget the blocks."""
    found = pd.concat([pd.read_parquet(block.kept) for block in batch.blocks], ignore_index=True)
    files.write_parquet(to, found)
    shutil.rmtree(batch.folder)
    return found


def table(
    answers: Sequence[Answer], faults: Sequence[Heard], located: Located, classes: Sequence[str]
) -> pd.DataFrame:
    """One row a unit: unit_id, decision, confidence, c_<class>, p_<class>, leaning, description (of a murmur),
    recordings, warnings, model, version, fault.

    A recording that cannot be scored is a row of its own: its path as unit_id, why in `fault`, no decision.
    """
    model = {"model": located.name or str(located.folder), "version": located.version}
    rows = [
        {"unit_id": a.unit_id, "decision": a.decision, "confidence": a.confidence,
         **{f"c_{name}": a.calibrated[name] for name in classes},
         **{f"p_{name}": a.probabilities[name] for name in classes},
         "leaning": a.leaning,
         "description": a.description.phrase_with_confidence if a.description else "",
         "recordings": len(a.recordings), "warnings": "; ".join(a.warnings), **model, "fault": None}
        for a in answers
    ] + [
        {"unit_id": str(heard.item.path), "description": "", "recordings": 0, "warnings": "", **model,
         "fault": f"{heard.fault.reason}: {heard.fault.detail}" if heard.fault else None}
        for heard in faults
    ]
    numbers = {f"{kind}_{name}": "float64" for kind in "cp" for name in classes} | {"confidence": "float64"}
    last = ("recordings", "warnings", "model", "version", "fault")
    texts = dict.fromkeys(("unit_id", "decision", "leaning", "description", *last[1:]), "string")
    columns = ["unit_id", "decision", *numbers, "leaning", "description", *last]
    return pd.DataFrame(rows, columns=columns).astype({**numbers, **texts, "recordings": "int64"})
