"""Stage `robustness`: the held-out part once more, through worse ears. What is a score worth outside of the clinic?

In: folds, the audio of the held-out part, the model. Out: `artifacts/<task>/robustness.json` (the scores of every
condition of `robustness.conditions`, with intervals over groups, and their paired difference from the recordings as
they are) and `robustness.csv` (the same for `dvc plots show`).

Recordings are named by the hash of their samples, so the folds and the model decide the outcome. The noise of a
recording is drawn from the seed, the recording's name and the kind of noise: neither the number of workers nor the
other recordings show in it.
"""

from pathlib import Path

from heartml.core import config, folds, paths, tasks
from heartml.core.schema import TEST
from heartml.core.stage import stage
from heartml.core.system.files import replacing, write_json
from heartml.evaluation.robustness import (
    Condition,
    RobustnessRules,
    RobustnessSet,
    compare,
    in_words,
    plot,
    predict_all,
    sample,
)


def run(name: str) -> None:
    """Measure one task's model under every condition."""
    with stage("robustness", task=name) as log:
        params = config.load()
        table = folds.load(paths.folds(name))
        chosen = sample(table[table["part"] == TEST], params.robustness.max_recordings, params.seed)
        conditions = [Condition(k, x) for k, levels in params.robustness.conditions.items() for x in levels]
        listening = RobustnessSet(Path.cwd(), name, tuple(chosen["recording_id"]), tuple(chosen["unit_id"]),
                                  params.seed)
        rules = RobustnessRules(tasks.resolve(name).task, params.evaluate, params.seed)
        found = {"assignment": name, "held_out_units": int(table.loc[table["part"] == TEST, "unit_id"].nunique()),
                 **compare(predict_all(listening, conditions), conditions, chosen, rules)}
        write_json(paths.robustness(name), found)
        with replacing(paths.robustness_plot(name)) as temporary:
            plot(found).to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        log.say(f"{len(chosen)} recordings of {found['units']} held-out units under {len(conditions)} conditions")
        log.say(in_words(found))


