"""Stage `ensemble`: from the trials of the search to one fitted model, and to its out-of-fold predictions.

In: the search's trials, frames, folds, recordings, signal measurements. Out: `artifacts/<task>/model/` (see
`heartml.models.fitted_model`), and `artifacts/<task>/out_of_fold.parquet`. For the latter, selection, stackers,
decision rule and calibration of each fold were fitted on the other folds. The model also holds what it accepts (see
`heartml.models.applicability`).

Where the search has stored the fitted networks of a member (the sequence head), these go into the model, one for each
fold, and their predictions are averaged: that costs no fit and scores better than one network on all data. The other
members are fitted once more, on everything that is not held out.
"""

from pathlib import Path

from heartml.core import config, paths
from heartml.core.stage import stage
from heartml.core.system import files
from heartml.models.ensemble.selection import EnsembleTerms, fit, out_of_fold
from heartml.models.fitted_model import Model
from heartml.training import fold_fits, search_results
from heartml.training.applicability_fit import fit_checks
from heartml.training.final_fits import encoder_specs, fit_heads, out_of_fold_table, summary_line


def run(name: str) -> None:
    """Build the ensemble of one task."""
    params = config.load()
    with stage("ensemble", task=name) as log:
        data = fold_fits.training_data(name, params.encoders, Path.cwd(), shared=True)
        specs = search_results.read_specs(paths.search(name))
        features = search_results.read_stacking_features(paths.search(name), specs, data.train_set)
        terms = EnsembleTerms(data.train_set.task, params.stacking, params.ensemble.for_task(name))
        train_set = data.train_set
        verdicts = out_of_fold(features, train_set.labels, train_set.groups, train_set.parts, terms)
        fitted = fit(features, train_set.labels, train_set.groups, train_set.parts, terms)
        used = {trial: specs[trial] for trial in sorted({t for view in fitted.weights for t in view.trials})}
        heads = fit_heads(name, params, used, data)
        checks = fit_checks(data, params) if params.applicability else None
        with files.replacing_folder(paths.model(name)) as folder:
            refer_below = params.decision.for_task(name).refer_below
            encoders = {**encoder_specs(data, used), **(checks.encoder_specs if checks else {})}
            accepted = checks.applicability if checks else None
            Model.assemble(name, used, heads, fitted, encoders, refer_below, accepted).save(folder)
        reasons = checks.unit_reasons(train_set.unit) if checks else None
        files.write_parquet(paths.out_of_fold(name), out_of_fold_table(train_set, verdicts, reasons))
        fold_fits.remove_pooled(name)
        log.add(summary_line(train_set, specs, fitted, verdicts))
