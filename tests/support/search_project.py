"""A small searched project: folds, frames and annotations made up directly, so that search and ensemble take seconds.

A `Present` child's systole is louder in the upper bands at two of its three locations; `Unknown` ones are noise.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from heartml.core import frame_store, paths, schema
from heartml.models import encoders

ROOT = Path(__file__).parents[2]
NAME = "simulated-murmur"
RATE_HZ = {"logspec": 50.0, "random_conv": 12.5}
DIM = {"logspec": 8, "random_conv": 12}
LOCATIONS = ("AV", "PV", "MV")
FRAMES = 150
BEAT = ("S1", "systole", "S2", "diastole")
BEAT_FRAMES = (5, 12, 5, 18)


class _Plain(yaml.SafeDumper):
    """Writes what stands in two places twice: `params.yaml` takes no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def write(root: Path, *, children: int = 45, folds: int = 3, seed: int = 0, **search: object) -> None:
    """Make the project in `root`, which must be the working folder when it is used; `search`: parameters replaced."""
    rng = np.random.default_rng(seed)
    labels = [("Present", "Absent", "Unknown")[(c % 5) % 3] for c in range(children)]
    rows = [(f"{c:03}{location}" + "0" * 8, c, location) for c in range(children) for location in LOCATIONS]
    label_here = {r: labels[c] if labels[c] != "Present" or where != "MV" else "Absent" for r, c, where in rows}
    _write_tables(root, rows, labels, label_here, folds)
    params = _params(root, search)
    for encoder, rate_hz in RATE_HZ.items():
        of_recording = {r: _frames(label_here[r], encoder, rng) for r, _, _ in rows}
        made = encoders.spec(encoder, params).to_json()
        frame_store.write(root / paths.features(NAME, encoder), of_recording, rate_hz, made)


def _params(root: Path, search: dict[str, object]) -> "encoders.Params":
    from heartml.core import config

    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["tasks"] = [NAME]
    values["applicability"] = None      # made-up frames are no sound, and have eight bands
    values["search"] = {**values["search"], "workers": 1, **search}
    (root / "params.yaml").write_text(yaml.dump(values, Dumper=_Plain))
    return config.load(root / "params.yaml")


def _write_tables(root: Path, rows: list[tuple[str, int, str]], labels: list[str], label_here: dict[str, str],
                  folds: int) -> None:
    (root / "data").mkdir(exist_ok=True)
    ids = [r for r, _, _ in rows]
    children = [f"simulated-{c}" for _, c, _ in rows]
    known = dict.fromkeys(schema.RECORDINGS, "x")
    table = pd.DataFrame({"recording_id": ids}).assign(**{k: v for k, v in known.items() if k != "recording_id"})
    table = table.assign(dataset="simulated", patient_id=children, group_id=children, sample_rate_hz=4000,
                         seconds=FRAMES / 50 + 0.03, location=[where for _, _, where in rows],
                         label_murmur=[labels[c] for _, c, _ in rows], label_murmur_here=[label_here[r] for r in ids])
    schema.conform(table, schema.RECORDINGS, "recordings").to_parquet(root / paths.RECORDINGS)
    of_fold = pd.DataFrame({
        "recording_id": ids, "unit_id": children, "group_id": children, "label": [labels[c] for _, c, _ in rows],
        "part": [str((c // 5) % (folds + 1)).replace(str(folds), "test") for _, c, _ in rows],
    })
    (root / paths.ARTIFACTS / NAME).mkdir(parents=True, exist_ok=True)
    schema.conform(of_fold, schema.FOLDS, "folds").to_parquet(root / paths.folds(NAME))
    ends = np.cumsum(np.tile(BEAT_FRAMES, 3)) / 50
    beats = pd.DataFrame({"start_s": np.append(0, ends[:-1]), "end_s": ends, "state": BEAT * 3})
    annotations = pd.concat([beats.assign(recording_id=r) for r in ids])
    schema.conform(annotations, schema.ANNOTATIONS, "annotations").to_parquet(root / paths.ANNOTATIONS)


def _frames(label: str, encoder: str, rng: np.random.Generator) -> np.ndarray:
    """Log energies with beats of 40 frames at 50 a second."""
    state = np.resize(np.repeat(np.arange(4), BEAT_FRAMES), FRAMES)
    loud = np.array([3.0, 0.0, 2.5, 0.0])[state][:, None] * np.linspace(1, 0.3, DIM[encoder])
    if label == "Present":
        loud = loud + (state == 1)[:, None] * np.linspace(0, 2.0, DIM[encoder])
    if label == "Unknown":
        loud = loud * 0.4 + rng.normal(0, 0.8, loud.shape)
    step = round(50 / RATE_HZ[encoder])
    return (loud + rng.normal(0, 1.0, loud.shape))[::step].astype(np.float16)
