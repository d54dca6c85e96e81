"""SHA-256 of bytes, files and folders: this project names things by their content."""

import hashlib
from pathlib import Path


def sha256(data: bytes) -> str:
    """Hex SHA-256 of bytes.

    >>> sha256(b"heart")[:12]
    '3cb968a98208'
    """
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(folder: Path) -> str:
    """Hex SHA-256 over the lines `<file hash>  <relative path>` of all files of a folder, sorted by path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    return sha256("".join(lines).encode())
