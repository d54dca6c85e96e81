"""PhysioNet/CinC Challenge 2016: single recordings of normal and abnormal hearts from six collections, a to f.

`training-a/` to `training-f/` each hold `REFERENCE.csv` (`a0001,1`: 1 abnormal, -1 normal), `RECORDS`,
`RECORDS-normal`, `RECORDS-abnormal`, `SHA256SUMS` and `a0001.wav` with `.hea` and `.dat` beside it. Any subset of the
six is a valid folder. `validation/` repeats recordings of the others and is not read. The `.dat` of training-a carries
an electrocardiogram too; only the sound, the `.wav`, is.

Persons are not in the headers. The publisher's appendix (`annotations/Online_Appendix_training_set.csv`, also written
`Online Appendix_training set.csv`) gives, where it is there: `Subject ID` (training-b), the original record's name
(training-a `C45S1...` and training-c `id17...` begin with the subject), and `# Raw record`, of which training-e's
recordings are pieces; its numbers run anew for two cohorts, told apart by the original name. Nothing is known of
persons in d and f, nor without the appendix: each recording is a group of its own then, joined only where the audio is
nearly the same. Columns and patterns were checked against others' readings of the appendix, not against the file.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from heartml.core.schema import label_column
from heartml.data.datasets import Folder, Layout, LayoutError, Remote, age_band, checksums, leads_out

NAME = "physionet2016"
TITLE = "PhysioNet/Computing in Cardiology Challenge 2016: Classification of Heart Sound Recordings 1.0.0"
CITATION = (
    "Liu C. et al. An open access database for the evaluation of heart sound algorithms. "
    "Physiological Measurement 37(12):2181 (2016), doi:10.1088/0967-3334/37/12/2181"
)
LICENCE = "ODC-By-1.0"
PUBLISHER = "https://physionet.org/content/challenge-2016/1.0.0/"
REMOTES = (Remote("https://physionet.org/files/challenge-2016/1.0.0/", "SHA256SUMS.txt"),)
TASKS = ("normal",)
LABELS: Mapping[str, tuple[str, ...]] = {"normal": ("Abnormal", "Normal")}

_PARTS = tuple(f"training-{letter}" for letter in "abcdef")
_REFERENCE, _SUMS = "REFERENCE.csv", "SHA256SUMS"
_ANSWERS = {"1": "Abnormal", "-1": "Normal"}
_LISTS = {"RECORDS-abnormal": "Abnormal", "RECORDS-normal": "Normal"}
_APPENDICES = ("Online_Appendix_training_set.csv", "Online Appendix_training set.csv")
_SIDE_FILES = (".hea", ".dat", ".csv", ".txt", ".mat", "")
_SUBJECTS = {"training-a": re.compile(r"(C\d+)S\d", re.IGNORECASE), "training-c": re.compile(r"(id\d+)", re.IGNORECASE)}
_SEXES = {"m": "Male", "male": "Male", "f": "Female", "female": "Female"}


def read(folder: Path) -> Layout:
    """Read the challenge's layout in `folder`.

    Raises:
        LayoutError: none of the six parts is there with its answers.
    """
    parts = [part for part in _PARTS if (folder / part / _REFERENCE).is_file()]
    if not parts:
        raise LayoutError(f"{folder}: no training-a to training-f with {_REFERENCE} in it. Name the folder above.")
    source = Folder(folder, NAME, _sums(folder, parts))
    appendix = _appendix(source)
    recordings: list[dict[str, object]] = []
    for part in parts:
        answers = _answers(source, part)
        files = sorted(path for path in (folder / part).iterdir() if _is_recording(path))
        recordings += [row for path in files if (row := _recording(source, path, answers, appendix))]
        _refuse_missing_files(source, part, answers, {path.stem for path in files})
    return source.layout(recordings, [], LABELS)


def _sums(folder: Path, parts: Iterable[str]) -> dict[str, str]:
    """Checksums of all parts, whose lists stand in each and over all."""
    own = {f"{part}/{name}": digest for part in parts for name, digest in checksums(folder / part / _SUMS).items()}
    return checksums(folder / "SHA256SUMS.txt") | own


def _is_recording(path: Path) -> bool:
    """Everything that is no known side file: a recording with a wrong extension must be seen, too."""
    return path.suffix.lower() not in _SIDE_FILES and not path.name.startswith((".", "RECORDS", "REFERENCE"))


def _answers(source: Folder, part: str) -> dict[str, set[str]]:
    """Record -> what the answers and the lists of normal and abnormal records say (more than one contradicts)."""
    folder, answers = source.root / part, dict[str, set[str]]()
    path = folder / _REFERENCE
    for row in source.rows(path, source.text(path, None), ("name", "answer")):
        name, answer = row["name"], row["answer"]
        if name and leads_out(name):
            source.refuse(f"{part}/{name}", None, "outside", f"{_REFERENCE} names it, and it leads out of the folder")
        elif name:
            answers.setdefault(name, set()).add(_ANSWERS.get(answer, answer))
    for file, answer in _LISTS.items():
        for name in source.text(folder / file, None).split():
            if name in answers:
                answers[name].add(answer)
    return answers


def _appendix(source: Folder) -> dict[str, dict[str, str]]:
    """Record -> the appendix's row; empty where there is none."""
    for name in _APPENDICES:
        path = source.root / "annotations" / name
        rows = source.rows(path, source.text(path, None))
        if rows:
            return {row.get("Challenge record name", ""): row for row in rows}
    return {}


def _recording(
    source: Folder, path: Path, answers: Mapping[str, set[str]], appendix: Mapping[str, Mapping[str, str]]
) -> dict[str, object] | None:
    """One row of the layout, or `None` after it was refused."""
    relative, part = source.relative(path), path.parent.name
    said, about = answers.get(path.stem), appendix.get(path.stem, {})
    subject = _subject(part, about)
    patient_id = f"{NAME}-{part[-1]}-{subject}" if subject else None
    if not said:
        source.refuse(relative, patient_id, "missing_row", f"{_REFERENCE} has no row for it")
        return None
    said = said | {_ANSWERS[answer] for answer in [about.get("Class (-1=normal 1=abnormal)", "")] if answer in _ANSWERS}
    if len(said) > 1:
        source.refuse(relative, patient_id, "contradiction", f"its lists say {' and '.join(sorted(said))}")
        return None
    return {
        "source_file": relative,
        "file_sha256": source.sums.get(relative),
        "patient_id": patient_id,
        "group": patient_id or f"{NAME}-{path.stem}",
        "source": part,
        "age_group": age_band(about.get("Age (year)", "")),
        "sex": _SEXES.get(about.get("Gender", "").lower()),
        label_column("normal"): next(iter(said)) or None,
    }


def _subject(part: str, about: Mapping[str, str]) -> str | None:
    """The person within a part, as far as the appendix tells; numbers are written with and without a fraction."""
    original, given = about.get("Original record name", ""), _whole(about.get("Subject ID", ""))
    if given:
        return f"S{given}"
    if part in _SUBJECTS:
        match = _SUBJECTS[part].match(original)
        return match[1].upper() if match else None
    raw = _whole(about.get("# Raw record", ""))
    if part == "training-e" and raw and original:
        return f"{'patient' if original.isdigit() else 'healthy'}{raw}"
    return None


def _whole(text: str) -> str:
    """`14`, also of `14.0`; empty where it is no number."""
    return text.partition(".")[0] if re.fullmatch(r"\d+(\.0*)?", text) else ""


def _refuse_missing_files(source: Folder, part: str, answers: Mapping[str, set[str]], there: set[str]) -> None:
    """Refuse the rows that no file on disk belongs to."""
    for name in sorted(answers.keys() - there):
        detail = f"{_REFERENCE} has a row for it, but there is no such file"
        source.refuse(f"{part}/{name}.wav", None, "missing_file", detail)
