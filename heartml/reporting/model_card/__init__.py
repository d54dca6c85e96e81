"""The model card of a registered version: what it is, for whom, on which data, how good, how sure, and what it is not.

The usual form: Mitchell et al., Model Cards for Model Reporting (2019, doi 10.1145/3287560.3287596), with the front
matter that model hubs read. Every number comes from a file that the version's run keeps, or from the registry; what was
not kept is named as such. `gather` notes, when a version is registered, what only the working folder knows.
"""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from heartml.core import paths, tasks
from heartml.core.system.files import read_json, scratch
from heartml.data import datasets
from heartml.registry import champions, consent, tracking, versions
from heartml.registry.versions import Version
from heartml.reporting import number_format
from heartml.reporting.model_card import sections
from heartml.reporting.task_report import cautions, headline

if TYPE_CHECKING:
    from jinja2 import Environment

    from heartml.registry.tracking import Client

FILE, CARD = "card.json", "model_card.md"
Json = Mapping[str, Any]


@dataclass(frozen=True)
class StoredResults:
    """What the run of a version keeps, parsed; `None` where it does not.

    Attributes:
        noted: `card.json`, see `gather`.
        gate: the gate's verdict with its numbers.
    """

    noted: Json | None
    evaluation: Json | None
    robustness: Json | None
    validation: Json | None
    lineage: Json | None
    gate: Json | None
    params: Json | None


_FILES = {"noted": FILE, "evaluation": "evaluation/metrics.json", "robustness": "robustness.json",
          "validation": "validation/validation.json", "lineage": "lineage.json", "gate": "gate.json",
          "params": "params.yaml"}


def gather(name: str) -> dict[str, Any]:
    """What the card says of data and members, from the working folder; for `card.json` of the run."""
    assignment, model = tasks.resolve(name), read_json(paths.model(name) / "model.json")
    recordings = pd.read_parquet(paths.RECORDINGS)
    folds = pd.read_parquet(paths.folds(name))[["recording_id", "unit_id", "group_id", "part"]]
    used = recordings.drop(columns="group_id").merge(folds, on="recording_id", validate="1:1")
    quarantine = pd.read_parquet(paths.QUARANTINE)
    return {
        "collections": [_collection(of, used[used["dataset"] == of], quarantine[quarantine["dataset"] == of])
                        for of in assignment.datasets],
        "people": {column: used.drop_duplicates("unit_id")[column].fillna("not given").value_counts().sort_index()
                   .to_dict() for column in ("age_group", "sex")},
        "sample_rates_hz": sorted(used["sample_rate_hz"].unique().tolist()),
        "members": [{key: member.get(key) for key in ("trial", "encoder", "pooling", "head", "level")}
                    for member in model.get("members", [])],
        "readings": model.get("readings", []), "refer_below": model.get("refer_below"),
        "heartml": importlib.metadata.version("heartml"),
        "licence": importlib.metadata.metadata("heartml")["License-Expression"],
    }


def _collection(name: str, used: pd.DataFrame, refused: pd.DataFrame) -> dict[str, Any]:
    source = datasets.load(name)
    return {
        "name": name, "title": source.TITLE, "citation": source.CITATION, "licence": source.LICENCE,
        "recordings": len(used), "persons": used["patient_id"].nunique(), "groups": used["group_id"].nunique(),
        "hours": float(used["seconds"].sum()) / 3600, "sources": sorted(used["source"].dropna().unique().tolist()),
        "refused": refused["reason"].value_counts().sort_index().to_dict(),
    }


def read(client: "Client", version: Version) -> StoredResults:
    """Fetch what the run keeps; a file that is not there is no error, the card says so."""
    with scratch() as folder:
        found = {key: _parsed(client, version.run_id, name, folder) for key, name in _FILES.items()}
    return StoredResults(**found)


def _parsed(client: "Client", run_id: str, name: str, folder: Path) -> Json | None:
    parent = str(Path(name).parent)
    if name not in tracking.stored(client, run_id, None if parent == "." else parent):
        return None
    path = tracking.fetch(client, run_id, name, folder)
    parsed: Json = yaml.safe_load(path.read_text(encoding="utf-8")) if path.suffix == ".yaml" else read_json(path)
    return parsed


def text(client: "Client", version: Version) -> str:
    """The whole card as Markdown, with the version's standing as the registry has it now."""
    return render(version, read(client, version), champions.read(client, version.name))


def render(version: Version, kept: StoredResults, history: list[champions.Entry]) -> str:
    """The card's text. The same inputs give the same bytes."""
    assignment, found = tasks.resolve(version.name), kept.evaluation
    opening = headline.performance(found, _what(kept), _titles(kept, assignment.datasets)) if found else None
    facts = {
        "version": version, "kept": kept, "task": assignment.task, "datasets": assignment.datasets, "found": found,
        "opening": " ".join(opening) if opening else None, "standing": standing(version, history),
        "history": [e for e in history if version.number in (e.decision.version, e.decision.before)],
        "warnings": cautions.warnings(found) if found else [], "sections": sections,
    }
    body = environment().get_template("card.md.jinja").render(**facts)
    return f"---\n{yaml.safe_dump(front_matter(version, kept), sort_keys=False, allow_unicode=True)}---\n\n{body}"


def as_html(told: str) -> str:
    """The card as markup for a section of a page: without front matter and title, headings from <h3> on, escaped."""
    from markdown_it import MarkdownIt

    body = told.split("\n---\n", 1)[1].split("\n> ", 1)[1]
    tokens = MarkdownIt("commonmark", {"html": False}).enable("table")
    markup: str = tokens.render(f"> {body}")
    for level in (3, 2):
        markup = markup.replace(f"<h{level}>", f"<h{level + 1}>").replace(f"</h{level}>", f"</h{level + 1}>")
    return markup


def environment() -> "Environment":
    """Templates of this package. Markdown is no markup language of ours to escape; cells are made safe one by one."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(loader=PackageLoader("heartml.reporting.model_card"), undefined=StrictUndefined,
                        trim_blocks=True,
                        lstrip_blocks=True, keep_trailing_newline=True)
    found.filters |= {"figure": number_format.figure, "span": number_format.span, "listed": number_format.listed}
    return found


def _what(kept: StoredResults) -> str:
    members = (kept.noted or {}).get("members", [])
    return headline.model_in_words(len(members), len({m["encoder"] for m in members})) if members else "The model"


def _titles(kept: StoredResults, named: tuple[str, ...]) -> str:
    return number_format.listed([c["title"] for c in kept.noted["collections"]] if kept.noted else named)


def standing(version: Version, history: list[champions.Entry]) -> str:
    """Whether it serves, and by whose decision."""
    entry = champions.last(history)
    if gone := consent.words(version):
        return f"consent was withdrawn: {gone}"
    if versions.CHAMPION in version.aliases:
        return f"champion: {entry.in_words()}" if entry and entry.decision.version == version.number else "champion"
    return {versions.PROMOTED: "served, and was replaced", versions.REFUSED: "refused by the gate",
            versions.ABANDONED: "abandoned by a killed run"}.get(version.verdict or "", "not judged yet")


def front_matter(version: Version, kept: StoredResults) -> dict[str, Any]:
    """What model hubs read: licence, tags, and the held-out results."""
    licences = sorted({c["licence"] for c in kept.noted["collections"]}) if kept.noted else []
    found: dict[str, Any] = {
        "library_name": "heartml", "license": str((kept.noted or {}).get("licence") or "unknown").lower(),
        "pipeline_tag": "audio-classification",
        "tags": ["heart-sounds", "phonocardiogram", "not-a-medical-device"], "data_licences": licences,
    }
    if kept.evaluation:
        results = [{"type": name, "value": round(number["value"], 4)}
                   for name, number in kept.evaluation["held_out"].items() if number["value"] is not None]
        task = {"type": "audio-classification", "name": version.name}
        data = {"type": "held-out", "name": _titles(kept, tasks.resolve(version.name).datasets)}
        found["model-index"] = [{"name": f"{version.name} version {version.number}",
                                 "results": [{"task": task, "dataset": data, "metrics": results}]}]
    return found
