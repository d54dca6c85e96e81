"""Stage `ensemble`: from trials to one fitted model, and to what it would have said about units that it never saw.

In: the search's trials, frames, folds, recordings. Out: `artifacts/<task>/model/` (see `heartml.models.fitted_model`),
and
`artifacts/<task>/out_of_fold.parquet`, in which selection, readers, decision rule and calibration of every fold were
fitted on the other folds.

Members whose heads were kept by the search (the sequence head) go in as the bag of their folds' networks: averaging
them costs no fit and beats one network on all data. The others are fitted once more, on everything not held out.
"""

from pathlib import Path

from heartml.core import config, paths
from heartml.core.stage import stage
from heartml.core.system import files
from heartml.models.ensemble.selection import EnsembleTerms, fit, out_of_fold
from heartml.models.fitted_model import Model
from heartml.training import fold_fits, search_results
from heartml.training.final_fits import encoder_specs, heads_of, in_words, out_of_fold_table


def run(name: str) -> None:
    """Build the ensemble of one task."""
    params = config.load()
    with stage("ensemble", task=name) as log:
        data = fold_fits.training_data(name, params.encoders, Path.cwd())
        specs = search_results.read_specs(paths.search(name))
        seen = search_results.read_stacking_features(paths.search(name), specs, data.train_set)
        terms = EnsembleTerms(data.train_set.task, params.stacking, params.ensemble.of(name))
        verdicts = out_of_fold(seen, data.train_set.labels, data.train_set.parts, terms)
        combination = fit(seen, data.train_set.labels, data.train_set.parts, terms)
        used = {trial: specs[trial] for trial in sorted({t for view in combination.weights for t in view.trials})}
        heads = heads_of(name, params, used, data)
        with files.replacing_folder(paths.model(name)) as folder:
            refer_below = params.decision.of(name).refer_below
            Model.assemble(name, used, heads, combination, encoder_specs(data, used), refer_below).save(folder)
        files.write_parquet(paths.out_of_fold(name), out_of_fold_table(data.train_set, verdicts))
        log.say(in_words(data.train_set, specs, combination, verdicts))


