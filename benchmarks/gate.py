"""How often the gate promotes a challenger that is better, and one that is not.

    python benchmarks/gate.py simulated [--draws 200] [--json FILE]
    python benchmarks/gate.py real TASK [--rounds 12] [--json FILE]      # circor-murmur or pascal-sounds
    python benchmarks/gate.py seeds TASK [--rounds 30] [--json FILE]

`simulated`: units with CirCor's classes, of which 80 are held out and 340 out of fold. The truth is known: the
challenger's recalls are better by .10 in every class, by .05, or equal. `real`, in a project with ingested data: cheap
models (pooled `logspec` vectors of a unit) on real recordings. Each round draws other held-out groups and folds, and
fits models of several recipes and seeds, each of them out of fold as well. The truth is the mean over all rounds.
`seeds` does no more than compare each of ten models with one that differs in nothing but the seed.

Both judge with the code of the gate: log loss at the confidence of the look, the task's metric, the Brier score. The
peer is the rule that HeartML had: the percentile interval of the task's metric on held-out units, at 95 % each time.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from coverage import CLASSES, SECOND_ID, SHARES

from heartml.audio import sound_files
from heartml.core import config, paths, tasks
from heartml.core.schema import TEST, label_column
from heartml.core.tasks import TASKS, Task
from heartml.metrics import METRICS, paired_bootstrap
from heartml.metrics.scores import LabelledPredictions
from heartml.models import encoders, pooling
from heartml.release import champion_comparison, champion_criteria, looks
from heartml.release.champion_comparison import Champion

LOOKS = 10
HELD_OUT, OUT_OF_FOLD = 80, 340
SKILLS = {"equal": 0.0, "better by .05 in every recall": 0.05, "better by .10 in every recall": 0.10}
BASE_RECALL, OWN_NOISE = 0.65, 0.6                   # share of the noise that two models do not share
PARAMS = config.load(Path(__file__).parents[1] / "params.yaml").gate.model_copy(update={"bootstrap": 1000})
CACHE = paths.STATE / "benchmark"


def judge(task: Task, challenger: LabelledPredictions, champion: LabelledPredictions, look: int) -> dict[str, bool]:
    """Whether the gate promotes on all units, on the held-out ones alone, and by the rule that HeartML had.

    The last two do not depend on the look, or are asked at the first one alone.
    """
    held_out = challenger.parts == TEST
    own, other = challenger.take(held_out), champion.take(held_out)
    first = {"held out": _promotes(task, own, other, look)} if look == 1 else {}
    return {"all": _promotes(task, challenger, champion, look), **first, "old rule": _old_rule(task, own, other)}


def _promotes(task: Task, challenger: LabelledPredictions, champion: LabelledPredictions, look: int) -> bool:
    folds = pd.DataFrame({"recording_id": challenger.unit_ids, "unit_id": challenger.unit_ids,
                          "group_id": challenger.groups, "part": challenger.parts})
    found = champion_comparison.compare(
        task, challenger, Champion("1", champion, folds[["recording_id", "part"]]), folds,
        pd.DataFrame(index=challenger.unit_ids), PARAMS, np.random.default_rng(0),
        looks.take(look, PARAMS.confidence))
    return all(criterion.passed for criterion in (
        champion_criteria.better_than_champion("1", found, PARAMS),
        champion_criteria.metric_holds(METRICS[task.metric], found, PARAMS),
        champion_criteria.as_well_calibrated(found, PARAMS.calibration_margin)))


def _better(challenger: LabelledPredictions, champion: LabelledPredictions, look: int) -> bool:
    """The criterion about the log loss alone, which lets pass more than all criteria together."""
    sides = ((of.calibrated, of.decisions) for of in (challenger, champion))
    return paired_bootstrap(
        METRICS["log_loss"], challenger.labels, *sides, challenger.classes, challenger.groups,
        resamples=PARAMS.bootstrap, confidence=looks.take(look, PARAMS.confidence).confidence,
        rng=np.random.default_rng(0)).high < 0


def _old_rule(task: Task, challenger: LabelledPredictions, champion: LabelledPredictions) -> bool:
    metric, rng = METRICS[task.metric], np.random.default_rng(0)
    _, group = np.unique(challenger.groups, return_inverse=True)
    count = int(group.max()) + 1
    weights = rng.multinomial(count, np.full(count, 1 / count), size=PARAMS.bootstrap)[:, group].astype(float)
    drawn = [metric.weighted(challenger.labels, of.probabilities, of.decisions, challenger.classes, weights)
             for of in (challenger, champion)]
    return bool(np.nanquantile(drawn[0] - drawn[1], 0.025) > 0)


class Simulation:
    """Units with CirCor's classes, and models of any skill that share part of their noise.

    Args:
        recalls: of the models to come; the skill behind each is found on 200,000 units.
    """

    def __init__(self, recalls: Sequence[float], rng: np.random.Generator) -> None:
        from sklearn.linear_model import LogisticRegression

        self.rng, self.skills, self.calibrators = rng, {}, {}
        labels = rng.choice(3, p=SHARES, size=200_000)
        noise = self._noise(len(labels), np.arange(len(labels)))
        for recall in recalls:
            low, high = 0.0, 8.0
            for _ in range(30):
                middle = (low + high) / 2
                right = ((middle * np.eye(3)[labels] + noise).argmax(axis=1) == labels).mean()
                low, high = (middle, high) if right < recall else (low, middle)
            self.skills[recall] = middle
            self.calibrators[recall] = LogisticRegression(max_iter=300).fit(
                (middle * np.eye(3)[labels] + noise)[:20_000], labels[:20_000])

    def _noise(self, units: int, group: np.ndarray) -> np.ndarray:
        shared = self.rng.normal(size=(int(group.max()) + 1, 3))[group] + self.rng.normal(size=(units, 3))
        return np.sqrt(1 - OWN_NOISE) * shared / np.sqrt(2) + np.sqrt(OWN_NOISE) * self.rng.normal(size=(units, 3))

    def draw(self, recalls: Sequence[float], held_out: int, out_of_fold: int) -> list[LabelledPredictions]:
        """One model of each recall, all on the same new units."""
        units = held_out + out_of_fold
        group = np.cumsum(self.rng.random(units) > SECOND_ID)
        by_group = self.rng.choice(3, p=SHARES, size=units + 1)
        labels = by_group[group]
        shared = (self.rng.normal(size=(units + 1, 3))[group] + self.rng.normal(size=(units, 3))) / np.sqrt(2)
        parts = np.where(np.arange(units) < held_out, TEST, "0")
        models = []
        for recall in recalls:
            own = self.rng.normal(size=(units, 3))
            logits = (self.skills[recall] * np.eye(3)[labels] + np.sqrt(1 - OWN_NOISE) * shared
                      + np.sqrt(OWN_NOISE) * own)
            p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            models.append(LabelledPredictions(
                np.arange(units).astype(str), group.astype(str), parts, labels, logits.argmax(axis=1), p,
                self.calibrators[recall].predict_proba(logits), CLASSES))
        return models


def simulated(draws: int) -> dict[str, Any]:
    """Promotions of one challenger at the first, fifth and tenth look, and of any of ten equal ones."""
    task, rng = TASKS["murmur"], np.random.default_rng(11)
    simulation = Simulation([BASE_RECALL + gain for gain in SKILLS.values()], rng)
    counted: dict[str, list[bool]] = defaultdict(list)
    for _ in range(draws):
        for name, gain in SKILLS.items():
            challenger, champion = simulation.draw([BASE_RECALL + gain, BASE_RECALL], HELD_OUT, OUT_OF_FOLD)
            for look in (1, 5, 10):
                for rule, passed in judge(task, challenger, champion, look).items():
                    counted[f"{name} | look {look} | {rule}"].append(passed)
    for _ in range(3 * draws):
        champion, *equal = simulation.draw([BASE_RECALL] * (LOOKS + 1), HELD_OUT, OUT_OF_FOLD)
        held_out = champion.parts == TEST
        counted["any of ten equal ones | looks 1 to 10 | all, log loss alone"].append(
            any(_better(one, champion, look) for look, one in enumerate(equal, start=1)))
        counted["any of ten equal ones | looks 1 to 10 | old rule"].append(
            any(_old_rule(task, one.take(held_out), champion.take(held_out)) for one in equal))
    return {name: _share(passed) for name, passed in counted.items()}


def _share(passed: Sequence[bool]) -> dict[str, float]:
    """A share with Wilson's interval of 95 %."""
    n, p, z = len(passed), float(np.mean(passed)), 1.96
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return {"n": n, "share": p, "low": max(0.0, low), "high": high}


def vectors(assignment: tasks.Assignment) -> pd.DataFrame:
    """unit_id, group_id, label and the columns `v<n>` of each unit: pooled `logspec` frames; cached by task."""
    file = CACHE / f"vectors-{assignment.name}.parquet"
    if file.exists():
        return pd.read_parquet(file)
    task, params = assignment.task, config.load()
    table, column = pd.read_parquet(paths.RECORDINGS), label_column(assignment.task.label)
    table = table[table["dataset"].isin(assignment.datasets) & table[column].isin(task.classes)]
    spec = encoders.spec("logspec", params)
    encoder = encoders.load(spec)
    rate_hz = 1 / params.encoder_parameters["logspec"]["hop_s"]
    rows = []
    for recording_id in table["recording_id"]:
        samples = sound_files.read(paths.audio(recording_id))
        frames = encoders.frames_of(encoder, spec, samples.floats, samples.sample_rate_hz)
        rows.append(pooling.pool("moments", [frames], rate_hz)[0])
    unit = table["patient_id"] if task.unit == "patient" else table["recording_id"]
    names, number = np.unique(unit.to_numpy(str), return_inverse=True)
    first = table.assign(unit_id=unit.astype(str)).drop_duplicates("unit_id").set_index("unit_id").loc[names]
    pooled = pd.DataFrame(np.nan_to_num(pooling.per_unit(np.stack(rows), number)), index=names).add_prefix("v")
    found = pooled.assign(unit_id=names, group_id=first["group_id"].to_numpy(str), label=first[column].to_numpy(str))
    CACHE.mkdir(parents=True, exist_ok=True)
    found.reset_index(drop=True).to_parquet(file)
    return found.reset_index(drop=True)


def make_model(kind: str, seed: int) -> Any:
    """A classifier: `trees` or `logistic`; `weak` sees loudness and the lowest bands alone."""
    from sklearn.decomposition import PCA
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind == "trees":
        return ExtraTreesClassifier(100, min_samples_leaf=2, max_features=0.1, random_state=seed)
    if kind == "weak":
        return ExtraTreesClassifier(100, min_samples_leaf=10, max_depth=2, random_state=seed)
    return make_pipeline(StandardScaler(), PCA(80, random_state=seed), LogisticRegression(C=0.02, max_iter=500))


def predict(table: pd.DataFrame, parts: np.ndarray, kind: str, share: float, seed: int, task: Task
            ) -> LabelledPredictions:
    """Held-out predictions of a model of all folds, and out-of-fold ones, each with a calibration fitted inside.

    Args:
        parts: [n], a fold or `test`.
        share: of the training groups, drawn by the seed.
    """
    rng, classes = np.random.default_rng(seed), task.classes
    x = table[[name for name in table if name.startswith("v")]].to_numpy()
    labels = np.array([classes.index(label) for label in table["label"]])
    groups = table["group_id"].to_numpy(str)
    known = np.unique(groups)
    used = np.isin(groups, rng.choice(known, size=round(share * len(known)), replace=False))
    p = np.zeros((len(labels), len(classes)))
    for part in np.unique(parts):
        train = used & (parts != part) & (parts != TEST)
        model = make_model(kind, seed).fit(x[train], labels[train])
        p[np.ix_(parts == part, model.classes_)] = model.predict_proba(x[parts == part])
    p = (p + 0.01) / (p + 0.01).sum(axis=1, keepdims=True)
    calibrated = np.zeros_like(p)
    for part in np.unique(parts):     # one temperature, from the out-of-fold predictions of the other folds
        other = (parts != part) & (parts != TEST)
        losses = [-np.log(_sharpen(p[other], t)[np.arange(other.sum()), labels[other]]).mean() for t in TEMPERATURES]
        calibrated[parts == part] = _sharpen(p[parts == part], TEMPERATURES[int(np.argmin(losses))])
    prior = np.bincount(labels[parts != TEST], minlength=len(classes)) / (parts != TEST).sum()
    decisions = (p / np.maximum(prior, 1e-3) ** 0.7).argmax(axis=1)
    return LabelledPredictions(table["unit_id"].to_numpy(str), groups, parts, labels, decisions, p, calibrated, classes)


TEMPERATURES = np.geomspace(0.3, 3, 15)


def _sharpen(p: np.ndarray, temperature: float) -> np.ndarray:
    sharp = p ** (1 / temperature)
    return sharp / sharp.sum(axis=1, keepdims=True)


RECIPES: dict[str, tuple[str, float]] = {
    "trees, 100 %": ("trees", 1.0), "trees, 80 %": ("trees", 0.8), "trees, 60 %": ("trees", 0.6),
    "weak, 100 %": ("weak", 1.0), "logistic, 100 %": ("logistic", 1.0), "logistic, 60 %": ("logistic", 0.6)}
PAIRS = (("trees, 100 %", "weak, 100 %"), ("trees, 100 %", "trees, 60 %"), ("trees, 100 %", "trees, 80 %"),
         ("logistic, 100 %", "logistic, 60 %"), ("logistic, 100 %", "trees, 100 %"),
         ("trees, 100 %", "logistic, 100 %"), ("trees, 60 %", "trees, 100 %"), ("weak, 100 %", "trees, 100 %"))


def real(name: str, rounds: int) -> dict[str, Any]:
    """Promotions of pairs of recipes."""
    assignment, rng = tasks.resolve(name), np.random.default_rng(5)
    task, table = assignment.task, vectors(assignment)
    counted: dict[str, list[bool]] = defaultdict(list)
    gains: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        parts = draw_parts(table, rng)
        models = {recipe: predict(table, parts, kind, share, 1000 * number + place, task)
                  for place, (recipe, (kind, share)) in enumerate(RECIPES.items())}
        for first, second in PAIRS:
            pair = f"{first} against {second}"
            gains[pair].append(_value("log_loss", models[second]) - _value("log_loss", models[first]))
            gains[f"{pair}, metric"].append(_value(task.metric, models[first]) - _value(task.metric, models[second]))
            for rule, passed in judge(task, models[first], models[second], 1).items():
                counted[f"{pair} | look 1 | {rule}"].append(passed)
    means = {pair: float(np.mean(of)) for pair, of in gains.items()}
    return {**{name: _share(passed) for name, passed in counted.items()}, "mean gains": means}


def seeds(name: str, rounds: int) -> dict[str, Any]:
    """Rounds in which any of ten models is promoted that differ from the champion in nothing but the seed."""
    assignment, rng = tasks.resolve(name), np.random.default_rng(6)
    task, table = assignment.task, vectors(assignment)
    counted: dict[str, list[bool]] = defaultdict(list)
    for number in range(rounds):
        parts = draw_parts(table, rng)
        champion, *equal = (predict(table, parts, "trees", 1.0, 1000 * number + place, task)
                            for place in range(LOOKS + 1))
        found = [judge(task, one, champion, look) for look, one in enumerate(equal, start=1)]
        for rule in found[-1]:
            counted[f"any of ten other seeds | looks 1 to 10 | {rule}"].append(any(of[rule] for of in found))
    return {name: _share(passed) for name, passed in counted.items()}


def draw_parts(table: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """A fifth of the groups held out, the others in five folds, large groups first so that the parts are alike."""
    groups, sizes = np.unique(table["group_id"].to_numpy(str), return_counts=True)
    order = rng.permutation(len(groups))
    order = order[np.argsort(-sizes[order], kind="stable")]
    names = np.array([TEST, "0", "1", "2", "3", "4"])
    shares, filled, part = np.array([0.2, *[0.16] * 5]), np.zeros(6), {}
    for group in order:
        emptiest = int(np.argmin(filled / shares + 1e-6 * rng.random(6)))
        part[groups[group]], filled[emptiest] = names[emptiest], filled[emptiest] + sizes[group]
    return table["group_id"].astype(str).map(part).to_numpy(str)


def _value(metric: str, of: LabelledPredictions) -> float:
    p = of.calibrated if metric == "log_loss" else of.probabilities
    return METRICS[metric].function(of.labels, p, of.decisions, of.classes)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("simulated", "real", "seeds"))
    parser.add_argument("task", nargs="?", default="circor-murmur")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "simulated": lambda: simulated(arguments.draws), "real": lambda: real(arguments.task, arguments.rounds),
        "seeds": lambda: seeds(arguments.task, arguments.rounds)}
    found = measures[arguments.kind]()
    gains = found.pop("mean gains", {})
    for name, of in found.items():
        print(f"| {name} | {of['share']:.1%} [{of['low']:.1%}, {of['high']:.1%}] of {of['n']} |")
    for pair, gain in gains.items():
        print(f"mean gain, {pair}: {gain:+.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({**found, "mean gains": gains}, indent=1))


if __name__ == "__main__":
    main()
