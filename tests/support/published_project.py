"""Publishing in a finished project: models of any skill, and what the registry holds afterwards."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from support import finished_project
from support.finished_project import TASK

from heartml.core import config, paths
from heartml.core.config import Params
from heartml.core.system import files
from heartml.evaluation import inputs
from heartml.registry import tracking, versions
from heartml.registry.child_runs import PARENT
from heartml.release import publish
from heartml.release.publish import ReleaseOutcome
from heartml.stages import evaluate

GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")
DATA_HASH = "0123456789abcdef0123456789abcdef.dir"


def evaluate_with_skill(skill: float, seed: int = 1, keep: Callable[[pd.DataFrame], pd.Series] | None = None) -> None:
    """Evaluate a model of another skill on the same units; `keep` says which of the folds remain."""
    params = config.load()
    if keep:
        folds = pd.read_parquet(paths.folds(TASK))
        files.write_parquet(paths.folds(TASK), folds[keep(folds)])
    recordings = inputs.read_recordings(TASK, params.validate_)
    held_out = recordings[recordings["part"] == "test"]
    predictions = finished_project.draw_predictions(held_out, np.random.default_rng(seed), skill)
    finished_project.write_out_of_fold(recordings[recordings["part"] != "test"], np.random.default_rng(seed), skill)
    evaluate.write_evaluation(TASK, predictions, recordings, params)


def publish_model(params: Params | None = None) -> ReleaseOutcome:
    used = {"search@simulated-murmur": {"seconds": 12.5, "peak_memory_mb": 640.0}}
    return publish.publish(TASK, params or config.load(), used)


def version_states() -> list[tuple[str, str | None, tuple[str, ...]]]:
    return [(v.number, v.verdict, v.aliases) for v in versions.list_versions(tracking.connect(), TASK)]


def run_states() -> list[str]:
    """States of the runs of versions, without those below them."""
    client = tracking.connect()
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments)
    return sorted(run.info.status for run in runs if PARENT not in run.data.tags)
