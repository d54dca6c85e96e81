"""Yaseen 2018: a thousand short recordings in five folders, one a class, collected from books, discs and websites.

For instance `AS/New_AS_001.wav`. A folder's name may be longer than the class (`AS_New_3주기`, as in the publisher's
archives). The class is in the folder's name and in the file's, and both must agree.

The persons are unknown. Every recording is a group of its own; only near-duplicates are joined. One person may
therefore be in training and test at once, and so may several cycles of one source recording. Scores on this set alone
say how well recordings are told apart, not patients. That includes published accuracies near 1.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from heartml.core.schema import label_column
from heartml.data.datasets import Layout, LayoutError, PublisherFolder, Remote, checksums

NAME = "yaseen"
TITLE = "Heart sounds of Yaseen, Son and Kwon (2018)"
CITATION = (
    "Yaseen, Son G.-Y., Kwon S. Classification of Heart Sound Signal Using Multiple Features. "
    "Applied Sciences 8(12):2344 (2018), doi:10.3390/app8122344"
)
LICENCE = "unclear: ask before redistributing"
PUBLISHER = "https://github.com/yaseen21khan/Classification-of-Heart-Sound-Signal-Using-Multiple-Features-"
REMOTES: tuple[Remote, ...] = ()     # five RAR archives without checksums: unpack them beside each other
TASKS = ("valves",)
LABELS: Mapping[str, tuple[str, ...]] = {"valve": ("AS", "MR", "MS", "MVP", "N")}

_SOURCE = "mixed"                    # which book or website a recording is from is unknown
_FOLDER_PATTERN = re.compile(r"(?P<label>AS|MR|MS|MVP|N)(_.*)?")
_NAME_PATTERN = re.compile(r"New_(?P<label>[A-Z]+)_(?P<number>\d+)")


def read(folder: Path) -> Layout:
    """Read the folders of the classes in `folder`.

    Raises:
        LayoutError: none of the five is there.
    """
    source = PublisherFolder(folder, NAME, checksums(folder / "SHA256SUMS.txt"))
    classes = [path for path in sorted(folder.iterdir()) if path.is_dir() and _FOLDER_PATTERN.fullmatch(path.name)]
    if not classes:
        raise LayoutError(f"{folder}: no folder {', '.join(LABELS['valve'])}. Name the folder that holds them.")
    files = [path for each in classes for path in sorted(each.rglob("*")) if _is_file(path)]
    recordings = [row for path in files if (row := _recording(source, path))]
    return source.layout(recordings, [], LABELS)


def _is_file(path: Path) -> bool:
    """Whether ingest should see it. That includes a pipe or a folder called `.wav`, which ingest then refuses."""
    return not path.name.startswith(".") and (path.suffix != "" or not path.is_dir())


def _recording(source: PublisherFolder, path: Path) -> dict[str, object] | None:
    """One row of the layout, or `None` after it was refused."""
    relative = source.relative(path)
    match, folder = _NAME_PATTERN.fullmatch(path.stem), _FOLDER_PATTERN.fullmatch(relative.split("/")[0])
    if match is None or folder is None:
        source.refuse(relative, None, "missing_row", "the name is not New_<class>_<number>")
        return None
    if match["label"] != folder["label"]:
        detail = f"the folder says {folder['label']}, the name says {match['label']}"
        source.refuse(relative, None, "contradiction", detail)
        return None
    return {
        "source_file": relative,
        "file_sha256": source.sums.get(relative),
        "group": f"{NAME}-{match['label']}-{match['number']}",
        "source": _SOURCE,
        label_column("valve"): match["label"],
    }
