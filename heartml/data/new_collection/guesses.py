"""What a table's columns may mean, each guess with its reason. Pure.

In: a `Survey`, and what a person has chosen. Out: a `Plan`, from which the mapping file is written. A guess follows the
name of a column first, and what is in its cells second. Where nothing is plain, nothing is guessed.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from heartml.core.schema import LOCATIONS
from heartml.core.system import cells
from heartml.core.system.cells import CellError, header_key
from heartml.core.system.text import short
from heartml.core.task_definition import classes_fault
from heartml.core.tasks import GROUPS, LABELS, TASKS
from heartml.data.datasets import DATASETS
from heartml.data.new_collection.survey import CLASS, CollectionFolderError, Survey, stems
from heartml.data.new_collection.words import classes_of, positive, words_in_words

NOTHING = "-"          # what a person answers for "no column"
MOST_CLASSES = 30
FEW = 10               # groups of a class, as `validate.min_class_groups` has it by default
ROLES = ("patient", "group", "location", "age", "sex", "source")
_NAMES: Mapping[str, tuple[str, ...]] = {     # as `header_key` folds them; a column is the first that has one
    "label": ("label", "labels", "class", "diagnosis", "finding", "target", "category", "annotation", "groundtruth",
              "diagnose", "befund", "klasse", "kategorie", "diagnostic", "classe", "murmur", "outcome", "abnormality"),
    "patient": ("patient", "patientid", "patientnr", "patientnumber", "patno", "subject", "subjectid", "person",
                "personid", "proband", "probandid", "participant", "participantid", "child", "childid", "animal",
                "patienten", "patientenid", "patientennr", "patientennummer", "patientin"),
    "group": ("group", "groupid", "family", "familyid", "familie", "household"),
    "location": ("location", "auscultationlocation", "auscultationsite", "site", "position", "area", "ort", "stelle",
                 "auskultationsort", "foyer"),
    "age": ("age", "agegroup", "ageyears", "years", "alter", "altersgruppe", "jahre"),
    "sex": ("sex", "gender", "geschlecht", "sexe"),
    "source": ("source", "device", "sensor", "stethoscope", "hospital", "clinic", "campaign", "geraet", "gerät",
               "recorder", "quelle", "centre", "center"),
}
_LOCATION_WORDS = {"AV": ("aortic", "aorta", "aortal", "a"), "PV": ("pulmonary", "pulmonic", "pulmonal", "p"),
                   "TV": ("tricuspid", "trikuspidal", "t"), "MV": ("mitral", "apex", "apical", "apikal", "m")}
_SEX_WORDS = {"w": "Female", "weiblich": "Female", "woman": "Female", "girl": "Female", "männlich": "Male",
              "maennlich": "Male", "man": "Male", "boy": "Male", "d": "Diverse", "divers": "Diverse"}
_SEPARATOR = re.compile(r"[_\-. ]+")


@dataclass(frozen=True)
class Guess:
    """What a role's column is, or `None`, and why; `others` are columns that it could have been."""

    column: str | None
    reason: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All that a mapping file says, with reasons.

    Attributes:
        survey: what lies in the folder.
        name: the data set's name.
        task: the task's name.
        label: the column with the classes.
        classes: word of the column -> class, in the order of the task.
        counts: class -> number of rows.
        positive: a class, or `None`.
        columns: role of `ROLES` -> column.
        values: role -> word -> what it means.
        patients: file -> patient, where patients are taken from the names of files.
        notes: what a person should know before ingest.
    """

    survey: Survey
    name: str
    task: str
    label: Guess
    classes: Mapping[str, str]
    counts: Mapping[str, int]
    positive: str | None
    columns: Mapping[str, Guess]
    values: Mapping[str, Mapping[str, str]]
    patients: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def plan(survey: Survey, chosen: Mapping[str, str | None], *, from_names: bool = True) -> Plan:
    """Guess everything that `chosen` does not say.

    Args:
        chosen: `name`, `label` or one of `ROLES` -> what a person says; `None` or `NOTHING`: no column. `none` says
            whether the word `none` is a class: `NOTHING` is no, another answer yes.
        from_names: take patients from the names of files where no column has them and a pattern is plain.

    Raises:
        CollectionFolderError: no column can be the label, a chosen one is not there, or its words can be no classes.
    """
    label = _label(survey, chosen)
    words, answered = survey.cells_with_nothing(label.column or ""), chosen.get("none")
    none = None if answered is None else answered != NOTHING
    classes, counts = classes_of(words, none=none)
    fault = classes_fault(list(counts)) or _no_label(survey, label.column or "", counts)
    if fault:
        raise CollectionFolderError(f"{survey.folder}: column {label.column} holds no classes: {fault}. Name another "
                                    "column with --label")
    columns = {role: _role(role, survey, chosen, taken={survey.path, label.column or ""}) for role in ROLES}
    found = patients_from_names(survey, classes) if columns["patient"].column is None and from_names and \
        chosen.get("patient") != NOTHING else {}
    values = {"location": _locations(survey, columns["location"]), "sex": _sexes(survey, columns["sex"])}
    columns["age"] = _usable_age(survey, columns["age"])
    return Plan(survey, chosen.get("name") or dataset_name(survey.folder.resolve().name), task_name(label.column or ""),
                label, classes, counts, positive(list(counts)), columns, values, found,
                tuple(_notes(survey, label, classes, counts, columns, found)))


def dataset_name(folder: str) -> str:
    """A data set's name from a folder's.

    >>> dataset_name("Mein Herz-Ordner 2"), dataset_name("pascal"), dataset_name("2024")
    ('mein_herz_ordner_2', 'own_pascal', 'own_2024')
    """
    name = _identifier(folder)
    return f"own_{name}" if name in DATASETS or not name[:1].isalpha() else name


def task_name(column: str) -> str:
    """A task's name from that of the column with its labels.

    >>> task_name("Befund (klinisch)"), task_name("murmur"), task_name("class")
    ('befund_klinisch', 'own_murmur', 'class')
    """
    name = _identifier(column)[:35].strip("_")
    return f"own_{name}" if name in {*TASKS, *GROUPS, *LABELS} or not name[:1].isalpha() else name


def _identifier(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.casefold().replace("ß", "ss")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_") or "heart"


def _label(survey: Survey, chosen: Mapping[str, str | None]) -> Guess:
    if survey.table is None:
        return Guess(CLASS, "the folders are named after the classes")
    asked = chosen.get("label")
    if asked:
        return Guess(_column(survey, asked), "you named it")
    able = [column for column in survey.columns if column != survey.path and _may_be_label(survey, column)]
    named = sorted((column for column in able if header_key(column) in _NAMES["label"]),
                   key=lambda column: _NAMES["label"].index(header_key(column)))
    known = {name for role in ROLES for name in _NAMES[role]}
    free = [column for column in able if header_key(column) not in known and column not in named]
    if named:
        return Guess(named[0], "its name", (*named[1:], *free))
    if not free:
        raise CollectionFolderError(
            f"{survey.folder / survey.table}: no column can be the label: one with 2 to {MOST_CLASSES} words, each in "
            f"several rows. There are {', '.join(survey.columns)[:300]}. Name it with --label")
    return Guess(free[0], "its words repeat, and no other column's do" if len(free) == 1 else
                 "the first of several columns whose words repeat", tuple(free[1:]))


def _no_label(survey: Survey, column: str, counts: Mapping[str, int]) -> str:
    """Why a column that a person names cannot be the label, whatever its words; else empty."""
    if column == survey.path and survey.table is not None:
        return "it names the sound files"
    alone = len(counts) > 2 and max(counts.values()) == 1
    return "each row has another word, so that no class has two recordings" if alone else ""


def _may_be_label(survey: Survey, column: str) -> bool:
    """Whether a column has a few words, each in several rows on average, that are no decimal numbers."""
    words = Counter(cells.spelling_key(cell) for cell in survey.cells_with_nothing(column) if cell)
    decimal = all(re.fullmatch(r"-?\d+[.,]\d+", word) for word in words)
    return 2 <= len(words) <= MOST_CLASSES and sum(words.values()) >= 2 * len(words) and not decimal


def _column(survey: Survey, name: str) -> str:
    """The column that a person names, whatever its case and spacing.

    Raises:
        CollectionFolderError: it is not there.
    """
    found = next((one for one in survey.columns if one == name or header_key(one) == header_key(name)), None)
    if found is None:
        raise CollectionFolderError(f"{survey.folder}: {short(name)} is no column: there are "
                                    f"{', '.join(survey.columns)[:300]}")
    return found


def _role(role: str, survey: Survey, chosen: Mapping[str, str | None], taken: set[str]) -> Guess:
    asked = chosen.get(role)
    if asked == NOTHING:
        return Guess(None, "you said that there is none")
    if asked:
        return Guess(_column(survey, asked), "you named it")
    able = [column for column in survey.columns if column not in taken and header_key(column) in _NAMES[role]
            and survey.cells(column)]
    able.sort(key=lambda column: _NAMES[role].index(header_key(column)))
    if not able:
        return Guess(None, "no column has such a name")
    distinct = len(set(survey.cells(able[0])))
    return Guess(able[0], f"its name; {distinct} different values in {len(survey.rows)} rows", tuple(able[1:]))


def patients_from_names(survey: Survey, classes: Iterable[str]) -> dict[str, str]:
    """File -> the part of its name before the first separator, where that plainly is a person; else nothing.

    It is plain where every name has a separator, most parts are those of several files, and they are neither the
    classes nor hardly more than them.
    """
    files = [row[survey.path] for row in survey.rows]
    firsts = [_SEPARATOR.split(stem, maxsplit=1)[0] for stem in stems(files)]
    groups, words = Counter(firsts), {name.casefold() for name in classes}
    several = sum(count for count in groups.values() if count > 1)
    plain = all(_SEPARATOR.search(stem) for stem in stems(files)) and several > len(files) / 2
    named = any(first.casefold() in words for first in groups)
    few = len(groups) <= max(len(words), 2)
    return {} if not plain or named or few or not all(any(c.isdigit() for c in g) for g in groups) else dict(
        zip(files, firsts, strict=True))


def _locations(survey: Survey, guess: Guess) -> dict[str, str]:
    """Word of the location column -> one of `LOCATIONS`, or nothing where it is not known."""
    found = {}
    for word in sorted(set(survey.cells(guess.column))) if guess.column else ():
        if cells.choice(word, LOCATIONS) is None:
            found[word] = next((place for place, words in _LOCATION_WORDS.items() if word.casefold() in words), "")
    return found


def _sexes(survey: Survey, guess: Guess) -> dict[str, str]:
    """Word of the sex column that ingest does not know -> its meaning, or nothing."""
    found = {}
    for word in sorted(set(survey.cells(guess.column))) if guess.column else ():
        if not _accepted(cells.sex, word):
            found[word] = _SEX_WORDS.get(word.casefold(), "")
    return found


def _accepted(rule: Callable[[str], str | None], word: str) -> bool:
    try:
        rule(word)
    except CellError:
        return False
    return True


def _usable_age(survey: Survey, guess: Guess) -> Guess:
    """The age's column, unless ingest would refuse cells of it."""
    wrong = next((word for word in survey.cells(guess.column) if not _accepted(cells.age_group, word)), None) \
        if guess.column else None
    if wrong is None:
        return guess
    return Guess(None, f"{guess.column} has {short(wrong)}, and an age is years without a unit", (str(guess.column),))


def _persons_of(
    survey: Survey, label: Guess, classes: Mapping[str, str], counts: Mapping[str, int], patient: str | None,
    patients: Mapping[str, str],
) -> tuple[Mapping[str, int], str]:
    """Class -> number of its patients, and the word for them; of its recordings where nobody knows the patients."""
    if patient is None and not patients:
        return counts, "recordings"
    found: dict[str, set[str]] = {name: set() for name in counts}
    of_key = {cells.spelling_key(word): name for word, name in classes.items()}
    for row in survey.rows:
        name = of_key.get(cells.spelling_key(row[label.column or ""]), "")
        person = cells.present(row[patient]) if patient else patients.get(row[survey.path])
        if name in found and person:
            found[name].add(person)
    return {name: len(persons) for name, persons in found.items()}, "patients"


def _notes(
    survey: Survey, label: Guess, classes: Mapping[str, str], counts: Mapping[str, int], columns: Mapping[str, Guess],
    patients: Mapping[str, str],
) -> Iterable[str]:
    """What costs something, or was left open."""
    if label.others:
        yield (f"{' and '.join((str(label.column), *label.others))} could all be the label. {label.column} is taken: "
               f"{label.reason}; --label {label.others[0]} takes another")
    yield from words_in_words(survey.cells_with_nothing(label.column or ""), classes, folders=survey.table is None)
    persons, whom = _persons_of(survey, label, classes, counts, columns["patient"].column, patients)
    few = [f"{name} ({count})" for name, count in persons.items() if count < FEW]
    if few:
        yield (f"few {whom} of {', '.join(few)}: a class with fewer than {FEW} persons has no score of its own, "
               "and one with a single person can be in training or in test, not in both")
    if patients:
        yield (f"patients are taken from the names of files, as in {next(iter(patients))} -> "
               f"{next(iter(patients.values()))}: {len(set(patients.values()))} of them. If that is no person, add "
               "--patient -")
    elif columns["patient"].column is None and columns["group"].column is None:
        yield ("nobody knows the patients: each recording is a group of its own, so that one person may be in training "
               "and in test. Scores may then be too good, and intervals too narrow")
    missing = len(survey.rows) - survey.named
    if missing:
        yield f"rows that name no file that is here: {missing} of {len(survey.rows)}. Ingest refuses them one by one"
    if survey.apart:
        where = "that no row names" if survey.table else "in no class's folder"
        yield f"sound files {where}: {len(survey.apart)}, such as {survey.apart[0]}. They are left out"
    twice = len(survey.rows) - len({row[survey.path] for row in survey.rows})
    if survey.passed_over:
        yield f"{survey.passed_over}, so the names of the folders are the classes"
    if twice:
        yield f"rows that repeat a file: {twice}. Ingest takes equal rows once, and refuses files whose rows differ"
