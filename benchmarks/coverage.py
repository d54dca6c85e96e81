"""How often intervals hold the truth: simulated units with CirCor's classes and groups, from 20 to 400 groups.

    python benchmarks/coverage.py [--draws 400] [--groups 20 40 80 160 400] [--json FILE]

A unit's class, the noise of its group and its own noise are drawn; two models of known skill predict it. The truth is
each metric on 300,000 units. The peer is the percentile interval of whole groups drawn with replacement, which HeartML
had before. Draws in which a class is absent are drawn again, since their mean over classes is another number.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from heartml.metrics import METRICS, Metric, bootstrap_interval, paired_bootstrap

CLASSES = ("Present", "Unknown", "Absent")
SHARES = (0.190, 0.074, 0.736)           # of CirCor's ids
SECOND_ID = 0.14                         # share of groups with a second id
ALONE = ("uar", "weighted_accuracy", "macro_auc")
PAIRED = ("uar", "weighted_accuracy_and_uar", "macro_auc", "log_loss", "brier")
SCENES = {"equal recalls (.86), equal models": ((2.2, 2.2), (0.0, 0.0, 0.0)),
          "unequal recalls (.71, .32, .90), the second model better": ((1.5, 1.8), (0.0, -1.2, 0.6))}
Model = tuple[np.ndarray, np.ndarray]


def draw(
    rng: np.random.Generator, groups: int, skills: tuple[float, ...], lean: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, list[Model]]:
    """Labels [n], group of each unit [n], and for each skill (probabilities [n, 3], decisions [n])."""
    group = np.repeat(np.arange(groups), 1 + (rng.random(groups) < SECOND_ID))
    labels = rng.choice(3, p=SHARES, size=groups)[group]
    shared = 0.7 * rng.gumbel(size=(groups, 3))[group] + 0.35 * rng.gumbel(size=(len(group), 3))
    models = []
    for skill in skills:
        logits = skill * np.eye(3)[labels] + shared + 0.35 * rng.gumbel(size=shared.shape) + np.array(lean)
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        models.append((probabilities, probabilities.argmax(axis=1)))
    return labels, group, models


def percentile(metric: Metric, labels: np.ndarray, models: list[Model], group: np.ndarray, resamples: int,
               rng: np.random.Generator) -> tuple[float, float]:
    """The interval that HeartML had: of one model, or of the difference of two."""
    count = int(group.max()) + 1
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples)[:, group].astype(float)
    drawn = [metric.weighted(labels, *model, CLASSES, weights) for model in models]
    own = [metric.function(labels, *model, CLASSES) for model in models]
    values, value = (drawn[0], own[0]) if len(models) == 1 else (drawn[0] - drawn[1], own[0] - own[1])
    low, high = np.nanquantile(values, [0.025, 0.975])
    return min(low, value), max(high, value)


def intervals(metric: Metric, labels: np.ndarray, models: list[Model], group: np.ndarray, resamples: int,
              rng: np.random.Generator) -> Iterator[tuple[str, float, float]]:
    """(method, low, high) of both methods."""
    yield "percentile", *percentile(metric, labels, models, group, resamples, rng)
    settings: Any = {"resamples": resamples, "confidence": 0.95, "rng": rng}
    found = (bootstrap_interval(metric, labels, *models[0], CLASSES, group, **settings) if len(models) == 1
             else paired_bootstrap(metric, labels, *models, CLASSES, group, **settings))
    yield "heartml", found.low, found.high


def measure(scene: str, groups: int, draws: int, resamples: int) -> dict[str, dict[str, float]]:
    """Metric (after `difference of` for two models) -> method -> share of intervals that hold the truth, and width."""
    skills, lean = SCENES[scene]
    rng = np.random.default_rng(7)
    labels, _, models = draw(rng, 300_000, skills, lean)
    truth = {name: [METRICS[name].function(labels, *model, CLASSES) for model in models] for name in {*ALONE, *PAIRED}}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(draws):
        labels, group, models = draw(rng, groups, skills, lean)
        while len(np.unique(labels)) < len(CLASSES):
            labels, group, models = draw(rng, groups, skills, lean)
        for names, used, word in ((ALONE, models[:1], ""), (PAIRED, models, "difference of ")):
            for name in names:
                true = truth[name][0] - truth[name][1] if word else truth[name][0]
                for method, low, high in intervals(METRICS[name], labels, used, group, resamples, rng):
                    found[word + name][method].append(low <= true <= high)
                    found[word + name][method + "_width"].append(high - low)
    return {name: {key: float(np.mean(values)) for key, values in of.items()} for name, of in found.items()}


def main() -> None:
    """Print one table for each scene."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--groups", type=int, nargs="+", default=[20, 40, 80, 160, 400])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    told: dict[str, Any] = {}
    for scene in SCENES:
        told[scene] = {groups: measure(scene, groups, arguments.draws, arguments.resamples)
                       for groups in arguments.groups}
        print(f"\n{scene}: coverage at 95 %, percentile -> heartml (width percentile -> heartml)")
        for name in next(iter(told[scene].values())):
            cells = [f"{of[name]['percentile']:.3f} -> {of[name]['heartml']:.3f} "
                     f"({of[name]['percentile_width']:.2f} -> {of[name]['heartml_width']:.2f})"
                     for of in told[scene].values()]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
