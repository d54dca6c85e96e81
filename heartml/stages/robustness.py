"""Stage `robustness`: the held-out part scored again on degraded recordings. Does the score hold outside of a clinic?

In: folds, the audio of the held-out part, the model. Out: `artifacts/<task>/robustness.json` (the scores of every
condition of `robustness.conditions`, with intervals over groups, and their paired difference from the recordings as
they are) and `robustness.csv` (the same for `dvc plots show`).

A recording's id is the hash of its samples, so folds, model and parameters determine the outcome. The noise of a
recording is drawn from the seed, the recording's id and the kind of noise. It depends neither on the number of workers
nor on the other recordings.
"""

from pathlib import Path

from heartml.core import config, folds, paths, tasks
from heartml.core.schema import TEST
from heartml.core.stage import stage
from heartml.core.system.files import read_json, replacing, write_json
from heartml.evaluation.robustness import (
    Condition,
    RobustnessRules,
    RobustnessSet,
    compare_conditions,
    in_words,
    plot_table,
    predict_all,
    sample,
)


def run(name: str) -> None:
    """Score one task's model under every condition.

    Raises:
        OtherSamplesError: the samples of a recording are not those that it is named after.
    """
    with stage("robustness", task=name) as log:
        task = tasks.of_stored(read_json(paths.model(name) / "model.json"), name)
        params = config.load().for_organ(task.organ)
        table = folds.load(paths.folds(name))
        chosen = sample(table[table["part"] == TEST], params.robustness.max_recordings, params.seed)
        conditions = [Condition(k, x) for k, levels in params.robustness.conditions.items() for x in levels]
        subset = RobustnessSet(Path.cwd(), name, tuple(chosen["recording_id"]), tuple(chosen["unit_id"]),
                               params.seed, params.organ(task.organ).band_hz)
        rules = RobustnessRules(task, params.evaluate, params.seed)
        found = {"assignment": name, "held_out_units": int(table.loc[table["part"] == TEST, "unit_id"].nunique()),
                 **compare_conditions(predict_all(subset, conditions), conditions, chosen, rules)}
        write_json(paths.robustness(name), found)
        with replacing(paths.robustness_plot(name)) as temporary:
            plot_table(found).to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        log.add(f"{len(chosen)} recordings of {found['units']} held-out units under {len(conditions)} conditions")
        log.add(in_words(found))
