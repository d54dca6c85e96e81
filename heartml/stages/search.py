"""Stage `search`: tries combinations of encoder, level, pooling, head and hyperparameters, scored out of fold.

In: folds, recordings, annotations, frames. Out, in `artifacts/<task>/search/`: see `heartml.training.search_results`.

Trials are fitted in batches, and a batch in waves: each wave fits one fold of every trial. Between waves a trial whose
value so far is too low is pruned. Unfinished work is stored under `.heartml/search/`, addressed by content.
"""

import shutil
import sys

import pandas as pd

from heartml.core import config, paths
from heartml.core.stage import stage
from heartml.core.system import files, parallel
from heartml.core.system.parallel import Part
from heartml.training import search_results
from heartml.training import study as trials
from heartml.training.search_run import KEY_DIGITS, open_search, summary_line


def run(name: str) -> None:
    """Search one task."""
    params = config.load()
    with stage("search", task=name) as log:
        search_run = open_search(name, params)
        data, folder = search_run.data, search_run.folder
        study = trials.open_study(folder / "optuna.journal", folder.name)
        count = parallel.available_workers(search_run.search.workers)
        for line in search_run.memory(count):
            print(f"search {name}: {line}", file=sys.stderr, flush=True)
        with parallel.pool(count) as workers:
            search_run.run_batches(study, workers)
        with files.replacing_folder(paths.search(name)) as outputs:
            search_results.write(outputs, data.train_set, list(trials.finished_trials(study)), search_run.predictions,
                                 search_run.result_file)
        for unfinished in folder.parent.glob(f"{name}-{'?' * KEY_DIGITS}"):     # also searches on older data
            shutil.rmtree(unfinished)
        if search_run.left_out:
            log.add(search_run.left_out)
        log.add(summary_line(data.train_set, pd.read_parquet(paths.search(name) / "trials.parquet")))


def run_part(name: str, part: Part) -> None:
    """Do one part of the fits of the first batch. Several machines can do so; the search then finds these fits done.

    The first batch are the initial trials. They are needed in any case, because nothing is known yet that could prune
    them. They include the networks, which cost most.
    """
    params = config.load()
    with stage("search", task=name, encoder=str(part.number)) as log:
        search_run = open_search(name, params)
        jobs = part.of(search_run.first_fits())
        with parallel.pool(parallel.available_workers(search_run.search.workers)) as workers:
            search_run.run_fits(jobs, workers, f"search: part {part}")
        log.add(f"part {part}: {len(jobs)} fits")
