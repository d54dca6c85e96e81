"""What a pre-trained encoder was trained on, and the refusal to score a task on that.

The file of weights of an encoder that this project trained names what it heard: `heard.recordings.<data set>` and
`heard.groups.<data set>`, uint8 `[n, 16]`, the first half of a recording's id and of the SHA-256 of a group's id. They
are tensors, so that every copy of the weights has them. Files of other publishers name nothing, and nothing is refused
for them.

A group of which one recording was heard counts as heard. All parts of a task count: the held-out part is scored once,
and the folds are scored out of fold, when a search chooses among encoders and when the gate compares models.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.core.system.hashing import sha256_file

PREFIX = "heard."
_DIGITS = 32      # hex digits of a hash that are kept: 16 bytes

Hashes = NDArray[np.uint8]


class HeardError(HeartMLError):
    """A task would be scored on what its encoder was trained on; the message names the encoder and the way out."""


@dataclass(frozen=True)
class Heard:
    """What an encoder was trained on, as hashes (32 hex digits).

    Attributes:
        recordings: beginnings of `recording_id`.
        groups: of `group_id`, see `group_hash`.
    """

    recordings: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    def heard_groups(self, table: pd.DataFrame) -> set[str]:
        """The groups of a table (recording_id, group_id) of which anything was heard."""
        known = table["recording_id"].str[:_DIGITS].isin(self.recordings)
        if self.groups:
            known |= table["group_id"].map({g: group_hash(str(g)) in self.groups for g in table["group_id"].unique()})
        return set(table.loc[known, "group_id"])


def group_hash(group_id: str) -> str:
    """32 hex digits that stand for a group, so that the file of weights names no patient.

    >>> group_hash("circor-9979")
    '27f601281225d6aba283a6ee81afe919'
    """
    return hashlib.sha256(group_id.encode()).hexdigest()[:_DIGITS]


def arrays(table: pd.DataFrame) -> dict[str, Hashes]:
    """The arrays for the file of weights.

    Args:
        table: recording_id, group_id, dataset of what was heard.
    """
    found: dict[str, Hashes] = {}
    for dataset, rows in table.groupby("dataset"):
        found[f"{PREFIX}recordings.{dataset}"] = _packed(str(i)[:_DIGITS] for i in rows["recording_id"])
        found[f"{PREFIX}groups.{dataset}"] = _packed(group_hash(str(g)) for g in rows["group_id"].unique())
    return found


def _packed(hashes: Iterable[str]) -> Hashes:
    return np.stack([np.frombuffer(bytes.fromhex(one), np.uint8) for one in sorted(hashes)])


def of(section: Mapping[str, Any], folder: Path | None = None) -> Heard:
    """What the weights of an encoder's section were trained on; nothing where they do not say.

    Args:
        section: its `weights` and `sha256`; of an encoder without weights any other mapping.
        folder: of a model that may hold the weights.
    """
    found: dict[str, set[str]] = {"recordings": set(), "groups": set()}
    for key, hashes in arrays_of(section, folder).items():
        found[key.split(".")[1]] |= {bytes(row).hex() for row in hashes}
    return Heard(frozenset(found["recordings"]), frozenset(found["groups"]))


def arrays_of(section: Mapping[str, Any], folder: Path | None = None) -> dict[str, Hashes]:
    """What `of` reads, as `arrays` gave it."""
    digest = str(section.get("sha256", ""))
    places = [Path(str(section.get("weights", ""))), paths.cache() / "weights" / f"{digest}.safetensors"]
    if folder is not None:
        places.append(folder / "weights" / f"{digest}.safetensors")
    for number, place in enumerate(places):
        if place.suffix == ".safetensors" and place.is_file() and (number or sha256_file(place) == digest):
            return _read(place)
    return {}


def _read(file: Path) -> dict[str, Hashes]:
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()  # noqa: SIM118 - it is no mapping
                if key.startswith(PREFIX)}


def united(first: Mapping[str, Hashes], second: Mapping[str, Hashes]) -> dict[str, Hashes]:
    """What either was trained on, as `arrays` gives it.

    >>> one = np.zeros((1, 16), np.uint8)
    >>> {key: len(rows) for key, rows in united({"heard.groups.a": one}, {"heard.groups.a": one + 1}).items()}
    {'heard.groups.a': 2}
    """
    return {key: np.unique(np.concatenate([own[key] for own in (first, second) if key in own]), axis=0)
            for key in sorted({*first, *second})}


def refuse(task: str, encoders: Mapping[str, Mapping[str, Any]], table: pd.DataFrame, folder: Path | None = None
           ) -> None:
    """Refuse a task with an encoder that heard any of its groups.

    Args:
        encoders: name -> spec as JSON, see `EncoderSpec.to_json`.
        table: recording_id and group_id of everything that is scored, for instance `schema.FOLDS`.
        folder: of a model that may hold the weights.

    Raises:
        HeardError: one did.
    """
    for name, spec in encoders.items():
        section = spec["sections"].get(spec.get("kind", spec["name"]), {})
        groups = of(section, folder).heard_groups(table)
        if groups:
            raise HeardError(
                f"{task}: the encoder {name} was trained on {len(groups)} of its {table['group_id'].nunique()} groups, "
                f"so no score of them would be fair. Take {name} out of `encoders` in params.yaml for this task, or "
                "train one without them (`pretrain.leave_out: scored`, docs/encoders.md)")


def without_heard(table: pd.DataFrame, heard: Sequence[Heard]) -> pd.DataFrame:
    """The rows of a table (recording_id, group_id) whose group none of the encoders heard."""
    groups: set[str] = set().union(*(one.heard_groups(table) for one in heard))
    return table[~table["group_id"].isin(groups)].reset_index(drop=True)
