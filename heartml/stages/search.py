"""Stage `search`: encoder x level x pooling x head x numbers, scored out of fold, every trial's predictions kept.

In: folds, recordings, annotations, frames. Out, in `artifacts/<task>/search/`: see `heartml.training.search_results`.

The folds of a trial are fitted in waves, one fold of every trial of the batch at a time, and a trial whose running
value falls behind is pruned between waves. Unfinished work lies under `.heartml/search/`, addressed by content.
"""

import shutil

import pandas as pd

from heartml.core import config, paths
from heartml.core.stage import stage
from heartml.core.system import files, parallel
from heartml.core.system.parallel import Part
from heartml.training import search_results
from heartml.training import study as trials
from heartml.training.search_run import KEY_DIGITS, in_words, open_search


def run(name: str) -> None:
    """Search one task."""
    params = config.load()
    with stage("search", task=name) as log:
        hunt = open_search(name, params)
        data, folder = hunt.data, hunt.folder
        study = trials.open_study(folder / "optuna.journal", folder.name)
        with parallel.pool(parallel.available_workers(hunt.search.workers)) as workers:
            hunt.all_batches(study, workers)
        with files.replacing_folder(paths.search(name)) as outputs:
            search_results.write(outputs, data.train_set, list(trials.finished_trials(study)), hunt.predictions,
                                 hunt.file)
        for unfinished in folder.parent.glob(f"{name}-{'?' * KEY_DIGITS}"):     # this one, and those of older data
            shutil.rmtree(unfinished)
        log.say(in_words(data.train_set, pd.read_parquet(paths.search(name) / "trials.parquet")))


def run_part(name: str, part: Part) -> None:
    """Do a part of the fits that are needed whatever the search finds, on whatever machine: it finds them done.

    They are those of the first batch: the starts. Nothing is known then that could prune them, and they hold the
    networks, which cost most.
    """
    params = config.load()
    with stage("search", task=name, encoder=str(part.number)) as log:
        hunt = open_search(name, params)
        jobs = part.of(hunt.first_jobs())
        with parallel.pool(parallel.available_workers(hunt.search.workers)) as workers:
            hunt.fit(jobs, workers, f"search: part {part}")
        log.say(f"part {part}: {len(jobs)} fits")


