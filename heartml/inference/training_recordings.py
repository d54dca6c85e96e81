"""Which recordings a model was trained or tested on: its predictions for them say nothing about other recordings.

In: the table of folds behind a model (schema.FOLDS). Out: ids of recordings, by what they were used for.
"""

from dataclasses import dataclass
from pathlib import Path

from heartml.core.schema import TEST


@dataclass(frozen=True)
class KnownRecordings:
    """Ids of the recordings that a model was trained on, and of those that were held out for its test."""

    trained: frozenset[str] = frozenset()
    held_out: frozenset[str] = frozenset()

    def use_of(self, recording_id: str) -> str | None:
        """`trained`, `held out`, or `None` for a recording that is new to the model.

        >>> KnownRecordings(frozenset({"3f2a"})).use_of("3f2a")
        'trained'
        """
        return "trained" if recording_id in self.trained else "held out" if recording_id in self.held_out else None


NOTHING_KNOWN = KnownRecordings()


def read(folds: Path | None) -> KnownRecordings:
    """The recordings of a table of folds; none where there is no such table, because nothing is known then."""
    if folds is None or not folds.is_file():
        return NOTHING_KNOWN
    from pyarrow import parquet  # pandas takes half a second to import

    with parquet.ParquetFile(folds) as file:      # `read_table` imports pandas
        table = file.read(columns=["recording_id", "part"]).to_pydict()
    part_of = dict(zip(table["recording_id"], table["part"], strict=True))
    held_out = frozenset(i for i, part in part_of.items() if part == TEST)
    return KnownRecordings(frozenset(part_of) - held_out, held_out)
