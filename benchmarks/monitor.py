"""How often monitoring raises a false alarm, and how often it detects a real drift, with intervals.

python benchmarks/monitor.py SOURCE MODEL [--other SOURCE2] [--label LABEL] [--rounds 200] [--seconds 170] [--json FILE]

Run it in a project with ingested data. SOURCE is a part of the data with a sensor of its own (column `source` of
data/recordings.parquet: set_b, CC2015), SOURCE2 is another one, MODEL is a folder. One recording of each patient is
drawn and scored with the model, as it is and degraded (heartml/evaluation/perturbations.py), by the code behind
`heartml score`. Measurements are cached in .heartml/benchmark, so a run that ended after --seconds goes on.

Then patients are shuffled `rounds` times: some are the reference, others are new. As they are they must raise no alarm;
degraded they should. `LABEL` names a class (`sound=murmur`): the new patients are then mostly of that class. The row
"recordings counted as patients" shows what happens without groups: the same split of patients, but with all their
recordings, each counted as independent. Intervals are Wilson's, 95 %.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from heartml.audio import sound_files
from heartml.audio.sound_files import Samples
from heartml.core import config, paths
from heartml.core.config import MonitorParams
from heartml.core.system.files import read_json, write_json, write_parquet
from heartml.core.system.hashing import sha256
from heartml.core.system.parallel import single_thread
from heartml.evaluation.perturbations import PERTURBATIONS
from heartml.inference import batch, inputs, model_lookup, model_set
from heartml.inference.monitoring import drift, reference
from heartml.inference.monitoring.drift import DRIFT
from heartml.inference.prediction_cache import PredictionCache

REFERENCE = 100
SIZES = (20, 60)
DEGRADED = (("gain_db", -6.0), ("gain_db", -20.0), ("lowpass_hz", 400.0), ("lowpass_hz", 200.0), ("white_snr_db", 10.0),
         ("white_snr_db", 0.0))
PERMUTATIONS = 1199          # enough for a p that Holm's correction leaves below alpha
NOTHING, UNGROUPED = "nothing", "nothing, recordings counted as patients"
MIXED = 0.75                 # share of the named class among new patients
CACHE = paths.STATE / "benchmark"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("model", type=Path)
    parser.add_argument("--other")
    parser.add_argument("--label")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=170.0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    single_thread()
    ends = time.monotonic() + asked.seconds
    recordings = pd.read_parquet(paths.RECORDINGS).rename(columns={"group_id": "group"})
    own = recordings[recordings["source"] == asked.source].assign(group_id=lambda t: t["patient_id"])
    conditions = {f"{PERTURBATIONS[kind].title}, {PERTURBATIONS[kind].level_in_words(level)}": (kind, level)
                  for kind, level in DEGRADED}
    whole = measured(own, None, asked.model, ends)
    pool = reference.one_per_group(whole)
    disturbed = {name: measured(own[own["recording_id"].isin(pool["recording_id"])], how, asked.model, ends)
                 for name, how in conditions.items()}
    if asked.other:
        other = recordings[recordings["source"] == asked.other].assign(group_id=lambda t: t["recording_id"])
        disturbed[f"another sensor ({asked.other})"] = measured(other, None, asked.model, ends)
    params = config.load().monitor.model_copy(update={"permutations": PERMUTATIONS})
    found = rates(Pools(pool, whole, disturbed, asked.label), params, asked.rounds, ends)
    show(found, asked)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))


def measured(table: pd.DataFrame, how: tuple[str, float] | None, model: Path, ends: float) -> pd.DataFrame:
    """Rows of `table` with predictions and measurements, of degraded recordings where `how` is given.

    Each recording is a unit of its own.
    """
    folder = CACHE / (f"{how[0]}{how[1]:g}" if how else "as-it-is")
    cached = CACHE / f"{folder.name}-{sha256(''.join(table['recording_id']).encode())[:12]}.parquet"
    if cached.exists():
        return pd.read_parquet(cached)
    for recording_id in table["recording_id"]:
        if not (folder / f"{recording_id}.flac").exists():
            write(recording_id, how, folder)
    files = [folder / f"{recording_id}.flac" for recording_id in table["recording_id"]]
    located, params = model_lookup.locate(str(model), None, config.load().tasks), config.load()
    plan = batch.ScoringPlan(located, model_set.load(located), inputs.gather(files), params)
    rows = []
    for number in range(len(plan.blocks)):
        if time.monotonic() > ends:
            raise SystemExit(f"out of time at {folder.name}: run it again, it goes on from here")
        rows += [row for row in batch.score_block(plan, number).rows if "fault" not in row]
    predictions = pd.DataFrame(rows).assign(original=[Path(row["path"]).stem for row in rows])
    with PredictionCache.open(plan.cache_file) as cache:
        known = cache.measurements(list(predictions["recording_id"]))
    more = pd.DataFrame([{**known[i][0], "embedding": np.frombuffer(known[i][1], np.float32)}
                         for i in predictions["recording_id"]])
    predictions = pd.concat([predictions[["original", "leaning", "confidence"]], more], axis=1)
    facts = table.drop(columns=[c for c in more if c in table])
    whole = facts.merge(predictions, left_on="recording_id", right_on="original")
    write_parquet(cached, whole)
    return whole


def write(recording_id: str, how: tuple[str, float] | None, folder: Path) -> None:
    """Write one recording as FLAC, as it is or degraded."""
    samples = sound_files.read(paths.audio(recording_id))
    if how:
        kind, level = how
        rng = np.random.default_rng(int(recording_id[:8], 16))
        waveform = PERTURBATIONS[kind].apply(samples.floats, samples.sample_rate_hz, level, rng, (25, 800))
        samples = Samples(np.clip(np.rint(waveform * 2**15), -(2**15), 2**15 - 1).astype(np.int16),
                          samples.sample_rate_hz)
    sound_files.write_flac(folder / f"{recording_id}.flac", samples)


@dataclass(frozen=True)
class Pools:
    """What the rounds draw from.

    Attributes:
        drawn: one recording of each patient.
        whole: all recordings of these patients.
        disturbed: condition -> the drawn recordings, degraded; or those of another sensor.
        label: `column=class` of the class that is mixed in.
    """

    drawn: pd.DataFrame
    whole: pd.DataFrame
    disturbed: Mapping[str, pd.DataFrame]
    label: str | None

    @property
    def conditions(self) -> list[str]:
        """Names of the rows of the table: what has changed."""
        mixed = [f"mostly {self.label.partition('=')[2]}"] if self.label else []
        return [NOTHING, *mixed, *self.disturbed, UNGROUPED]

    def sides(self, name: str, size: int, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame] | None:
        """Reference and new of one round, or `None` where there are not enough of a class."""
        order = rng.permutation(self.drawn["group_id"].to_numpy())
        before, after = order[:REFERENCE], order[REFERENCE : REFERENCE + size]
        table = self.whole if name == UNGROUPED else self.drawn
        base = table[table["group_id"].isin(before)]
        if name in (NOTHING, UNGROUPED):
            return base, table[table["group_id"].isin(after)]
        if name in self.disturbed:
            other = self.disturbed[name]
            own = other[other["group_id"].isin(after)]
            return base, own if len(own) else other.sample(size, random_state=int(rng.integers(2**31)))
        mixed = _mixed(table[~table["group_id"].isin(before)], str(self.label), size, rng)
        return None if mixed is None else (base, mixed)


def rates(pools: Pools, params: MonitorParams, rounds: int, ends: float) -> list[dict[str, object]]:
    """Condition and size -> share of the rounds with an alarm, its interval, and which measures raised it."""
    found = []
    for name in pools.conditions:
        for size in SIZES:
            cached = CACHE / f"{sha256(f'{name} {size} {rounds} {len(pools.drawn)}'.encode())[:12]}.json"
            if not cached.exists():
                alarms: list[set[str]] = []
                for seed in range(rounds):
                    if time.monotonic() > ends:
                        raise SystemExit(f"out of time at {name}, {size}: run it again, it goes on from here")
                    rng = np.random.default_rng([size, seed])
                    if (sides := pools.sides(name, size, rng)) is not None:
                        alarms.append(_alarms(*sides, params, rng))
                write_json(cached, _row(name, size, alarms) if alarms else None)
            found += [row] if (row := read_json(cached)) else []
    return found


def _mixed(rest: pd.DataFrame, label: str, size: int, rng: np.random.Generator) -> pd.DataFrame | None:
    column, _, wanted = label.partition("=")
    is_class = rest[f"label_{column}"] == wanted
    many = round(MIXED * size)
    if is_class.sum() < many or (~is_class).sum() < size - many:
        return None
    seeds = [int(rng.integers(2**31)) for _ in range(2)]
    return pd.concat([rest[is_class].sample(many, random_state=seeds[0]),
                      rest[~is_class].sample(size - many, random_state=seeds[1])])


def _alarms(base: pd.DataFrame, new: pd.DataFrame, params: MonitorParams, rng: np.random.Generator) -> set[str]:
    return {f.measure.column for f in drift.compare(base, new, params, rng) if f.state == DRIFT}


def _row(name: str, size: int, alarms: list[set[str]]) -> dict[str, object]:
    from scipy.stats import binomtest

    count = sum(map(bool, alarms))
    low, high = binomtest(count, len(alarms)).proportion_ci(method="wilson")
    by = pd.Series([measure for raised in alarms for measure in raised], dtype=str).value_counts()
    return {"drift": name, "new": size, "rounds": len(alarms), "alarms": count / len(alarms), "low": float(low),
            "high": float(high), "measures": {str(k): int(v) for k, v in by.items()}}


def show(found: list[dict[str, object]], asked: argparse.Namespace) -> None:
    """Print the table: one row for each condition, one column for each size."""
    table = Table(title=f"{asked.source}: share of {asked.rounds} rounds with an alarm, {REFERENCE} reference patients")
    for column in ("what changed", *(f"{size} new patients" for size in SIZES), "measures"):
        table.add_column(column)
    for name in dict.fromkeys(row["drift"] for row in found):
        own = {row["new"]: row for row in found if row["drift"] == name}
        cells = [_cell(own.get(size)) for size in SIZES]
        seen = list(max(own.items())[1]["measures"])[:3]
        table.add_row(str(name), *cells, ", ".join(seen))
    Console(width=170).print(table)


def _cell(row: dict[str, object] | None) -> str:
    return f"{row['alarms']:.1%} [{row['low']:.1%}, {row['high']:.1%}]" if row else ""


if __name__ == "__main__":
    main()
