"""Make `examples/patients`: ten simulated children, held out from every model of the demo.

`python examples/make_patients.py [FOLDER]` writes `<patient>_<location>.flac`, and `labels.csv` with one row for each
file: path, patient_id, location, label (the murmur, as the simulated clinic wrote it down), outcome and grading. The
same code gives the same samples.
"""

import argparse
import csv
import io
from collections.abc import Iterator
from pathlib import Path

from heartml.audio.sound_files import Samples, write_flac
from heartml.data.simulation.children import draw_child
from heartml.data.simulation.physiology import SAMPLE_RATE_HZ
from heartml.data.simulation.visits import Recording, Visit, draw_visits, record, table_row

FOLDER = Path(__file__).parent / "patients"
LABELS = "labels.csv"
SEED = 4_711          # neither the demo's (2026) nor that of the exported page
SECONDS = 8.0
WANTED = {"Present": 4, "Absent": 4, "Unknown": 2}


def visits() -> Iterator[Visit]:
    """The first visits of the first children of `SEED`, as many of each murmur label as `WANTED` says."""
    left, number = dict(WANTED), 0
    while any(left.values()):
        visit = draw_visits(SEED, draw_child(SEED, number))[0]
        number += 1
        if left[visit.label]:
            left[visit.label] -= 1
            yield visit


def recordings(visit: Visit) -> list[Recording]:
    """The visit's recordings, one a location."""
    return record(visit, SECONDS)


def labels(found: list[Visit]) -> str:
    """The text of `labels.csv`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("path", "patient_id", "location", "label", "outcome", "grading"))
    for visit in found:
        row = table_row(visit)
        stated = (visit.label, row["Outcome"], row["Systolic murmur grading"].replace("nan", ""))
        writer.writerows((f"{visit.patient_id}_{place}.flac", visit.patient_id, place, *stated)
                         for place in visit.scenes)
    return buffer.getvalue()


def write(folder: Path) -> None:
    """Write all files into `folder`."""
    found = list(visits())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LABELS).write_text(labels(found), encoding="utf-8")
    for visit in found:
        for one in recordings(visit):
            write_flac(folder / f"{one.name}.flac", Samples(one.pcm, SAMPLE_RATE_HZ))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    write(parser.parse_args().folder)
