"""What the readers of headers find: how the length that is stated differs from what the file holds."""

from dataclasses import dataclass
from typing import NamedTuple


class Correction(NamedTuple):
    """What the decoder shall see at `position` instead of `replaced` bytes: a length, where none is stated."""

    position: int
    replaced: int
    content: bytes

    def apply(self, whole: bytes) -> bytes:
        """The file's content with it.

        >>> Correction(1, 2, b"xyz").apply(b"abcd")
        b'axyzd'
        """
        return whole[: self.position] + self.content + whole[self.position + self.replaced :]


@dataclass(frozen=True)
class Extent:
    """How the length in a header differs from what the file holds.

    Attributes:
        missing: at least so much that the header states is not there.
        unstated: so much is there behind the samples that the header states, and is nothing else that is known.
        unit: what `missing` and `unstated` count.
        correction: the length, where the header leaves it open.
    """

    missing: int = 0
    unstated: int = 0
    unit: str = "bytes"
    correction: Correction | None = None
