"""A small finished project in a folder: recordings, validation, folds and predictions as the stages leave them.

Everything is drawn from a seed, so that a test can say what it expects. The signal is a beat of two bursts with noise
between them for a murmur; the predictions follow the labels as far as `skill` says.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from heartml.audio import quality
from heartml.audio.sound_files import Samples, write_flac
from heartml.core import config, paths, schema, tasks
from heartml.core.system import files
from heartml.evaluation import heart_states, inputs, prediction_tables, robustness
from heartml.evaluation.robustness import Condition
from heartml.models.fitted_model import Predictions
from heartml.reporting.outline import Lineage, Node
from heartml.stages import evaluate

TASK = "simulated-murmur"
CLASSES = ("Present", "Unknown", "Absent")
RATE_HZ = 4000
ROOT = Path(__file__).parents[2]


def draw_heart_sound(
    rng: np.random.Generator, seconds: float, murmur: bool
) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """Samples int16 [time] of regular heart beats, and their annotated states."""
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    sound = rng.normal(0, 0.003, len(time_s))
    states, start, period = [], 0.1, rng.uniform(0.55, 0.8)
    hiss = np.convolve(rng.normal(0, 1, len(time_s)), np.hanning(12), "same") * 0.01
    while start + period < seconds:
        for at, pitch_hz, loudness in ((start, 45, 0.4), (start + 0.32 * period, 60, 0.3)):
            sound += loudness * np.sin(2 * np.pi * pitch_hz * time_s) * np.exp(-(((time_s - at - 0.05) / 0.02) ** 2))
        edges = [start, start + 0.1, start + 0.32 * period, start + 0.32 * period + 0.1, start + period]
        states += [(edges[i], edges[i + 1], name) for i, name in enumerate(schema.STATES)]
        if murmur:
            sound += hiss * ((time_s > edges[1]) & (time_s < edges[2])) * 4
        start += period
    return np.clip(sound * 30000, -32768, 32767).astype(np.int16), states


def draw_recordings(rng: np.random.Generator, children: int, names: dict[str, str]) -> pd.DataFrame:
    """Children with one to four locations, one in twelve under two ids; audio is added later."""
    rows = []
    for child in range(children):
        label = str(rng.choice(CLASSES, p=[0.3, 0.15, 0.55]))
        age, sex = rng.choice(["Infant", "Child", "Adolescent"]), rng.choice(["Female", "Male"])
        for patient in [f"simulated-{100 + child}", f"simulated-{500 + child}"][: 1 + (child % 12 == 0)]:
            of_patient = {
                "recording_id": "", "dataset": "simulated", "source": str(rng.choice(["CC2014", "CC2015"])),
                "patient_id": names.get(patient, patient), "group_id": f"simulated-{100 + child}",
                "sample_rate_hz": RATE_HZ, "seconds": 0.0,
                "age_group": None if child % 9 == 0 else str(age), "sex": str(sex),
                "source_sha256": "0" * 64, "licence": "Apache-2.0",
                "label_murmur": label, "label_murmur_here": label,
            }
            rows += [{**of_patient, "location": location, "source_file": f"{patient}_{location}.wav"}
                     for location in ("AV", "PV", "TV", "MV")[: rng.integers(1, 5)]]
    return pd.DataFrame(rows)


def write_audio(table: pd.DataFrame, rng: np.random.Generator, seconds: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give every recording samples; returns the table with ids, and the annotations."""
    ids, lengths, annotations = [], [], []
    for label in table["label_murmur"]:
        pcm, states = draw_heart_sound(rng, seconds * rng.uniform(0.8, 1.2), label == "Present")
        samples = Samples(pcm, RATE_HZ)
        write_flac(paths.audio(samples.recording_id), samples)
        ids.append(samples.recording_id)
        lengths.append(samples.seconds)
        annotations += [(samples.recording_id, *state) for state in states]
    return table.assign(recording_id=ids, seconds=lengths), pd.DataFrame(annotations, columns=list(schema.ANNOTATIONS))


def measure_signals(table: pd.DataFrame) -> pd.DataFrame:
    """Signal measurements as `validate` writes them."""
    rows = []
    for recording_id in table["recording_id"]:
        waveform, rate_hz = soundfile.read(paths.audio(recording_id), dtype="float32")
        rows.append({"recording_id": recording_id, **vars(quality.measure(waveform, rate_hz))})
    return pd.DataFrame(rows)


def draw_folds(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """A fifth of the groups held out, the rest in four folds."""
    groups = table["group_id"].unique()
    part = dict(zip(groups, rng.permutation(np.resize(["test", "0", "1", "2", "3"], len(groups))), strict=True))
    folds = table.assign(unit_id=table["patient_id"], label=table["label_murmur"], part=table["group_id"].map(part))
    return schema.conform(folds[list(schema.FOLDS)], schema.FOLDS, "folds")


def draw_probabilities(labels: np.ndarray, rng: np.random.Generator, skill: float) -> np.ndarray:
    """Probabilities [n, k] that follow the labels as far as `skill` says; 0: not at all."""
    logits = skill * np.eye(len(CLASSES))[labels] + rng.gumbel(0, 1, (len(labels), len(CLASSES)))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def draw_predictions(folds: pd.DataFrame, rng: np.random.Generator, skill: float) -> Predictions:
    """Predictions of a model of that skill, for units and recordings."""
    units = folds.drop_duplicates("unit_id")
    of_unit = draw_probabilities(np.array([CLASSES.index(x) for x in units["label"]]), rng, skill)
    of_recording = draw_probabilities(np.array([CLASSES.index(x) for x in folds["label"]]), rng, skill)
    softened = np.sqrt(of_unit) / np.sqrt(of_unit).sum(axis=1, keepdims=True)
    return Predictions(tuple(units["unit_id"]), CLASSES, of_unit, softened, of_unit.argmax(axis=1), of_recording, 0.5)


def write_project(root: Path, monkeypatch, *, children: int = 60, seconds: float = 3.0, skill: float = 3.0,
                  seed: int = 0, names: dict[str, str] | None = None) -> config.Params:
    """Build everything up to the out-of-fold predictions in `root`, and make it the working folder."""
    monkeypatch.chdir(root)
    shutil.copy(ROOT / "params.yaml", root)
    rng = np.random.default_rng(seed)
    recordings, annotations = write_audio(draw_recordings(rng, children, names or {}), rng, seconds)
    files.write_parquet(paths.RECORDINGS, schema.conform(recordings, schema.RECORDINGS, "recordings"))
    files.write_parquet(paths.ANNOTATIONS, schema.conform(annotations, schema.ANNOTATIONS, "annotations"))
    files.write_parquet(paths.VALIDATION / "signal.parquet", measure_signals(recordings))
    files.write_parquet(paths.VALIDATION / "groups.parquet", recordings[["recording_id", "group_id"]])
    folds = draw_folds(recordings, rng)
    files.write_parquet(paths.folds(TASK), folds)
    write_out_of_fold(folds[folds["part"] != "test"], rng, skill)
    return config.load()


def write_out_of_fold(rest: pd.DataFrame, rng: np.random.Generator, skill: float) -> None:
    """Out-of-fold predictions of a model of that skill for the units that are not held out."""
    units = rest.drop_duplicates("unit_id").set_index("unit_id")
    table = prediction_tables.predictions_table(draw_predictions(rest, rng, skill), units)
    files.write_parquet(paths.out_of_fold(TASK), table)


def write_evaluated_project(root: Path, monkeypatch, *, skill: float = 3.0, **options) -> dict:
    """A project with its evaluation; returns what stands in `metrics.json`."""
    params = write_project(root, monkeypatch, skill=skill, **options)
    recordings = inputs.read_recordings(TASK, params.validate_)
    held_out = recordings[recordings["part"] == "test"]
    predictions = draw_predictions(held_out, np.random.default_rng(1), skill)
    return evaluate.write_evaluation(TASK, predictions, recordings, params)


def write_robustness(rng: np.random.Generator) -> None:
    """The result of the stage `robustness`, for a model whose skill differs from condition to condition."""
    params, folds = config.load(), pd.read_parquet(paths.folds(TASK))
    held_out = folds[folds["part"] == "test"]
    conditions = [Condition(kind, level) for kind, level in (
        ("white_snr_db", 20.0), ("white_snr_db", 0.0), ("speech_snr_db", 20.0), ("speech_snr_db", 0.0),
        ("lowpass_hz", 200.0), ("clock_share", -0.02))]
    predictions = [draw_predictions(held_out, rng, skill) for skill in (3.0, 3.0, 0.2, 3.0, 1.0, 0.5, 3.0)]
    rules = robustness.RobustnessRules(tasks.resolve(TASK).task, params.evaluate, params.seed)
    files.write_json(paths.robustness(TASK), {
        "assignment": TASK, "held_out_units": held_out["unit_id"].nunique(),
        **robustness.compare_conditions(predictions, conditions, held_out, rules)})


def write_search(rng: np.random.Generator) -> None:
    """Trials and a model's description as `search` and `ensemble` leave them."""
    rows = [{
        "trial": number, "state": "PRUNED" if number % 5 == 4 else "COMPLETE",
        "value": None if number % 5 == 4 else float(np.clip(rng.normal(0.6 + 0.05 * (number % 3), 0.04), 0, 1)),
        "folds": 1 if number % 5 == 4 else 4, "encoder": ("logspec", "random_conv")[number % 2],
        "level": ("recording", "unit")[number % 2], "pooling": (None, "statistics", "modulation")[number % 3],
        "head": ("sequence", "logistic", "trees")[number % 3], "numbers": "{}",
    } for number in range(24)]
    files.write_parquet(paths.search(TASK) / "trials.parquet", pd.DataFrame(rows))
    columns = ("trial", "encoder", "level", "pooling", "head")
    files.write_json(paths.model(TASK) / "model.json", {
        "members": [{key: rows[n][key] for key in columns} for n in (2, 6, 9)],
        "readings": [{"trials": [n], "kind": kind, "weight": weight}
                     for n, kind, weight in ((2, "mean", 0.5), (6, "stack", 0.25), (9, "stack", 0.25))],
    })


def write_heart_states() -> None:
    """Heart states of one held-out recording, and how well such agree with annotations."""
    folds, annotations = pd.read_parquet(paths.folds(TASK)), pd.read_parquet(paths.ANNOTATIONS)
    one = folds.loc[folds["part"] == "test", "recording_id"].iloc[0]
    numbers = {"recordings": 20, "frame_accuracy": 0.87, "s1_f1": 0.95, "s2_f1": 0.94, "heart_rate_told": 1.0,
               "heart_rate_error_median_per_min": 1.4, "heart_rate_error_p90_per_min": 6.5}
    heart_states.save(TASK, [annotations[annotations["recording_id"] == one]],
               {"network": numbers, "by_loudness": {**numbers, "s1_f1": 0.47}})


def write_quarantine() -> None:
    """A quarantine and the result of validation."""
    rows = [("simulated", "50031_AV.wav", "simulated-50031", "truncated", "the header promises 40000 samples"),
            ("simulated", "50077_MV.wav", "simulated-50077", "silent", "the peak is 0.0001 of full scale"),
            ("simulated", "50012_PV.wav", "simulated-50012", "duplicate", "the same samples as 50012_AV.wav")]
    files.write_parquet(paths.QUARANTINE, pd.DataFrame(rows, columns=list(schema.QUARANTINE)))
    warnings = ["Recordings are not muffled: not so for 3 of 398 (50021_AV.wav [1f00aa21]). Listen to them.",
                "Every class has ten groups: not so for 1 of 3 (simulated murmur Unknown with 9). Ingest more."]
    files.write_json(paths.VALIDATION / "validation.json", {"success": True, "errors": [], "warnings": warnings})


def write_reported_project(root: Path, monkeypatch, **options) -> dict:
    """Everything that the report reads."""
    found = write_evaluated_project(root, monkeypatch, **options)
    write_robustness(np.random.default_rng(3))
    write_search(np.random.default_rng(2))
    write_heart_states()
    write_quarantine()
    return found


def gate_verdict(*, promote: bool, reason: str = "promoted: better", champion: str | None = "3") -> dict:
    """The gate's verdict and the version, as the retraining flow passes them to the report."""
    difference = {"value": 0.04, "low": 0.01 if promote else -0.02, "high": 0.09, "p": 0.012}
    compared = {
        "units": 63, "groups": 60, "evidence": {"held_out": 13, "out_of_fold": 50, "mixed": 0, "new": 0}, "trained": 0,
        "unknown": 0, "difference": difference, "subgroups": {}, "challenger": {}, "champion": {},
        "champion_held_out": {"weighted_accuracy_and_uar": 0.71, "weighted_accuracy": 0.69, "uar": 0.73,
                              "macro_auc": 0.88, "accuracy": 0.74, "macro_f1": 0.7},
    } if champion else None
    criteria = [{"name": "better", "passed": promote, "value": difference["low"], "required": 0.0,
                 "words": "log loss better by +0.040 than champion 3 at 97% (look 1) on 63 units in 60 groups"},
                {"name": "validation", "passed": True, "value": 0.0, "required": 0.0,
                 "words": "the data passed validation (2 warnings)"}]
    return {"promote": promote, "reason": reason, "criteria": criteria, "comparison": compared, "champion": champion,
            "version": "4", "run_id": "0f3a", "verdict": "promoted" if promote else "refused"}


def lineage_outline(run_id: str = "0f3a") -> Lineage:
    """The lineage of a registered version, as `heartml.lineage.page.section` returns it."""
    return Lineage(
        Node(TASK, "version 4, champion, promoted", under=(
            Node("Run", "FINISHED", run_id), Node("Code", "commit", "87767dafd0" * 4),
            Node("Data", "402 files", "d41d8cd98f00b204e9800998ecf8427e.dir", open=True, under=(
                Node("simulated", "398 recordings", under=(
                    Node("50031_AV.wav", f"fold 1, recording {run_id}", "ab" * 32),)),
            )), Node("Missing", "nothing: every link was found"))),
        (Node("version", "4"), Node("run", digest=run_id), Node("commit", digest="87767dafd0" * 4), Node("complete")))
