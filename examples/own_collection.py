"""Make a small collection with classes of its own, to try docs/own-data.md: `python examples/own_collection.py FOLDER`.

In: the number of classes and of patients. Out, in FOLDER: `recordings.csv` with the columns file, patient, finding, age
and sex, and `sounds/<patient>_<location>.wav`. The hearts are simulated; every class but `none` has an invented sound
of its own beside the heart. The same arguments give the same bytes.
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from heartml.data.simulation import children, corpus, visits

CLASSES = ("none", "click", "rumble", "Clic mésosystolique", "whistle", "thud", "scratch")
_PITCH_HZ = (0.0, 330.0, 70.0, 240.0, 480.0, 110.0, 160.0)
_PULSES_HZ = (0.0, 1.3, 0.5, 2.6, 0.8, 3.4, 5.1)
_SEED = 515_151          # no corpus has it by default
_SECONDS = 6.0
_AGES = {"Neonate": "0.1", "Infant": "0.6", "Child": "7", "Adolescent": "15"}
_RATE_HZ = 4000


def write(folder: Path, classes: int, patients: int) -> None:
    """Write a collection of `patients` patients with two recordings each; the classes take turns."""
    (folder / "sounds").mkdir(parents=True)
    rows = []
    for number in range(patients):
        which = number % classes
        child = replace(children.draw_child(_SEED, number), lesion=None, murmur=None, murmur_db=-np.inf, diastolic=None)
        visit = visits.draw_visits(_SEED, child)[0]
        for recording in visits.record(visit, _SECONDS)[:2]:
            file = f"sounds/p{number + 1}_{recording.location}.wav"
            pcm = _with_sound(recording.pcm, which, np.random.default_rng([_SEED, number, len(recording.pcm)]))
            (folder / file).write_bytes(corpus.wav_bytes(pcm))
            rows.append((file, f"p{number + 1}", CLASSES[which], _AGES.get(child.age_group, ""), child.sex[0].lower()))
    with (folder / "recordings.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "patient", "finding", "age", "sex"))
        writer.writerows(rows)


def _with_sound(pcm: np.ndarray, which: int, rng: np.random.Generator) -> np.ndarray:
    """Samples int16 [time] with the sound of a class: pulses of one pitch, a little louder or fainter in each."""
    if which == 0:
        return pcm
    time = np.arange(len(pcm)) / _RATE_HZ
    pulses = np.maximum(0, np.sin(2 * np.pi * _PULSES_HZ[which] * time + rng.uniform(0, 6.3))) ** 4
    level = 10 ** rng.uniform(-0.9, -0.3) * float(np.percentile(np.abs(pcm), 99.5))
    sound = level * pulses * np.sin(2 * np.pi * _PITCH_HZ[which] * rng.uniform(0.95, 1.05) * time)
    return np.clip(pcm + sound, -32768, 32767).astype(np.int16)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", type=int, default=3, choices=range(2, len(CLASSES) + 1))
    parser.add_argument("--patients", type=int, default=45)
    given = parser.parse_args()
    write(given.folder, given.classes, given.patients)
