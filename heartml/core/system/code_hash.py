"""A hash of source code: cached results that a module made are dropped when the module changes."""

from pathlib import Path

import heartml
from heartml.core.system import hashing


def fingerprint(*parts: str) -> str:
    """Hex SHA-256 over modules of `heartml`.

    Args:
        parts: folders with everything in them, or files, relative to the package: `models/heads`, `audio/quality.py`.

    Raises:
        FileNotFoundError: a part has no modules.
    """
    root = Path(str(heartml.__file__)).parent
    sources = sorted(path for part in parts for path in _modules(root / part))
    lines = [f"{hashing.sha256_file(path)}  {path.relative_to(root)}\n" for path in sources]
    return hashing.sha256("".join(lines).encode())


def _modules(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = list(path.rglob("*.py"))
    if not found:
        raise FileNotFoundError(f"{path}: no module of heartml")
    return found
