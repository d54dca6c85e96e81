"""Write a corpus of simulated people and their lungs (`heartml simulate DIR --organ lungs`).

In: number of people, seed, seconds. Out, in DIR: `recordings.csv` (one row a recording: file, patient, place, sound,
age, sex), `breaths.csv` (file, start_s, end_s, sound; where a recording holds whole breaths), `LICENSE.txt`,
`SHA256SUMS.txt`, and `audio/<patient>_<n>.wav` (4 kHz, 16 bit, mono). The same arguments give the same bytes. Person k
does not depend on the number of people.

The model and its sources are in `heartml.data.simulation`: `breath` (sounds), `lungs` (people, places), `stethoscope`.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from heartml.core.system import files, hashing
from heartml.core.system.progress import track
from heartml.data.simulation import corpus, lungs
from heartml.data.simulation.corpus import SimulateError
from heartml.data.simulation.lungs import LungPatient, LungRecording

RECORDINGS, BREATHS, AUDIO = "recordings.csv", "breaths.csv", "audio"
RECORDING_COLUMNS = ("file", "patient", "place", "sound", "age", "sex")
BREATH_COLUMNS = ("file", "start_s", "end_s", "sound")
SHORTEST_S = 6.0        # a breath takes up to five: each recording holds what it is said to sound like
_LICENCE = """\
Simulated lung sounds, made by `heartml simulate --organ lungs`. Nobody was recorded; ids and illnesses are invented.
Licence: Apache-2.0, as the program that made them (https://www.apache.org/licenses/LICENSE-2.0).
"""


@dataclass(frozen=True)
class LungCorpus:
    """The numbers of a corpus that was written: people, recordings, recordings by what is heard."""

    patients: int
    recordings: int
    sounds: dict[str, int]

    def lines(self) -> list[str]:
        """The lines that `heartml simulate` prints."""
        heard = ", ".join(f"{self.sounds[kind]} {kind}" for kind in lungs.KINDS if kind in self.sounds)
        return [f"{self.patients} people, {self.recordings} recordings: {heard}"]


def run(folder: Path, *, count: int, seed: int, seconds: float) -> LungCorpus:
    """Write a corpus to `folder`, completely or not at all.

    Args:
        folder: new or empty.
        count: number of people.
        seed: another seed gives other people.
        seconds: mean length of a recording in s.

    Raises:
        SimulateError: `folder` is not empty, or a number is out of its range.
    """
    corpus.check(folder, count, seed, seconds)
    if seconds < SHORTEST_S:
        raise SimulateError(f"--seconds {seconds:g}: a recording of lungs has {SHORTEST_S:g} seconds at least, because "
                            "a shorter one may end before the sound that it is labelled with")
    with files.replacing_folder(folder) as temporary:
        return _write(temporary, count, seed, seconds)


def _write(folder: Path, count: int, seed: int, seconds: float) -> LungCorpus:
    (folder / AUDIO).mkdir()
    rows, breaths, sums = [], [], {}
    for patient, recording, file in track(_recordings(count, seed, seconds), "simulate", len(lungs.PLACES) * count):
        content = corpus.wav_bytes(recording.pcm)
        (folder / file).write_bytes(content)
        sums[file] = hashing.sha256(content)
        rows.append((file, f"{patient.number:05d}", recording.place, recording.sound,
                     f"{patient.child.age_years:.2f}", patient.child.sex))
        breaths += [(file, f"{start:.3f}", f"{end:.3f}", recording.sound) for start, end in recording.breaths]
    tables = {RECORDINGS: _table(RECORDING_COLUMNS, rows), "LICENSE.txt": _LICENCE.encode(),
              **({BREATHS: _table(BREATH_COLUMNS, breaths)} if breaths else {})}
    for name, content in tables.items():
        (folder / name).write_bytes(content)
        sums[name] = hashing.sha256(content)
    (folder / "SHA256SUMS.txt").write_text("".join(f"{sums[name]} {name}\n" for name in sorted(sums)))
    return LungCorpus(count, len(rows), dict(Counter(row[3] for row in rows)))


def _recordings(count: int, seed: int, seconds: float) -> Iterator[tuple[LungPatient, LungRecording, str]]:
    """Every recording of `count` people with its file."""
    for number in range(count):
        patient = lungs.draw_patient(seed, number)
        for place, recording in enumerate(lungs.record(seed, patient, seconds), 1):
            yield patient, recording, f"{AUDIO}/{number:05d}_{place}.wav"


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue().encode()
