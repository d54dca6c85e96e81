"""Write one page for each data set about all features of its murmurs, if models of descriptors were trained.

In: the outcomes of all tasks of a retraining. Out: `reports/<data set>-descriptors.html`. The same outcomes give the
same bytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heartml.core import paths
from heartml.core.system.files import replacing
from heartml.core.tasks import GROUPS
from heartml.release.publish import ReleaseOutcome


def write(outcomes: Sequence[ReleaseOutcome]) -> None:
    """Write a page for each data set of which a descriptor was evaluated."""
    for datasets, evaluations in evaluations_by_datasets(outcomes).items():
        from heartml.reporting import murmur_features

        with replacing(_page(datasets)) as temporary:
            temporary.write_text(murmur_features.render(datasets, evaluations), encoding="utf-8")


def pages(outcomes: Sequence[ReleaseOutcome]) -> list[Path]:
    """Paths of the pages that `write` writes for these outcomes."""
    return [_page(datasets) for datasets in evaluations_by_datasets(outcomes)]


def evaluations_by_datasets(outcomes: Sequence[ReleaseOutcome]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Data sets -> task -> `metrics.json`, of the murmur and its descriptors.

    Only data sets of which a descriptor was evaluated.
    """
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for outcome in outcomes:
        datasets, _, task = outcome.task.rpartition("-")
        if outcome.evaluation and task in ("murmur", *GROUPS["descriptors"]):
            found.setdefault(datasets, {})[outcome.task] = outcome.evaluation
    return {datasets: own for datasets, own in found.items() if set(own) - {f"{datasets}-murmur"}}


def _page(datasets: str) -> Path:
    return paths.REPORTS / f"{datasets}-descriptors.html"
