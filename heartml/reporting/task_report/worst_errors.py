"""The wrong decisions that gave the truth the least probability, each with a recording to look at and to listen to."""

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
        part: `Held out` or `Cross-fitted`.
        unit_id, label, decision: what it is, what was said.
        confidence: calibrated probability (class, value) of every class.
        recording_id, place: the recording that speaks loudest for the wrong decision, and where it was taken.
        image, sound: spectrogram and excerpt as data addresses.
        seconds: length of the excerpt.
        states, heard: (state, start, width) of heart states, annotated and as the model's network heard them, in
            percent of the excerpt.
        warnings: what is wrong with the recording, in words.
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
    states: tuple[tuple[str, float, float], ...]
    heard: tuple[tuple[str, float, float], ...]
    warnings: tuple[str, ...]


def worst(predictions: pd.DataFrame, most: int) -> pd.DataFrame:
    """Wrong decisions, held-out ones first, then those that gave the truth the least calibrated probability."""
    wrong = predictions[predictions["decision"] != predictions["label"]]
    truth = [row[f"c_{row['label']}"] for row in wrong.to_dict("records")]
    ranked = wrong.assign(truth=truth, seen=wrong["part"] != TEST)
    return ranked.sort_values(["seen", "truth", "unit_id"], kind="stable").head(most)


def loudest(recordings: pd.DataFrame, unit_id: str, decision: str) -> pd.Series:
    """The recording of a unit that gives its decision the highest probability; the last one where that is unknown."""
    own = recordings[recordings["unit_id"] == unit_id]
    return own.sort_values([f"p_{decision}", "recording_id"], kind="stable", na_position="first").iloc[-1]


def show(
    wrong: pd.DataFrame, recordings: pd.DataFrame, classes: Sequence[str], annotations: pd.DataFrame,
    heard: pd.DataFrame, warnings: Callable[[str], Sequence[str]], load: Load,
) -> list[WorstError]:
    """Prepare each row of `worst` for the page.

    Args:
        recordings: recording_id, unit_id, location, p_<class> (null where a recording was not asked alone).
        annotations, heard: heart states of the publisher, and of the model's network.
        load: recording_id -> waveform [time], rate in Hz.
    """
    found = []
    for row in wrong.to_dict("records"):
        recording = loudest(recordings, row["unit_id"], row["decision"])
        recording_id = str(recording["recording_id"])
        excerpt = listening.excerpt(*load(recording_id))
        seconds = len(excerpt) / listening.RATE_HZ
        place = recording["location"]
        found.append(WorstError(
            "Cross-fitted" if row["seen"] else "Held out", row["unit_id"], row["label"], row["decision"],
            _confidence(row, classes), recording_id,
            "" if pd.isna(place) else str(place),
            listening.data_address("image/png", listening.spectrogram_png(excerpt)),
            listening.data_address("audio/flac", listening.flac(excerpt)),
            seconds, states_within(annotations[annotations["recording_id"] == recording_id], seconds),
            states_within(heard[heard["recording_id"] == recording_id], seconds),
            tuple(warnings(recording_id)),
        ))
    return found


def _confidence(row: Mapping[Any, Any], classes: Sequence[str]) -> tuple[tuple[str, float], ...]:
    return tuple((name, float(row[f"c_{name}"])) for name in classes)


def states_within(annotations: pd.DataFrame, seconds: float) -> tuple[tuple[str, float, float], ...]:
    """Heart states of the first `seconds`: (state, start, width) in percent of them."""
    known = annotations[annotations["state"].isin(STATES) & (annotations["start_s"] < seconds)].sort_values("start_s")
    return tuple(
        (row["state"], 100 * row["start_s"] / seconds, 100 * (min(row["end_s"], seconds) - row["start_s"]) / seconds)
        for row in known.to_dict("records")
    )
