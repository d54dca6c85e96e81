"""One progress bar for everything that takes a while. It is shown on stderr, and only on a terminal."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], description: str, total: float | None = None) -> Iterator[T]:
    """Yield `items` while a bar shows how many of `total` are done; no output where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import track as bar

    console = Console(stderr=True)
    yield from bar(items, description, total=total, console=console, disable=not console.is_terminal, transient=True)
