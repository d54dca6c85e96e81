"""An exported file beside the model itself, on the same recordings: how far apart are their answers?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from heartml.audio import sound_files
from heartml.audio.sound_files import Samples
from heartml.core import folds, paths
from heartml.core.schema import TEST
from heartml.core.system.progress import track
from heartml.inference.exported import ExportedModel
from heartml.inference.model_lookup import LocatedModel
from heartml.models.fitted_model import Model
from heartml.models.shared_inputs import RatedWaveform

CLOSE = 1e-4           # of a probability
MOST_CLOSE = 0.95      # of the recordings
FARTHEST = 0.01        # of a probability, on any recording
SEED = 20261130
SECONDS = 10.0


@dataclass(frozen=True)
class Comparison:
    """Answers of a file beside those of the model.

    Attributes:
        recordings: how many.
        of: what they are.
        largest_difference: of any probability, calibrated or not.
        close: recordings on which no probability differs by more than `CLOSE`.
        decided_alike: recordings with the same decision, and referred for the same reasons.
    """

    recordings: int
    of: str
    largest_difference: float
    close: int
    decided_alike: int

    @property
    def words(self) -> str:
        """One line for people."""
        return (f"{self.decided_alike} of {self.recordings} {self.of} are decided alike; probabilities differ by "
                f"{self.largest_difference:.1e} at most, by {CLOSE:g} or less on {self.close}")

    @property
    def same(self) -> bool:
        """Whether the file is the model: every decision and reason, and nearly every probability to four digits.

        Frames are stored in half precision. Where one lies in the middle of two steps, the last digit of a spectrogram
        decides to which it goes, and a tree may then take another leaf: some probabilities move by a few 0.0001.
        """
        return (self.decided_alike == self.recordings and self.largest_difference <= FARTHEST
                and self.close >= MOST_CLOSE * self.recordings)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Sounds:
    """Recordings to compare on, and what they are, in words."""

    waveforms: Sequence[RatedWaveform]
    of: str


def sounds(located: LocatedModel, count: int) -> Sounds:
    """Recordings that the model was tested on, where they are here; else simulated ones."""
    held_out = _held_out(located, count)
    if held_out:
        return Sounds(held_out, "held-out recordings")
    return Sounds(simulated(count), "simulated recordings")


def _held_out(located: LocatedModel, count: int) -> list[RatedWaveform]:

    if located.folds is None or not located.folds.is_file():
        return []
    table = folds.read(located.folds)
    ids = sorted(table.loc[table["part"] == TEST, "recording_id"])
    found = [path for path in map(paths.audio, ids) if path.is_file()]
    if not found:
        return []
    rows = np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int))
    read = [sound_files.read(found[row]) for row in rows]
    return [(one.floats, one.sample_rate_hz) for one in read]


def simulated(count: int) -> list[RatedWaveform]:
    """Hearts of the simulator: float32 samples at 4 kHz."""
    from heartml.data.simulation import children, visits
    from heartml.data.simulation.physiology import SAMPLE_RATE_HZ

    found: list[RatedWaveform] = []
    number = 0
    while len(found) < count:
        for visit in visits.draw_visits(SEED, children.draw_child(SEED, number)):
            recorded = [Samples(one.pcm, SAMPLE_RATE_HZ) for one in visits.record(visit, SECONDS)]
            found += [(one.floats, one.sample_rate_hz) for one in recorded]
        number += 1
    return found[:count]


def compare(model: Model, folder: Path, facts: dict[str, Any], tried: Sounds, name: str) -> Comparison:
    """Answers of the file `name` in `folder` beside those of `model`."""
    file = ExportedModel(folder, facts, name)
    largest, close, alike = 0.0, 0, 0
    for samples, rate_hz in track(tried.waveforms, "compare", len(tried.waveforms)):
        own, theirs = model.predict_audio([(samples, rate_hz)], ["one"]), file.recording(samples, rate_hz)
        pairs = ((own.probabilities[0], theirs.probabilities), (own.calibrated[0], theirs.calibrated),
                 (own.recording_probabilities[0], theirs.recording_probabilities))
        difference = max(float(np.abs(values - list(others.values())).max()) for values, others in pairs)
        largest, close = max(largest, difference), close + (difference <= CLOSE)
        reasons = {one.check for one in own.reasons[0]}
        unsure = {"unsure"} if own.confidence[0] < own.refer_below else set()
        alike += own.top_classes[0] == theirs.top_class and reasons | unsure == set(theirs.checks)
    return Comparison(len(tried.waveforms), tried.of, largest, close, alike)
