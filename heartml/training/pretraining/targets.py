"""What the heart encoder learns: labels of recordings, and the class of every frame.

In: the recordings table and heart states of frames. Out: class numbers. Every label that a task about hearts knows and
the data have is a target of the recording (murmur, timing, grading, ...). The frame's classes are the heart states,
with systole divided by whether a murmur is heard in it: all of systole for a holosystolic murmur, its part for an
early, middle or late one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core import schema
from heartml.core.task_definition import HEART
from heartml.core.tasks import LABELS, TASKS
from heartml.data.simulation.physiology import TIMING

UNKNOWN = -1
S1, DIASTOLE, S2, UNANNOTATED, CLEAN, MURMUR = range(6)     # the frame's classes, as in `models.encoders.heart`
SYSTOLE = schema.STATES.index("systole")
_OF_HEARTS = {label for task in TASKS.values() if task.organ == HEART for label in (task.label, task.recording_label)}
_CODES = np.array([S1, CLEAN, S2, DIASTOLE, UNANNOTATED, UNKNOWN])      # of `schema.STATES`, then unannotated, unknown
_TIMING = "systolic_murmur_timing"
_HERE, _MURMUR = "murmur_here", "murmur"

Ints = NDArray[np.int64]


def label_numbers(labels: pd.DataFrame) -> dict[str, Ints]:
    """Class of every recording for each target: name -> `[r]`, `UNKNOWN` where there is no label.

    A recording's own murmur label replaces the patient's, and the features of a murmur belong to recordings in which it
    is heard. A target of which fewer than two classes occur is left out.

    Args:
        labels: one row a recording, columns as `schema.label_column` names them.

    >>> table = pd.DataFrame({"label_murmur": ["Present", "Absent"], "label_murmur_here": ["Absent", None]})
    >>> label_numbers(table)
    {}
    """
    own = {name: labels[column] for name in LABELS
           if name in _OF_HEARTS and (column := schema.label_column(name)) in labels}
    if _HERE in own:
        own[_MURMUR] = own[_HERE].where(own[_HERE].notna(), own.get(_MURMUR, own[_HERE]))
        heard = own[_MURMUR] == "Present"
        own = {name: values.where(heard) if "_murmur_" in name else values
               for name, values in own.items() if name != _HERE}
    numbers = {name: _numbers(values, LABELS[name]) for name, values in own.items()}
    return {name: found for name, found in numbers.items() if len(np.unique(found[found != UNKNOWN])) > 1}


def _numbers(values: "pd.Series[str]", classes: Sequence[str]) -> Ints:
    code = {name: number for number, name in enumerate(classes)}
    return np.array([code.get(value, UNKNOWN) if isinstance(value, str) else UNKNOWN for value in values], np.int64)


def frame_classes(states: NDArray[np.int8], labels: Mapping[str, object]) -> NDArray[np.int8]:
    """The class of every frame of one recording: states `[frames]` -> `[frames]`.

    Args:
        states: index into `schema.STATES`, 4 between annotations, -1 where nothing is known.
        labels: label -> class of this recording; systole is `UNKNOWN` where murmur is neither Present nor Absent.

    >>> states = np.array([0, 1, 1, 1, 1, 2, 3], np.int8)
    >>> frame_classes(states, {"murmur": "Present", "systolic_murmur_timing": "Early-systolic"}).tolist()
    [0, 5, 5, 4, 4, 2, 1]
    >>> frame_classes(states, {"murmur": "Unknown"}).tolist()
    [0, -1, -1, -1, -1, 2, 1]
    """
    found = _CODES[states]
    here = labels.get(_HERE)
    murmur = here if isinstance(here, str) else labels.get(_MURMUR)
    in_systole = states == SYSTOLE
    if murmur not in ("Present", "Absent"):
        found = np.where(in_systole, UNKNOWN, found)
    elif murmur == "Present":
        first, last = TIMING.get(str(labels.get(_TIMING)), (0.0, 1.0))
        place = place_in_run(in_systole)
        found = np.where(in_systole & (place >= first) & (place < last), MURMUR, found)
    return found.astype(np.int8)


def place_in_run(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Place of each element within its run of true elements, between 0 and 1: `[n] -> [n]`; 0 outside of runs.

    >>> place_in_run(np.array([False, True, True, True, True, False, True])).tolist()
    [0.0, 0.125, 0.375, 0.625, 0.875, 0.0, 0.5]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    place = np.zeros(len(mask))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        place[start:end] = (np.arange(end - start) + 0.5) / (end - start)
    return place
