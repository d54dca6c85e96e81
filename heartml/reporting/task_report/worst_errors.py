"""The wrong decisions with the lowest probability for the true class, each with a recording to see and to hear."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heartml.core.schema import STATES, TEST
from heartml.reporting.task_report import listening
from heartml.reporting.task_report.listening import Waveform

Load = Callable[[str], tuple[Waveform, int]]


@dataclass(frozen=True)
class WorstError:
    """One wrong decision.

    Attributes:
        part: `Held out` or `Out of fold`.
        unit_id, label, decision: the unit, its true class and the class that was decided.
        confidence: (class, calibrated probability) of every class.
        recording_id, place: the recording with the highest probability for the wrong decision, and its location.
        image, sound: spectrogram and excerpt as data addresses.
        seconds: length of the excerpt.
        annotated, found: (state, start, width) of heart states in percent of the excerpt: the publisher's annotation,
            and what the model's network found.
        warnings: quality warnings of the recording, in words.
    """

    part: str
    unit_id: str
    label: str
    decision: str
    confidence: tuple[tuple[str, float], ...]
    recording_id: str
    place: str
    image: str
    sound: str
    seconds: float
    annotated: tuple[tuple[str, float, float], ...]
    found: tuple[tuple[str, float, float], ...]
    warnings: tuple[str, ...]


def worst(predictions: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` wrong decisions: held-out ones first, then by the calibrated probability of the true class."""
    wrong = predictions[predictions["decision"] != predictions["label"]]
    truth = [row[f"c_{row['label']}"] for row in wrong.to_dict("records")]
    ranked = wrong.assign(truth=truth, out_of_fold=wrong["part"] != TEST)
    return ranked.sort_values(["out_of_fold", "truth", "unit_id"], kind="stable").head(most)


def most_convincing(recordings: pd.DataFrame, unit_id: str, decision: str) -> pd.Series:
    """The recording of a unit with the highest probability for its decision; the last one where none is known."""
    own = recordings[recordings["unit_id"] == unit_id]
    return own.sort_values([f"p_{decision}", "recording_id"], kind="stable", na_position="first").iloc[-1]


def prepare(
    wrong: pd.DataFrame, recordings: pd.DataFrame, classes: Sequence[str], annotations: pd.DataFrame,
    found_states: pd.DataFrame, warnings: Callable[[str], Sequence[str]], load: Load,
    highest_hz: int = listening.HIGHEST_HZ,
) -> list[WorstError]:
    """Prepare each row of `worst` for the page.

    Args:
        recordings: recording_id, unit_id, location, p_<class> (null where there is no prediction for it alone).
        annotations, found_states: heart states of the publisher, and of the model's network.
        warnings: recording_id -> its quality warnings.
        load: recording_id -> waveform [time], rate in Hz.
        highest_hz: upper end of the spectrograms.
    """
    found, rate_hz = [], listening.rate_for(highest_hz)
    for row in wrong.to_dict("records"):
        recording = most_convincing(recordings, row["unit_id"], row["decision"])
        recording_id = str(recording["recording_id"])
        excerpt = listening.excerpt(*load(recording_id), rate_hz)
        seconds = len(excerpt) / rate_hz
        place = recording["location"]
        found.append(WorstError(
            "Out of fold" if row["out_of_fold"] else "Held out", row["unit_id"], row["label"], row["decision"],
            _confidence(row, classes), recording_id,
            "" if pd.isna(place) else str(place),
            listening.data_address("image/png", listening.spectrogram_png(excerpt, highest_hz)),
            listening.data_address("audio/flac", listening.flac(excerpt, rate_hz)),
            seconds, states_within(annotations[annotations["recording_id"] == recording_id], seconds),
            states_within(found_states[found_states["recording_id"] == recording_id], seconds),
            tuple(warnings(recording_id)),
        ))
    return found


def _confidence(row: Mapping[Any, Any], classes: Sequence[str]) -> tuple[tuple[str, float], ...]:
    return tuple((name, float(row[f"c_{name}"])) for name in classes)


def states_within(annotations: pd.DataFrame, seconds: float) -> tuple[tuple[str, float, float], ...]:
    """Heart states in the first `seconds`: (state, start, width), start and width in percent of `seconds`."""
    known = annotations[annotations["state"].isin(STATES) & (annotations["start_s"] < seconds)].sort_values("start_s")
    return tuple(
        (row["state"], 100 * row["start_s"] / seconds, 100 * (min(row["end_s"], seconds) - row["start_s"]) / seconds)
        for row in known.to_dict("records")
    )
