"""The evaluation protocol of the M2D study on CirCor murmurs (Niizumi et al., arXiv 2404.17107), for our models.

A split is a CSV of `patient_id,part` (train, validation, test). Two systems are scored on its test part: one network
under the paper's rule (logits of 5 s chunks averaged per recording; any Present recording makes the patient Present,
else any Unknown makes it Unknown), and the ensemble, whose stacking, selection and decision rule are fitted by inner
child-grouped folds of the development patients. Train and validation both develop: nothing here stops early or picks
an epoch. Every number also without the test patients whose twin id is among the development patients.
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
from heartml.evaluation.protocols.scoring import mean, numbers, papers_rule, pooled
from heartml.evaluation.protocols.splits import PREFIX, Split, read_split
from heartml.metrics import METRICS
from heartml.models.ensemble import selection
from heartml.models.ensemble.selection import EnsemblePrediction, EnsembleTerms
from heartml.models.ensemble.stacking import StackingFeatures, StackingView, features_of_views, stacking_views

MURMUR, OUTCOME = "circor-murmur", "circor-outcome"


def run(folder: Path, split_files: Sequence[Path], params: Params, seeds: int) -> dict[str, Any]:
    """Prepare, fit, score; what `heartml protocol circor-m2d --json` writes.

    Raises:
        LayoutError, ProtocolError, StageError: the folder or a split cannot be used; the message says why.
    """
    parts = {path: read_parts(path) for path in split_files}
    cohort, refused = prepare(folder, params)
    own = code_hash.fingerprint("models/heads", "models/ensemble", "models/pooling.py", "training",
                                "evaluation/protocols/fits.py")
    key = hashing.sha256(files.canonical_json([
        cohort.folder.name, own, params.search.of(MURMUR).model_dump(mode="json"),
        params.search.of(OUTCOME).model_dump(mode="json"), params.protocol.model_dump(), params.seed]).encode())
    runs = []
    for path, published in parts.items():
        for seed in range(seeds):
            split = read_split(path, published, cohort, params, params.seed + seed)
            runs.append((split, seed, _fits(split, cohort, params, seed, FOLDER / f"m2d-{key[:16]}")))
    _work([job for _, _, pair in runs for one in pair for job in one.jobs()])
    results = [score(split, seed, *pair, params) for split, seed, pair in runs]
    return {"data": {"patients": cohort.recordings["patient_id"].nunique(), "recordings": len(cohort.recordings),
                     "children": cohort.recordings["group_id"].nunique(), "refused": refused},
            **{system: mean(results, system) for system in ("ensemble", "single")},
            "pooled": pooled(results, cohort, params), "splits": results}


def _fits(split: Split, cohort: Cohort, params: Params, seed: int, folder: Path) -> tuple[Fits, Fits]:
    """What is to be fitted for murmur and outcome; the tables of folds are written for the workers."""
    known = cohort.recordings.dropna(subset=[schema.label_column("outcome")])
    outcome = split.folds.merge(known[["recording_id", schema.label_column("outcome")]], on="recording_id")
    outcome = outcome.drop(columns="label").rename(columns={schema.label_column("outcome"): "label"})
    tables = {MURMUR: split.folds, OUTCOME: schema.conform(outcome, schema.FOLDS, "folds")}
    inner, made = params.protocol.inner_folds, []
    for name, table in tables.items():
        digest = hashing.sha256(table.to_csv(index=False).encode())[:16]
        path = folder / f"{name}-{digest}.parquet"
        files.write_parquet(path, table)
        count = int((table["part"] != str(inner)).sum())
        specs = fits.specs_of(name, name.removeprefix(PREFIX), params, count, networks=name == MURMUR)
        single = next((fits.chunked(s) for s in specs.values() if s.head == "sequence"), None)
        made.append(Fits(cohort.folder, path, name, specs, single, inner, params.seed + seed, folder / digest))
    return made[0], made[1]


def _work(jobs: Sequence[fits.ProtocolFit]) -> None:
    """Do what is not done, networks first: they are the long ones."""
    left = sorted((job for job in jobs if not job.file.exists()), key=lambda job: job.spec.family.TAKES == "vectors")
    with pool(available_workers(0)) as workers:
        words = f"{len(left)} fits, {len(jobs) - len(left)} are there"
        for _ in track(workers.map(fits.fit_part, left), words, len(left)):
            pass


def score(split: Split, seed: int, murmur: Fits, outcome: Fits, params: Params) -> dict[str, Any]:
    """Both systems on the test part of one split with one seed."""
    test = murmur.train_set.parts == murmur.folds
    seen, verdicts = _stacked(murmur, {}, params)
    _, costs = _stacked(outcome, _same_units(seen, murmur, outcome), params)
    ids = np.array(murmur.train_set.unit_ids)[test]
    labels, free = murmur.train_set.labels[test], ~np.isin(ids, list(split.twins))
    rule = papers_rule(murmur.single_prediction().log_p, murmur.train_set.unit[murmur.train_set.recordings_of(test)])
    known = outcome.train_set.parts == outcome.folds
    cost = METRICS["outcome_cost"].function(outcome.train_set.labels[known], np.exp(costs.log_p), costs.decisions,
                                            outcome.train_set.task.classes)
    classes = np.array(murmur.train_set.task.classes)
    predictions = pd.DataFrame({"patient_id": ids, "label": classes[labels], "single": classes[rule],
                                "ensemble": classes[verdicts.decisions], "twin": ~free})
    return {"split": split.name, "seed": seed, "patients": dict(split.patients), "not_here": split.unknown,
            "twins": len(split.twins), "single": numbers(labels, rule, free),
            "ensemble": {**numbers(labels, verdicts.decisions, free), "outcome_cost": cost},
            "predictions": predictions.to_dict("records")}


def _stacked(
    fit: Fits, beside: Mapping[StackingView, StackingFeatures], params: Params
) -> tuple[dict[StackingView, StackingFeatures], EnsemblePrediction]:
    """Evidence of all units, and the verdicts about the test part from a combination of the development patients."""
    predictions, task, train_set = fit.predictions(), fit.train_set.task, fit.train_set
    with np.errstate(invalid="ignore"):      # through noise nobody heard the test part
        seen = features_of_views(stacking_views(predictions, fit.specs, task), predictions, fit.predictions_in_noise(),
                                 train_set.unit)
    test, chosen = train_set.parts == fit.folds, {**seen, **beside}
    terms = EnsembleTerms(task, params.stacking, params.ensemble.of(fit.name))
    fitted = selection.fit({r: e.of(~test) for r, e in chosen.items()}, train_set.labels[~test],
                             train_set.parts[~test], terms)
    return seen, selection.predict_proba(fitted, {r: e.of(test) for r, e in chosen.items()})


def _same_units(seen: Mapping[StackingView, StackingFeatures], of: Fits, to: Fits) -> dict[StackingView,
                                                                                           StackingFeatures]:
    """The networks' features about murmurs, for the units of another task; under numbers that no trial there has."""
    row = {unit: number for number, unit in enumerate(of.train_set.unit_ids)}
    rows = np.array([row[unit] for unit in to.train_set.unit_ids])
    networks = [r for r in seen if of.specs[r.trials[0]].family.TAKES == "frames"]
    return {StackingView(tuple(-1 - t for t in r.trials), r.kind): seen[r].of(rows) for r in networks}
