"""How often each warning about a signal fires on a collection, and on what its publisher says about quality.

python benchmarks/quality.py FOLDER...

Each FOLDER holds one collection in its publisher's layout. A collection's parts are shown where its names tell them:
the labels in PASCAL's file names, the murmur of CirCor's table, the quality of PhysioNet's REFERENCE-SQI.csv.
"""

import argparse
import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from heartml.audio import containers, quality, sound_files
from heartml.core import config

LIMITS = config.load(Path(__file__).parents[1] / "params.yaml").validate_
WARNINGS = ("silent", "short", "clipped", "quiet", "offset", "muffled", "no heart sounds")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    table = Table("collection", "recordings", *WARNINGS, "any")
    for folder in parser.parse_args().folders:
        for part, found in counts(folder).items():
            shares = [f"{100 * found[name] / found['all']:.1f} %" for name in (*WARNINGS, "any")]
            table.add_row(part, str(found["all"]), *shares)
    Console(width=160).print(table)


def counts(folder: Path) -> dict[str, Counter[str]]:
    """Part of the collection -> how many recordings it has, and how many with each warning."""
    parts, found = dict(stated(folder)), dict[str, Counter[str]]()
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in containers.SUFFIXES):
        try:
            samples = sound_files.read(path)
        except sound_files.AudioError as error:
            print(error)
            continue
        fired = list(quality.warnings(quality.measure(samples.floats, samples.sample_rate_hz), LIMITS))
        own = parts.get(path.stem) or parts.get(path.stem.split("_")[0]) or named(path)
        for part in dict.fromkeys((folder.name, f"{folder.name}: {own}" if own else folder.name)):
            found.setdefault(part, Counter()).update(["all", *fired, *(["any"] if fired else [])])
    return dict(sorted(found.items()))


def stated(folder: Path) -> Iterator[tuple[str, str]]:
    """Recording or patient -> what the publisher's tables say."""
    for path in sorted(folder.rglob("REFERENCE-SQI.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            yield from ((row[0], "good" if row[2] == "1" else "poor") for row in csv.reader(file))
    table = folder / "training_data.csv"
    if table.exists():
        with table.open(newline="", encoding="utf-8") as file:
            yield from ((row["Patient ID"], f"murmur {row['Murmur']}") for row in csv.DictReader(file))


def named(path: Path) -> str:
    """The label in a file name of PASCAL (`artifact__2011...`) or the folder of HLS-CMDS; empty elsewhere."""
    match = re.match(r"(artifact|extrahls|murmur|normal|extrastole|[AB]?unlabelledtest)_", path.stem)
    return match[1] if match else path.parent.name if path.parent.name in ("HS", "LS", "Mix") else ""


if __name__ == "__main__":
    main()
