"""What one task is, and what a collection's own task may be: names, classes, unit and metrics. Pure.

A published task stands in `heartml.core.tasks`. A task of a user's own is declared in the mapping file of a collection.
`heartml ingest` stores the declarations as `data/tasks/<data set>.json`: name -> `Declared.to_json`.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from heartml.core.system import cells
from heartml.core.system.errors import HeartMLError
from heartml.core.system.text import short, would_be_calculated

Unit = Literal["recording", "patient"]
Organ = Literal["heart", "lung"]
HEART: Organ = "heart"

OFFICIAL = ("uar", "macro_auc", "accuracy", "macro_f1")
# A declared task may be optimised for these: metrics of decisions that suit any classes.
DECIDING = ("uar", "accuracy", "macro_f1", "accuracy_and_uar")
REPORTED = (*DECIDING, "macro_auc")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_NAME_WORDS = "a small letter, then small letters, digits and _, at most 40 together"
_LONGEST_CLASS = 60
_MOST_CLASSES = 50
_REFER = "refer"        # what stands in the place of a decision that is left to a human


class TaskError(HeartMLError):
    """There is no such task, or it cannot be one; the message says how to list the tasks, or what to change."""


@dataclass(frozen=True)
class CoarseClasses:
    """Some of a task's classes joined, to compare with studies that do not separate them. The decisions stay the same.

    Attributes:
        name: key in `metrics.json`.
        title: for people.
        classes: coarse class, in order -> the task's classes that it joins; each class of the task is in exactly one.
    """

    name: str
    title: str
    classes: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Task:
    """One thing to predict.

    Attributes:
        name: key in `heartml.core.tasks.TASKS`, or the name that a collection gives it.
        label: name of the unit's label (column `label_<name>` of the recordings table).
        classes: in order; probabilities have shape [units, len(classes)].
        unit: `recording`, or `patient` (all recordings of one patient are one case).
        metric: key of `heartml.metrics.METRICS`; search, decision rule and gate optimise it.
        official: further metrics that are reported, in the order of the table.
        recording_label: label of the single recording, where the publisher gives one (a murmur is audible at some
            locations only); `None`: the unit's label.
        positive: the class whose recall and predictive value clinicians ask for, or `None`.
        rare: what happens to a class with too few groups in all the data (see `estimable_classes`). `kept`: models are
            trained on it and it enters the means, but it has no score of its own. `left out`: its units are in no fold,
            no fit and no score, and the report names them. The reason: a class of one to nine people is in the training
            data of some folds only, and in a mean over classes it would count as much as a class of fifty. Such a mean
            would depend on chance. The task then predicts the remaining classes only.
        coarse_classes: joined classes that are scored as well.
        within: name of the task that has every case of this one among its own. The split takes that task's draw, so
            that a network that learnt its labels has heard nobody whom it describes; `None`: a draw of its own.
        organ: whose sounds are judged; `lung` also stands for coughs and breath. `organs` in `params.yaml` says what
            differs between organs: the band, the sample rate, whether there are heart states.
    """

    name: str
    label: str
    classes: tuple[str, ...]
    unit: Unit
    metric: str
    official: tuple[str, ...]
    recording_label: str | None = None
    positive: str | None = None
    rare: Literal["kept", "left out"] = "kept"
    coarse_classes: tuple[CoarseClasses, ...] = ()
    organ: Organ = HEART
    within: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The definition of a declared task; the label has the task's name. An organ that is not named is the heart."""
        found = {"name": self.name, "classes": list(self.classes), "unit": self.unit, "metric": self.metric,
                 "official": list(self.official), "positive": self.positive}
        return found if self.organ == HEART else {**found, "organ": self.organ}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Self:
        """The declared task that `to_json` wrote.

        >>> task = Task("pedal", "pedal", ("click", "none"), "recording", "uar", OFFICIAL)
        >>> Task.from_json(task.to_json()) == task
        True
        """
        return cls(str(saved["name"]), str(saved["name"]), tuple(saved["classes"]), saved["unit"], str(saved["metric"]),
                   tuple(saved["official"]), None, saved["positive"], organ=saved.get("organ", HEART))


@dataclass(frozen=True)
class Declared:
    """A task that one collection declares.

    Attributes:
        task: with all of its classes.
        absent: the classes that no recording of the collection has.
    """

    task: Task
    absent: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For `data/tasks/<data set>.json`."""
        return {**self.task.to_json(), "absent": list(self.absent)}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Self:
        """What `to_json` wrote."""
        return cls(Task.from_json(saved), tuple(saved["absent"]))


def name_fault(name: str, taken: Iterable[str]) -> str:
    """Why a collection's own task cannot have this name; empty where it can.

    Args:
        taken: names of published tasks, of groups of tasks, and of labels.

    >>> name_fault("pedal", ["murmur"])
    ''
    >>> name_fault("Pedal type", [])[:29]
    "'Pedal type' is no task's nam"
    """
    if not _NAME.fullmatch(name):
        return (f"{short(name)} is no task's name: {_NAME_WORDS}. It becomes the name of files, stages, runs and the "
                "registered model")
    return f"{name} is the name of a published task or label: give yours another one" if name in set(taken) else ""


def classes_fault(classes: Sequence[str]) -> str:
    """Why these cannot be a task's classes; empty where they can. Letters of any script, spaces and signs are allowed.

    >>> classes_fault(["Clic mésosystolique", "none"])
    ''
    >>> classes_fault(["click", "Click"])
    "'click' and 'Click' are one class in two spellings"
    """
    if not 2 <= len(classes) <= _MOST_CLASSES:
        return f"{len(classes)} named, and a task has 2 to {_MOST_CLASSES} classes"
    for name in classes:
        if not name.strip() or len(name) > _LONGEST_CLASS or not name.isprintable():
            return f"{short(name)} is no class's name: 1 to {_LONGEST_CLASS} printable characters in one line"
        if would_be_calculated(name):
            return f"{short(name)} begins like a formula, which a spreadsheet would calculate: name the class otherwise"
        if cells.spelling_key(name) == _REFER:
            return f"{short(name)} stands for a decision that is left to a human: name the class otherwise"
    for name, others in cells.other_spellings(classes).items():
        return f"{short(name)} and {short(others[0])} are one class in two spellings"
    twice = next((name for name in classes if list(classes).count(name) > 1), None)
    return f"{short(twice)} is there twice" if twice is not None else ""


def metric_fault(metric: str, official: Sequence[str]) -> tuple[str, str]:
    """The key and what is wrong with it; both are empty where a declared task may have these metrics.

    >>> metric_fault("uar", ["accuracy"]), metric_fault("outcome_cost", [])[0]
    (('', ''), 'metric')
    """
    if metric not in DECIDING:
        return "metric", f"{short(metric)} is none of {', '.join(DECIDING)}, which suit any classes"
    wrong = next((name for name in official if name not in REPORTED), None)
    if wrong is not None:
        return "official", f"{short(wrong)} is none of {', '.join(REPORTED)}"
    if not official:
        return "official", f"there is none: name one of {', '.join(REPORTED)}, or leave the key out"
    twice = next((name for name in official if list(official).count(name) > 1), None)
    return ("official", f"{short(twice)} is there twice") if twice is not None else ("", "")


def class_name(text: str) -> str:
    """A class's name as it is stored: without spaces at its ends, in one Unicode form.

    >>> class_name(" Cafe\\u0301 ") == "Caf\\u00e9"
    True
    """
    return unicodedata.normalize("NFC", cells.trimmed(text))


def differences(first: Task, second: Task) -> str:
    """What two declarations of one name do not share, in words; the order of classes counts for nothing. Else empty.

    >>> task = Task("pedal", "pedal", ("click", "none"), "recording", "uar", OFFICIAL)
    >>> differences(task, Task("pedal", "pedal", ("none", "click"), "recording", "uar", OFFICIAL))
    ''
    >>> differences(task, Task("pedal", "pedal", ("click", "thud"), "patient", "uar", OFFICIAL))
    'classes click, none and click, thud; unit recording and patient'
    """
    parts = []
    if set(first.classes) != set(second.classes):
        parts.append(f"classes {', '.join(first.classes)} and {', '.join(second.classes)}")
    for key in ("unit", "metric", "positive", "organ"):
        one, other = getattr(first, key), getattr(second, key)
        if one != other:
            parts.append(f"{key} {one or 'not given'} and {other or 'not given'}")
    if set(first.official) != set(second.official):
        parts.append(f"official {', '.join(first.official)} and {', '.join(second.official)}")
    return "; ".join(parts)
