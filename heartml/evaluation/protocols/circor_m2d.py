"""The evaluation protocol of the M2D study on CirCor murmurs (Niizumi et al., arXiv 2404.17107), for our models.

CirCor's folder and splits come in, scores go out. A split is a CSV of `patient_id,part` (train, validation, test).
Three systems can be scored on its test part:

- `single`: one network with the paper's rule. Logits of 5 s chunks are averaged for each recording. Any Present
  recording makes the patient Present, else any Unknown recording makes it Unknown.
- `ensemble`: stacking, selection and decision rule are fitted with inner folds of the development patients, grouped by
  child.
- `finetune`: a pre-trained encoder that learns with its head by the study's recipe, with the same rule. It is trained
  on the train patients, and its epoch is chosen by the validation patients.

The first two use train and validation patients alike for development, since they do not stop early or select an epoch.
Some children have two patient ids. Every number is also given without the test patients whose other id (`twins`) is
among the development patients.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from heartml.evaluation.protocols import fits, tuned
from heartml.evaluation.protocols.cohort import FOLDER, Cohort, prepare
from heartml.evaluation.protocols.fits import FINETUNE, SINGLE, Fits
from heartml.evaluation.protocols.scoring import mean, paper_columns, paper_rule, pooled
from heartml.evaluation.protocols.splits import PREFIX, Split, read_split
from heartml.evaluation.protocols.tuned import Tuned
from heartml.metrics import METRICS
from heartml.models.ensemble import selection
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.models.ensemble.selection import EnsemblePrediction, EnsembleTerms
from heartml.models.ensemble.stacking import StackingFeatures, StackingView, features_of_views, stacking_views
from heartml.training import search_run

MURMUR, OUTCOME = "circor-murmur", "circor-outcome"
ENSEMBLE = "ensemble"


def run(folder: Path, split_files: Sequence[Path], params: Params, seeds: int,
        systems: Sequence[str] = (SINGLE, ENSEMBLE), finetuned: Tuned | None = None) -> dict[str, Any]:
    """Prepare the data, fit and score the systems.

    Args:
        finetuned: what the system `finetune` is.

    Returns:
        What `heartml protocol circor-m2d --json` writes.

    Raises:
        LayoutError, ProtocolError, StageError: the folder or a split cannot be used; the message says why.
        HeardError, MemoryRefused: see `tuned.check`.
    """
    parts = {path: read_parts(path) for path in split_files}
    cohort, refused = prepare(folder, params, [finetuned.encoder] if finetuned else [])
    code = code_hash.fingerprint(*search_run.CODE, "evaluation/protocols/fits.py")
    of_tasks = [[search_run.task_definition(name), params.search.for_task(name).model_dump(mode="json")]
                for name in (MURMUR, OUTCOME)]
    key = hashing.sha256(files.canonical_json([
        cohort.folder.name, code, search_run.library_versions(), of_tasks, params.protocol.model_dump(), params.seed,
        *([finetuned.network.to_json()] if finetuned else []),
    ]).encode())
    runs = []
    for path, published in parts.items():
        for seed in range(seeds):
            split = read_split(path, published, cohort, params, params.seed + seed)
            place = FOLDER / f"m2d-{key[:16]}"
            runs.append((split, seed, _fits(split, cohort, params, seed, place, _Systems(tuple(systems), finetuned))))
    if finetuned:
        print(tuned.check(finetuned, cohort.frames[finetuned.encoder.name], cohort.recordings, len(runs)),
              file=sys.stderr, flush=True)
    _run_fits([fit for _, _, of_tasks in runs for one in of_tasks for fit in one.planned()])
    results = [score(split, seed, own[0], own[1] if len(own) > 1 else None, params) for split, seed, own in runs]
    return {"data": {"patients": cohort.recordings["patient_id"].nunique(), "recordings": len(cohort.recordings),
                     "children": cohort.recordings["group_id"].nunique(), "refused": refused},
            **{system: mean(results, system) for system in systems},
            "pooled": pooled(results, cohort, params), "splits": results}


@dataclass(frozen=True)
class _Systems:
    """The names of the systems that are scored, and what `finetune` is."""

    names: tuple[str, ...]
    finetuned: Tuned | None


def _fits(split: Split, cohort: Cohort, params: Params, seed: int, folder: Path, systems: _Systems) -> list[Fits]:
    """The fits for murmur and, for an ensemble, outcome; the tables of folds are written for the worker processes."""
    known = cohort.recordings.dropna(subset=[schema.label_column("outcome")])
    outcome = split.folds.merge(known[["recording_id", schema.label_column("outcome")]], on="recording_id")
    outcome = outcome.drop(columns="label").rename(columns={schema.label_column("outcome"): "label"})
    tables = {MURMUR: split.folds}
    if ENSEMBLE in systems.names:
        tables[OUTCOME] = schema.conform(outcome, schema.FOLDS, "folds")
    inner, found = params.protocol.inner_folds, []
    for name, table in tables.items():
        digest = hashing.sha256(table.to_csv(index=False).encode())[:16]
        path = folder / f"{name}-{digest}.parquet"
        files.write_parquet(path, table)
        count = int((table["part"] != str(inner)).sum())
        specs = fits.specs_of(name, name.removeprefix(PREFIX), params, count, networks=name == MURMUR)
        networks = _networks(specs, systems) if name == MURMUR else {}
        found.append(Fits(cohort.folder, path, name, specs if ENSEMBLE in systems.names else {}, networks, inner,
                          params.seed + seed, folder / digest, split.validation))
    return found


def _networks(specs: Mapping[int, CandidateSpec], systems: _Systems) -> dict[str, CandidateSpec]:
    """The systems that are one network with the paper's rule."""
    single = next((fits.chunked(s) for s in specs.values() if s.head == "sequence"), None)
    found = {SINGLE: single, FINETUNE: systems.finetuned.network if systems.finetuned else None}
    return {name: spec for name, spec in found.items() if spec is not None and name in systems.names}


def _run_fits(planned: Sequence[fits.ProtocolFit]) -> None:
    """Do the fits whose result file is missing, those of networks first because they take long."""
    missing = [fit for fit in planned if not fit.file.exists()]
    left = sorted(missing, key=lambda fit: fit.spec.head_module.TAKES == "vectors")
    with pool(available_workers(0)) as workers:
        title = f"{len(left)} fits, {len(planned) - len(left)} are there"
        for _ in track(workers.map(fits.fit_part, left), title, len(left)):
            pass


def score(split: Split, seed: int, murmur: Fits, outcome: Fits | None, params: Params) -> dict[str, Any]:
    """Scores of every system on the test part of one split with one seed.

    Args:
        outcome: where there is an ensemble.
    """
    test = murmur.train_set.parts == murmur.folds
    ids = np.array(murmur.train_set.unit_ids)[test]
    labels, free = murmur.train_set.labels[test], ~np.isin(ids, list(split.twins))
    units = murmur.train_set.unit[murmur.train_set.recordings_of(test)]
    decided = {name: paper_rule(murmur.prediction_of(name).log_p, units) for name in murmur.networks}
    columns = {name: paper_columns(labels, rule, free) for name, rule in decided.items()}
    if outcome is not None:
        features, found = _stacked(murmur, {}, params)
        decided[ENSEMBLE] = found.decisions
        columns[ENSEMBLE] = {**paper_columns(labels, found.decisions, free),
                             "outcome_cost": _outcome_cost(murmur, outcome, features, params)}
    classes = np.array(murmur.train_set.task.classes)
    predictions = pd.DataFrame({"patient_id": ids, "label": classes[labels],
                                **{name: classes[rule] for name, rule in decided.items()}, "twin": ~free})
    return {"split": split.name, "seed": seed, "patients": dict(split.patients), "not_here": split.unknown,
            "twins": len(split.twins), **columns, "predictions": predictions.to_dict("records")}


def _outcome_cost(
    murmur: Fits, outcome: Fits, features: Mapping[StackingView, StackingFeatures], params: Params
) -> float:
    """Cost of the outcomes that an ensemble predicts, which uses the networks' features about murmurs, too."""
    _, outcomes = _stacked(outcome, _same_units(features, murmur, outcome), params)
    known = outcome.train_set.parts == outcome.folds
    return METRICS["outcome_cost"].function(outcome.train_set.labels[known], np.exp(outcomes.log_p),
                                            outcomes.decisions, outcome.train_set.task.classes)


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
