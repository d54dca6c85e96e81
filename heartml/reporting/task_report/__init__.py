"""The report of one task: one self-contained HTML page that starts with the result.

In: the outputs of validate, split, search, ensemble, evaluate and robustness; from the retraining flow also the gate's
verdict and the lineage. Out: the text of the page. The stage `report` writes it without a verdict, the flow with one.
The page has no date and no path, and it fetches nothing: the same inputs give the same bytes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from heartml.audio import quality, sound_files
from heartml.audio.quality import Quality
from heartml.core import config, folds, paths, tasks
from heartml.core.config import Params
from heartml.core.system.files import read_json
from heartml.core.system.hashing import sha256_file, sha256_folder
from heartml.core.task_definition import HEART, Organ
from heartml.data import datasets
from heartml.evaluation import plot_tables
from heartml.evaluation.assessment import HELD_OUT, PARTS
from heartml.reporting.environment import environment
from heartml.reporting.outline import Lineage
from heartml.reporting.task_report import cautions, charts, headline, listening, tables, worst_errors

Json = Mapping[str, Any]


def render(name: str, comparison: Json | None, lineage: Lineage | None, card: str | None = None) -> str:
    """The whole page as HTML.

    Args:
        name: the task, `circor-murmur`; its artifacts lie in the working folder.
        comparison: `gate.Verdict.as_json()` with `version` and `champion` (version numbers or null); `None` where the
            gate has not decided yet.
        lineage: of the registered version (heartml/lineage); `None` where none is registered.
        card: the model card as HTML with headings from <h3> on; `None` where no version is registered.
    """
    found = read_json(paths.evaluation(name) / "metrics.json")
    organ = found.get("organ", HEART)
    params = config.load().for_organ(organ)
    model = read_json(paths.model(name) / "model.json")
    page = environment().get_template("report.html.jinja")
    return page.render(
        name=name, found=found, comparison=comparison, organ=organ, band_hz=params.organ(organ).band_hz,
        **first_screen(name, found, model, comparison),
        parts=[part_section(found, part, comparison) for part in PARTS],
        locations=tables.locations(found), baseline_classes=tables.baseline_classes(found),
        calibration=tables.calibration(found, PARTS), referral=tables.referral(found, PARTS),
        robustness=robustness_section(name, organ),
        heart_states=tables.heart_states(read_json(paths.heart_states(name) / "measures.json")),
        worst_errors=worst_errors_section(name, found, params), data=data_section(name),
        search=search_section(name, found), members=members_table(model),
        lineage=lineage, hashes=hashes(name), card=card,
        titles=headline.TITLES, warnings=cautions.warnings(found, datasets.cautions(tasks.resolve(name).datasets)),
        excerpt_s=listening.EXCERPT_S, meanings=headline.meanings(found),
    )


def first_screen(name: str, found: Json, model: Json, comparison: Json | None) -> dict[str, Any]:
    """The texts of the first screen."""
    assignment = tasks.resolve(name)
    titles = " and ".join(datasets.load(dataset).TITLE for dataset in assignment.datasets)
    encoders = {member["encoder"] for member in model["members"]}
    what = headline.model_in_words(len(model["members"]), len(encoders))
    return {
        "state": headline.state(found, comparison), "headline": headline.headline(found, comparison),
        "performance": headline.performance(found, what, titles),
        "champion": headline.against_champion(found, comparison),
    }


def part_section(found: Json, part: str, comparison: Json | None) -> dict[str, Any]:
    """Tables and charts of one part: held out or out of fold."""
    held_out = part == HELD_OUT
    folder = paths.evaluation(found["assignment"]) / "plots"

    def plot(kind: str) -> pd.DataFrame:
        table = plot_tables.read_plot(folder / f"{kind}.csv")
        return table[table["part"] == part]

    classes = found["classes"]
    drawn = [charts.roc(plot("roc"), classes), charts.precision_recall(plot("precision_recall"), classes),
             charts.calibration(plot("calibration")),
             charts.abstention(plot("abstention"), found["metric"], found["referral"][part])]
    return {
        "name": part, "title": "On the held-out part" if held_out else "Out of fold, on everything else",
        "counts": found["counts"][part],
        "results": tables.results(found, part, "floors" if held_out else "floors_out_of_fold",
                                  comparison if held_out else None),
        "classes": tables.classes(found, part), "subgroups": tables.subgroups(found, part),
        "undivided": tables.undivided(found, part), "coarse_classes": tables.coarse_classes(found, part),
        "confusion": confusion(found["confusion"][part]), "charts": [chart for chart in drawn if chart],
    }


def confusion(counts: Sequence[Sequence[int]]) -> list[list[tuple[int, int]]]:
    """Counts [k, k] with their share of the row in whole percent, which sets the shade of the cell."""
    return [[(count, round(100 * count / max(1, sum(row)))) for count in row] for row in counts]


def robustness_section(name: str, organ: Organ) -> dict[str, Any]:
    """The held-out scores on degraded recordings."""
    found = read_json(paths.robustness(name))
    return {"found": found, "charts": charts.noise(found, organ), "table": tables.robustness(found)}


def worst_errors_section(name: str, found: Json, params: Params) -> list[worst_errors.WorstError]:
    """The worst errors, held out and out of fold, with their recordings."""
    folder = paths.evaluation(name)
    predictions = [pd.read_parquet(path) for path in (folder / "predictions.parquet", paths.out_of_fold(name))]
    chosen = worst_errors.worst(pd.concat(predictions, ignore_index=True), params.report.worst_errors)
    places = pd.read_parquet(paths.RECORDINGS, columns=["recording_id", "location"])
    units = folds.read(paths.folds(name), ["recording_id", "unit_id"])
    columns = ["recording_id", *(f"p_{label}" for label in found["classes"])]
    alone = pd.read_parquet(folder / "recordings.parquet", columns=columns)
    recordings = units.merge(places, on="recording_id").merge(alone, on="recording_id", how="left")
    signal = pd.read_parquet(paths.VALIDATION / "signal.parquet").set_index("recording_id")

    organ = found.get("organ", HEART)

    def warnings(recording_id: str) -> list[str]:
        measured = Quality(**signal.loc[recording_id, list(Quality.__annotations__)])
        return list(quality.warnings(measured, params.validate_, organ).values())

    def load(recording_id: str) -> tuple[Any, int]:
        samples = sound_files.read(paths.audio(recording_id))
        return samples.floats, samples.sample_rate_hz

    annotations = pd.read_parquet(paths.ANNOTATIONS)
    states = pd.read_parquet(paths.heart_states(name) / "states.parquet")
    return worst_errors.prepare(chosen, recordings, found["classes"], annotations, states, warnings, load,
                                round(params.organ(organ).band_hz[1]))


def data_section(name: str) -> dict[str, Any]:
    """The data: counts, sources, the result of validation, and the files in quarantine."""
    assignment = tasks.resolve(name)
    recordings = pd.read_parquet(paths.RECORDINGS, columns=["recording_id", "dataset", "seconds"])
    used = folds.read(paths.folds(name))
    own = recordings[recordings["recording_id"].isin(used["recording_id"])]
    refused = pd.read_parquet(paths.QUARANTINE).sort_values(["reason", "source_file"], kind="stable")
    quarantine = refused[refused["dataset"].isin(assignment.datasets)]
    sources = [datasets.load(dataset) for dataset in assignment.datasets]
    return {
        "recordings": len(own), "hours": float(own["seconds"].sum()) / 3600,
        "validation": read_json(paths.VALIDATION / "validation.json"),
        "quarantined": len(quarantine),
        "quarantine": {reason: table.to_dict("records") for reason, table in quarantine.groupby("reason", sort=True)},
        "sources": [{"title": s.TITLE, "citation": s.CITATION, "licence": s.LICENCE} for s in sources],
    }


def search_section(name: str, found: Json) -> dict[str, Any]:
    """The trials of the search in their order, and how much each choice mattered."""
    trials = pd.read_parquet(paths.search(name) / "trials.parquet")
    return {
        "trials": len(trials), "states": trials["state"].value_counts().sort_index().to_dict(),
        "charts": [chart for chart in (charts.trials(trials, found["metric"]), charts.history(trials, found["metric"]))
                   if chart],
        "importance": charts.importance(trials), "table": trials_table(trials, found["metric"]),
    }


def trials_table(trials: pd.DataFrame, metric: str) -> dict[str, Any]:
    """Every trial of the search, the best first; one that was pruned has no value."""
    ordered = trials.sort_values(["value", "trial"], ascending=[False, True], kind="stable")
    rows = [(row["trial"], "pruned" if pd.isna(row["value"]) else f"{row['value']:.3f}", row["folds"], row["encoder"],
             "" if pd.isna(row["pooling"]) else row["pooling"], row["head"], f"{row['level']}s")
            for row in ordered.to_dict("records")]
    value = f"{headline.TITLES[metric]}, out of fold"
    return {"columns": ("Trial", value, "Folds", "Encoder", "Pooling", "Head", "Level"), "rows": rows}


STACKERS = {"trees": " by trees", "mean": " by logistic regression and trees"}     # else by logistic regression


def members_table(model: Json) -> dict[str, Any]:
    """The members of the ensemble: one row a stacking view of a member, with its weight.

    Args:
        model: `model.json`, or `card.json` of a registered version; the views are in its key `readings`.
    """
    by_trial = {member["trial"]: member for member in model["members"]}
    rows = []
    for view in model["readings"]:
        member = by_trial[view["trials"][0]]
        kind = f"{view['kind']}{STACKERS.get(view.get('stacker', ''), '')}"
        rows.append((", ".join(map(str, view["trials"])), member["encoder"], member["pooling"] or "", member["head"],
                     f"{member['level']}s", kind, f"{view['weight']:g}"))
    return {"columns": ("Trial", "Encoder", "Pooling", "Head", "Level", "View", "Weight"), "rows": rows}


def hashes(name: str) -> list[tuple[str, str]]:
    """SHA-256 of what the page was made from."""
    return [
        ("Recordings table, SHA-256", sha256_file(paths.RECORDINGS)),
        ("Folds, SHA-256", sha256_file(paths.folds(name))),
        ("Model, SHA-256", sha256_folder(paths.model(name))),
        ("Evaluation, SHA-256", sha256_folder(paths.evaluation(name))),
    ]
