"""The object store that machines share: `HEARTML_SHARED`, `s3://BUCKET/heartml` or any address that fsspec opens.

    files/md5/ab/cd...   inputs of parts, named by their content as in a remote of DVC; so a remote may have the address
    jobs/ID.json         what a part is made from; ID is the hash of that
    results/ID.tar       what it made

An object is whole or not there at all. Nothing is ever changed under its name.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import replacing

VARIABLE = "HEARTML_SHARED"
_INPUTS = "files/md5"
_AT_ONCE = 16     # files on the way; a store far away takes its time for each


class SharedStoreError(HeartMLError):
    """The object store does not answer, or has other bytes than a name says."""


@dataclass(frozen=True)
class ObjectStore:
    """An opened store; `root` is the address in the words of its file system `fs`."""

    address: str
    fs: Any
    root: str

    @classmethod
    def open(cls, address: str) -> "ObjectStore":
        """Open the store at an address.

        Raises:
            SharedStoreError: fsspec knows no such kind of address, or its driver is not installed.
        """
        import fsspec

        with _named(address):
            fs, root = fsspec.url_to_fs(address, use_listings_cache=False)
        return cls(address, fs, root.rstrip("/"))

    def inputs(self) -> frozenset[str]:
        """The hashes of all inputs that are there."""
        with _named(self.address):
            self.fs.invalidate_cache()
            found = self.fs.find(f"{self.root}/{_INPUTS}") if self.fs.exists(f"{self.root}/{_INPUTS}") else ()
        return frozenset("".join(str(key).rsplit("/", 2)[-2:]) for key in found)

    def put_inputs(self, files: Mapping[str, Path]) -> None:
        """Store files, hash -> file, each under its hash.

        Raises:
            SharedStoreError: a file has another hash.
        """
        self._each(self._put_input, files)

    def get_inputs(self, files: Mapping[str, Path]) -> None:
        """Fetch the files with these hashes, hash -> where to.

        Raises:
            SharedStoreError: one is not there, or is damaged.
        """
        self._each(self._get_input, files)

    def _each(self, transfer: Callable[[str, Path], None], files: Mapping[str, Path]) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for _ in threads.map(transfer, files.keys(), files.values()):
                pass

    def _put_input(self, md5: str, file: Path) -> None:
        if md5_of(file) != md5:
            raise SharedStoreError(f"{file}: not the bytes that DVC has recorded. `dvc checkout --force {file}` puts "
                                   "them back")
        self.put(self._input(md5), file)

    def _get_input(self, md5: str, to: Path) -> None:
        key = self._input(md5)
        with _named(self.address), replacing(to) as temporary:
            self.fs.get_file(f"{self.root}/{key}", str(temporary))
            if md5_of(temporary) != md5:
                raise SharedStoreError(f"{VARIABLE}={self.address}: {key} is damaged. Remove it there, and "
                                       "retrain again")

    def put(self, key: str, file: Path) -> None:
        """Store a file."""
        place = f"{self.root}/{key}"
        with _named(self.address):
            if not _is_local(self.fs):      # such a store shows an object when all of it is there
                self.fs.put_file(str(file), place)
                return
            with replacing(Path(place)) as temporary:
                shutil.copyfile(file, temporary)

    def has(self, key: str) -> bool:
        """Whether there is such an object."""
        with _named(self.address):
            self.fs.invalidate_cache()
            return bool(self.fs.exists(f"{self.root}/{key}"))

    def read(self, key: str) -> bytes:
        """The bytes of a small object."""
        with _named(self.address):
            return bytes(self.fs.cat_file(f"{self.root}/{key}"))

    @contextlib.contextmanager
    def opened(self, key: str) -> Iterator[IO[bytes]]:
        """An object as a file, read as it comes."""
        with _named(self.address), self.fs.open(f"{self.root}/{key}", "rb") as file:
            yield file

    @staticmethod
    def _input(md5: str) -> str:
        return f"{_INPUTS}/{md5[:2]}/{md5[2:]}"


def md5_of(file: Path) -> str:
    """The hash by which DVC names a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def configured() -> str | None:
    """The address of the store, where one is set."""
    return os.environ.get(VARIABLE) or None


def _is_local(fs: Any) -> bool:
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


@contextlib.contextmanager
def _named(address: str) -> Iterator[None]:
    try:
        yield
    except HeartMLError:
        raise
    except Exception as error:  # noqa: BLE001 - every kind of store has errors of its own
        words = " ".join(str(error).split()) or type(error).__name__
        raise SharedStoreError(f"{VARIABLE}={address}: {words}") from None
