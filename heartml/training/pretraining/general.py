"""General sound for pre-training: a folder of sound files in, pictures of as many hours as are asked for out.

Files are drawn in an order that depends on their names and the seed alone. Recordings of this project that must not be
heard are left out, whatever their file is called.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from heartml.audio import sound_files
from heartml.audio.containers import SUFFIXES
from heartml.core.stage import StageError
from heartml.core.system.progress import track
from heartml.training.pretraining.corpus import Frames, Picture

DATASET = "general"


@dataclass(frozen=True)
class GeneralSound:
    """What was read.

    Attributes:
        table: recording_id, group_id, dataset, seconds, licence; a file is a group of its own.
        frames: of each row `[frames, bands]`.
        forbidden: files that were left out, because they are recordings that must not be heard.
    """

    table: pd.DataFrame
    frames: list[Frames]
    forbidden: int


def read(folder: Path, hours: float, seed: int, picture: Picture, forbidden: Collection[str],
         say: Callable[[str], None]) -> GeneralSound:
    """Read files of a folder until `hours` are there; `say` gets a line for each that cannot be read.

    Args:
        forbidden: ids of recordings that must not be heard.

    Raises:
        StageError: the folder has no sound file that can be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    order = np.random.default_rng([seed, len(paths)]).permutation(len(paths))
    rows: dict[str, float] = {}
    frames, left_out, heard_s = [], 0, 0.0
    for number in track(order, "pretrain: general sound", len(order)):
        if heard_s >= hours * 3600:
            break
        try:
            samples = sound_files.read(paths[number])
        except sound_files.AudioError as error:
            say(str(error))
            continue
        if samples.recording_id in forbidden:
            left_out += 1
        elif samples.recording_id not in rows:
            rows[samples.recording_id] = samples.seconds
            heard_s += samples.seconds
            frames.append(picture(samples.floats, samples.sample_rate_hz))
    if not rows:
        raise StageError(f"{folder}: no sound file that can be read and may be heard ({' '.join(SUFFIXES)})")
    table = pd.DataFrame({"recording_id": list(rows), "group_id": [f"{DATASET}-{one}" for one in rows],
                          "dataset": DATASET, "seconds": list(rows.values()), "licence": None})
    return GeneralSound(table, frames, left_out)
