"""What does a model do with sounds that are no heart, and with recordings that it should know?

    python benchmarks/non_hearts.py [TASK] [--others FOLDER[:PATTERN] ...] [--hearts FOLDER[:PATTERN] ...] [--json FILE]

Run it in a project where TASK (the first of `tasks` in params.yaml) is trained. `--others` names folders of recordings
that are no heart, `--hearts` folders of hearts from elsewhere; PATTERN is that of a file's name (`*.wav`).

The first table: the share of sounds that the model refers, and for which reason. The made-up kinds are not those that
the model learnt from (heartml/data/simulation/other_sounds.py). The second: the task's own held-out units. The third:
risk and coverage, as if a fifth of what a model is asked were no heart. The rest are the task's held-out units and its
out-of-fold ones. Risk is the share of wrong decisions among those that are shown; whatever is decided of a sound that
is no heart is wrong. With: what the checks refer is shown last. Without: by confidence alone.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.audio import sound_files
from heartml.core import config, paths, tasks
from heartml.core.system.files import read_json
from heartml.metrics.scores import LabelledPredictions
from heartml.models.fitted_model import REFER, Model, Predictions
from heartml.models.shared_inputs import RatedWaveform

RATE_HZ = 4000
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
SHARE = 0.2           # of what a model is asked that is no heart, in the third table
Array = NDArray[np.float64]


def _noise(
    time: Array, rng: np.random.Generator, slope: float = 0.0, band_hz: tuple[float, float] = (20, 1900)
) -> Array:
    hz = np.maximum(np.fft.rfftfreq(len(time), 1 / RATE_HZ), 1.0)
    response = hz**slope * ((hz > band_hz[0]) & (hz < band_hz[1]))
    drawn = np.fft.irfft(response * (rng.normal(size=len(hz)) + 1j * rng.normal(size=len(hz))), len(time))
    return np.asarray(drawn / drawn.std())


def _music(time: Array, rng: np.random.Generator) -> Array:
    """Chords at an even beat, each dying away."""
    sound = np.zeros(len(time))
    for start_s in np.arange(0, time[-1], rng.uniform(0.25, 0.6)):
        own = time - start_s
        for semitone in rng.choice([0, 3, 4, 5, 7, 9, 12], 3, replace=False):
            for harmonic in (1, 2, 3):
                wave = np.sin(2 * np.pi * 110 * 2 ** (semitone / 12) * harmonic * own)
                sound += np.where((own >= 0) & (own < 3), wave * np.exp(-4 * np.maximum(own, 0)) / harmonic, 0)
    return sound


def _siren(time: Array, rng: np.random.Generator) -> Array:
    pitch_hz = 400 + 250 * np.sin(2 * np.pi * rng.uniform(0.1, 2) * time)
    return np.asarray(np.sin(2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ))


def _rain(time: Array, rng: np.random.Generator) -> Array:
    drops = np.zeros(len(time))
    where = rng.integers(0, len(time), int(200 * time[-1]))
    np.add.at(drops, where, rng.normal(size=len(where)))
    ring = np.exp(-np.arange(40) / 8) * np.sin(np.arange(40) * rng.uniform(0.3, 2))
    return np.asarray(np.convolve(drops, ring, "same") + 0.1 * _noise(time, rng))


def _applause(time: Array, rng: np.random.Generator) -> Array:
    sound, noise = np.zeros(len(time)), _noise(time, rng, 0, (300, 1500))
    for start in rng.integers(0, len(time) - 100, int(rng.uniform(8, 40) * time[-1])):
        sound[start : start + 100] += noise[start : start + 100] * np.exp(-np.arange(100) / 25) * rng.uniform(0.3, 1)
    return sound


def _engine(time: Array, rng: np.random.Generator) -> Array:
    turns_hz = rng.uniform(12, 40)
    beats = np.exp(-8 * np.mod(time * turns_hz, 1)) * _noise(time, rng, -0.5, (30, 600))
    return np.asarray(beats + 0.3 * np.sin(4 * np.pi * turns_hz * time))


def _snoring(time: Array, rng: np.random.Generator) -> Array:
    breath = np.clip(np.sin(2 * np.pi * rng.uniform(0.2, 0.35) * time), 0, None)
    return np.asarray(breath * np.exp(-5 * np.mod(time * rng.uniform(25, 60), 1)) * _noise(time, rng, -0.3, (50, 800)))


def _barking(time: Array, rng: np.random.Generator) -> Array:
    sound, start_s = np.zeros(len(time)), 0.0
    while start_s < time[-1]:
        start_s += rng.uniform(0.3, 1.5)
        own = np.maximum(time - start_s, 0)
        voice = np.sin(2 * np.pi * np.cumsum(rng.uniform(300, 500) * np.exp(-3 * own)) / RATE_HZ)
        sound += (time >= start_s) * np.exp(-15 * own) * voice * (1 + 0.5 * _noise(time, rng, 0, (200, 1500)))
    return sound


def _metronome(time: Array, rng: np.random.Generator) -> Array:
    """Ticks at the rate of a heart."""
    own = np.mod(time, 60 / rng.uniform(60, 140))
    return np.asarray(np.exp(-rng.uniform(60, 200) * own) * np.sin(2 * np.pi * rng.uniform(300, 1200) * own))


def _telephone(time: Array, rng: np.random.Generator) -> Array:
    rings = np.mod(time, rng.uniform(2, 4)) < rng.uniform(0.5, 1.5)
    tones = np.sin(2 * np.pi * 440 * time) + np.sin(2 * np.pi * 480 * time)
    return np.asarray(rings * tones * (1 + 0.8 * np.sign(np.sin(2 * np.pi * 20 * time))))


def _wind(time: Array, rng: np.random.Generator) -> Array:
    gusts = np.convolve(rng.normal(size=len(time)), np.ones(RATE_HZ) / np.sqrt(RATE_HZ), "same")
    return np.asarray(np.exp(gusts) * _noise(time, rng, -1.2, (20, 800)))


def _babble(time: Array, rng: np.random.Generator) -> Array:
    """Six people talk at once."""
    sound = np.zeros(len(time))
    for _ in range(6):
        pitch_hz = rng.uniform(100, 250) * np.exp(0.1 * np.cumsum(rng.normal(size=len(time))) / np.sqrt(RATE_HZ))
        at_s = np.arange(0, time[-1] + 1, 0.15)
        syllables = np.clip(np.interp(time, at_s, rng.normal(0.3, 1, len(at_s))), 0, None)
        phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
        sound += syllables * np.sum([np.sin(k * phase) / k for k in range(1, 7)], axis=0)
    return sound


MADE_UP: Mapping[str, Callable[[Array, np.random.Generator], Array]] = {
    "music": _music, "siren": _siren, "rain": _rain, "applause": _applause, "engine": _engine, "snoring": _snoring,
    "barking": _barking, "metronome": _metronome, "telephone": _telephone, "wind": _wind, "babble": _babble,
}


def made_up(kind: str, rng: np.random.Generator) -> RatedWaveform:
    """One sound of 3 to 12 s, with the noise of a converter."""
    time = np.arange(2 * int(rng.uniform(1.5, 6) * RATE_HZ)) / RATE_HZ
    sound = MADE_UP[kind](time, rng)
    sound *= 10 ** rng.uniform(-1.5, -0.1) / max(float(np.abs(sound).max()), 1e-9)
    return (sound + 10 ** rng.uniform(-4.5, -2.5) * rng.normal(size=len(time))).astype(np.float32), RATE_HZ


def read(named: str) -> list[RatedWaveform]:
    """The readable recordings of `FOLDER` or `FOLDER:PATTERN`, with their rates."""
    folder, _, pattern = named.partition(":")
    found = []
    for path in sorted(Path(folder).rglob(pattern or "*.wav")):
        try:
            samples = sound_files.read(path)
        except sound_files.AudioError as error:
            print(f"left out: {path.name}: {error.reason}")
            continue
        found.append((samples.floats, samples.sample_rate_hz))
    return found


def predict(model: Model, waveforms: Sequence[RatedWaveform]) -> Predictions:
    """Each recording as a unit of its own."""
    return model.predict_audio(waveforms, [str(row) for row in range(len(waveforms))])


def row(found: Predictions) -> dict[str, Any]:
    """How many, the share that is referred, the shares by reason, and the mean confidence."""
    count = len(found.unit_ids)
    checks = Counter(one.check for reasons in found.reasons for one in reasons[:1])
    return {"sounds": count, "referred": sum(v == REFER for v in found.verdicts) / count,
            **{f"for {name}": times / count for name, times in sorted(checks.items())},
            "mean confidence": float(found.confidence.mean())}


def risks(units: Sequence[LabelledPredictions], others: Sequence[Predictions]) -> pd.DataFrame:
    """Columns coverage, with, without: see the head of this file."""
    hearts, sounds = (sum(map(len, ids)) for ids in ([u.unit_ids for u in units], [o.unit_ids for o in others]))
    weight = np.repeat([(1 - SHARE) / hearts, SHARE / sounds], [hearts, sounds])
    confidence = np.concatenate([*(one.confidence for one in units), *(one.confidence for one in others)])
    outside = np.concatenate([*(one.outside for one in units), *([bool(r) for r in one.reasons] for one in others)])
    wrong = np.concatenate([*(one.decisions != one.labels for one in units), np.ones(sounds)])
    table = {"coverage": np.array(COVERAGES)}
    for name, order in (("with", np.lexsort((-confidence, outside))), ("without", np.argsort(-confidence))):
        shown, mistakes = np.cumsum(weight[order]), np.cumsum((weight * wrong)[order])
        last = np.minimum(np.searchsorted(shown, table["coverage"] - 1e-9), len(order) - 1)
        table[name] = mistakes[last] / shown[last]
    return pd.DataFrame(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?")
    parser.add_argument("--others", nargs="*", default=[], metavar="FOLDER[:PATTERN]")
    parser.add_argument("--hearts", nargs="*", default=[], metavar="FOLDER[:PATTERN]")
    parser.add_argument("--each", type=int, default=20, help="sounds of each made-up kind")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    name = asked.task or config.load().tasks[0]
    model, task = Model.load(paths.model(name)), tasks.resolve(name).task
    rng = np.random.default_rng(20261130)
    made = {kind: predict(model, [made_up(kind, rng) for _ in range(asked.each)]) for kind in MADE_UP}
    others = {named: predict(model, read(named)) for named in asked.others}
    hearts = {named: predict(model, read(named)) for named in asked.hearts}
    table = pd.DataFrame({key: row(found) for key, found in (made | others | hearts).items()}).T.fillna(0.0)
    no_hearts = [*made.values(), *others.values()]
    verdicts = [verdict for found in no_hearts for verdict in found.verdicts]
    stored = (paths.evaluation(name) / "predictions.parquet", paths.out_of_fold(name))
    units = [LabelledPredictions.from_table(pd.read_parquet(path), task.classes) for path in stored]
    referral = read_json(paths.evaluation(name) / "metrics.json")["referral"]
    curve = risks(units, no_hearts)
    referred = np.mean([verdict == REFER for verdict in verdicts])
    print(f"{name}\n\n{table.round(2).to_string()}\n\nNo heart: {referred:.3f} of {len(verdicts)} referred\n")
    for part, of_part in referral.items():
        count = sum(entry["units"] for entry in of_part["classes"].values())
        checks = of_part["outside"] or {}
        counts = [f"{check} {c['units']} ({c['wrong']} wrong)" for check, c in checks.items()]
        print(f"{part}: of {count} units the checks refer {', '.join(counts)}")
    print(f"\nRisk at each coverage where {SHARE:.0%} are no heart\n{curve.round(3).to_string(index=False)}")
    robustness = read_json(paths.robustness(name))["conditions"] if paths.robustness(name).exists() else []
    print("\nHeld-out recordings made worse: referred, and referred or right")
    for one in robustness:
        print(f"  {one['title']}, {one['words']}: {one['referred']:.2f}, {one['referred_or_right']:.2f}")
    if asked.json:
        asked.json.write_text(json.dumps({"task": name, "sounds": table.to_dict("index"), "held_out": referral,
                                          "risk": curve.to_dict("records")}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
