"""The evaluation protocol of the M2D study on CirCor murmurs (Niizumi et al., arXiv 2404.17107), for our models.

CirCor's folder and splits come in, scores go out. A split is a CSV of `patient_id,part` (train, validation, test). Two
systems are scored on its test part:

- `single`: one network with the paper's rule. Logits of 5 s chunks are averaged for each recording. Any Present
  recording makes the patient Present, else any Unknown recording makes it Unknown.
- `ensemble`: stacking, selection and decision rule are fitted with inner folds of the development patients, grouped by
  child.

Train and validation patients are both used for development, since nothing here stops early or selects an epoch. Some
children have two patient ids. Every number is also given without the test patients whose other id (`twins`) is among
the development patients.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heartml.core import schema
from heartml.core.config import Params
from heartml.core.system import code_hash, files, hashing
from heartml.core.system.parallel import available_workers, pool
from heartml.core.system.progress import track
from heartml.data.splitting.published import read_parts
from heartml.evaluation.protocols import fits
from heartml.evaluation.protocols.cohort import FOLDER, Cohort, prepare
from heartml.evaluation.protocols.fits import Fits
from heartml.evaluation.protocols.scoring import mean, paper_columns, paper_rule, pooled
from heartml.evaluation.protocols.splits import PREFIX, Split, read_split
from heartml.metrics import METRICS
from heartml.models.ensemble import selection
from heartml.models.ensemble.selection import EnsemblePrediction, EnsembleTerms
from heartml.models.ensemble.stacking import StackingFeatures, StackingView, features_of_views, stacking_views
from heartml.training import search_run

MURMUR, OUTCOME = "circor-murmur", "circor-outcome"


def run(folder: Path, split_files: Sequence[Path], params: Params, seeds: int) -> dict[str, Any]:
    """Prepare the data, fit and score both systems.

    Returns:
        What `heartml protocol circor-m2d --json` writes.

    Raises:
        LayoutError, ProtocolError, StageError: the folder or a split cannot be used; the message says why.
    """
    parts = {path: read_parts(path) for path in split_files}
    cohort, refused = prepare(folder, params)
    code = code_hash.fingerprint(*search_run.CODE, "evaluation/protocols/fits.py")
    of_tasks = [[search_run.task_definition(name), params.search.for_task(name).model_dump(mode="json")]
                for name in (MURMUR, OUTCOME)]
    key = hashing.sha256(files.canonical_json([
        cohort.folder.name, code, search_run.library_versions(), of_tasks, params.protocol.model_dump(), params.seed,
    ]).encode())
    runs = []
    for path, published in parts.items():
        for seed in range(seeds):
            split = read_split(path, published, cohort, params, params.seed + seed)
            runs.append((split, seed, _fits(split, cohort, params, seed, FOLDER / f"m2d-{key[:16]}")))
    _run_fits([fit for _, _, pair in runs for one in pair for fit in one.planned()])
    results = [score(split, seed, *pair, params) for split, seed, pair in runs]
    return {"data": {"patients": cohort.recordings["patient_id"].nunique(), "recordings": len(cohort.recordings),
                     "children": cohort.recordings["group_id"].nunique(), "refused": refused},
            **{system: mean(results, system) for system in ("ensemble", "single")},
            "pooled": pooled(results, cohort, params), "splits": results}


def _fits(split: Split, cohort: Cohort, params: Params, seed: int, folder: Path) -> tuple[Fits, Fits]:
    """The fits for murmur and for outcome; the tables of folds are written for the worker processes."""
    known = cohort.recordings.dropna(subset=[schema.label_column("outcome")])
    outcome = split.folds.merge(known[["recording_id", schema.label_column("outcome")]], on="recording_id")
    outcome = outcome.drop(columns="label").rename(columns={schema.label_column("outcome"): "label"})
    tables = {MURMUR: split.folds, OUTCOME: schema.conform(outcome, schema.FOLDS, "folds")}
    inner, pair = params.protocol.inner_folds, []
    for name, table in tables.items():
        digest = hashing.sha256(table.to_csv(index=False).encode())[:16]
        path = folder / f"{name}-{digest}.parquet"
        files.write_parquet(path, table)
        count = int((table["part"] != str(inner)).sum())
        specs = fits.specs_of(name, name.removeprefix(PREFIX), params, count, networks=name == MURMUR)
        single = next((fits.chunked(s) for s in specs.values() if s.head == "sequence"), None)
        pair.append(Fits(cohort.folder, path, name, specs, single, inner, params.seed + seed, folder / digest))
    return pair[0], pair[1]


def _run_fits(planned: Sequence[fits.ProtocolFit]) -> None:
    """Do the fits whose result file is missing, those of networks first because they take long."""
    missing = [fit for fit in planned if not fit.file.exists()]
    left = sorted(missing, key=lambda fit: fit.spec.head_module.TAKES == "vectors")
    with pool(available_workers(0)) as workers:
        title = f"{len(left)} fits, {len(planned) - len(left)} are there"
        for _ in track(workers.map(fits.fit_part, left), title, len(left)):
            pass


def score(split: Split, seed: int, murmur: Fits, outcome: Fits, params: Params) -> dict[str, Any]:
    """Scores of both systems on the test part of one split with one seed."""
    test = murmur.train_set.parts == murmur.folds
    features, found = _stacked(murmur, {}, params)
    _, outcomes = _stacked(outcome, _same_units(features, murmur, outcome), params)
    ids = np.array(murmur.train_set.unit_ids)[test]
    labels, free = murmur.train_set.labels[test], ~np.isin(ids, list(split.twins))
    rule = paper_rule(murmur.single_prediction().log_p, murmur.train_set.unit[murmur.train_set.recordings_of(test)])
    known = outcome.train_set.parts == outcome.folds
    cost = METRICS["outcome_cost"].function(outcome.train_set.labels[known], np.exp(outcomes.log_p),
                                            outcomes.decisions, outcome.train_set.task.classes)
    classes = np.array(murmur.train_set.task.classes)
    predictions = pd.DataFrame({"patient_id": ids, "label": classes[labels], "single": classes[rule],
                                "ensemble": classes[found.decisions], "twin": ~free})
    return {"split": split.name, "seed": seed, "patients": dict(split.patients), "not_here": split.unknown,
            "twins": len(split.twins), "single": paper_columns(labels, rule, free),
            "ensemble": {**paper_columns(labels, found.decisions, free), "outcome_cost": cost},
            "predictions": predictions.to_dict("records")}


def _stacked(
    fit: Fits, further: Mapping[StackingView, StackingFeatures], params: Params
) -> tuple[dict[StackingView, StackingFeatures], EnsemblePrediction]:
    """Stacking features of all units, and predictions for the test part by an ensemble of the development patients.

    Args:
        further: features that the ensemble may use in addition.
    """
    predictions, task, train_set = fit.predictions(), fit.train_set.task, fit.train_set
    views = stacking_views(predictions, fit.specs, task)
    with np.errstate(invalid="ignore"):      # predictions with noise added are NaN in the test part
        features = features_of_views(views, predictions, fit.predictions_in_noise(), train_set.unit)
    test, offered = train_set.parts == fit.folds, {**features, **further}
    terms = EnsembleTerms(task, params.stacking, params.ensemble.for_task(fit.name))
    fitted = selection.fit({view: own.subset(~test) for view, own in offered.items()}, train_set.labels[~test],
                           train_set.groups[~test], train_set.parts[~test], terms)
    return features, selection.predict_proba(fitted, {view: own.subset(test) for view, own in offered.items()})


def _same_units(
    features: Mapping[StackingView, StackingFeatures], of: Fits, to: Fits
) -> dict[StackingView, StackingFeatures]:
    """The networks' features about murmurs for the units of another task, under trial numbers that are free there."""
    row = {unit: number for number, unit in enumerate(of.train_set.unit_ids)}
    rows = np.array([row[unit] for unit in to.train_set.unit_ids])
    networks = [view for view in features if of.specs[view.trials[0]].head_module.TAKES == "frames"]
    return {StackingView(tuple(-1 - trial for trial in view.trials), view.kind): features[view].subset(rows)
            for view in networks}
