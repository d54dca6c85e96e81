"""Where a file lies instead: for a table that names it in other letters, without its ending or in another folder."""

import os
import unicodedata
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath

_MOST_FILES = 200_000


class Nearby:
    """The files of a folder, listed when the first name is looked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _files(self) -> Mapping[str, tuple[str, ...]]:
        """What is compared of a name, with and without its ending -> the files, relative to the folder."""
        found: dict[str, tuple[str, ...]] = {}
        count = 0
        for parent, _, names in os.walk(self._folder):
            inside = Path(parent).relative_to(self._folder)
            for name in sorted(names):
                count += 1
                file = (inside / name).as_posix()
                for key in {_key(name), _key(PurePosixPath(name).stem)}:
                    found[key] = (*found.get(key, ()), file)[:2]
            if count > _MOST_FILES:
                break
        return found

    def hint(self, name: str) -> str:
        """Words for the end of a message: which file may be meant by `name`; empty where none is similar.

        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     Path(folder, "R1.wav").touch()
        ...     Nearby(Path(folder)).hint("sounds/r1"), Nearby(Path(folder)).hint("r2.wav")
        (': is R1.wav meant?', '')
        """
        last = PurePosixPath(name).name
        for key in (_key(last), _key(PurePosixPath(last).stem)):
            others = self._files.get(key, ())
            if others:
                return f": is {others[0]} meant?" if len(others) == 1 else f": is one of {', '.join(others)} meant?"
        return ""


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
