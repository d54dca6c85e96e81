"""The model card of a registered version: what it is, for whom, on which data, how good, and what it is not for.

The usual form: Mitchell et al., Model Cards for Model Reporting (2019, doi 10.1145/3287560.3287596), with the front
matter that model hubs read. In: the files that the version's run has stored, and the registry. Out: Markdown. Where a
file was not stored, the card says so. When a version is registered, `gather` collects what only the working folder has.
"""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from heartml.core import folds, paths, tasks
from heartml.core.system.files import read_json, temporary_folder
from heartml.core.task_definition import HEART
from heartml.data import datasets
from heartml.registry import champions, consent, tracking, version_cautions, versions
from heartml.registry.versions import Version
from heartml.reporting import number_format
from heartml.reporting.model_card import sections
from heartml.reporting.task_report import cautions, headline

if TYPE_CHECKING:
    from jinja2 import Environment

    from heartml.registry.tracking import Client

FILE, CARD = "card.json", "model_card.md"
Json = Mapping[str, Any]
_TAGS = {"heart": ["heart-sounds", "phonocardiogram"], "lung": ["lung-sounds", "respiratory-sounds"]}
_LONGEST_EXCERPT = 3000      # characters; a description holds 5,000


@dataclass(frozen=True)
class StoredResults:
    """The parsed files of a version's run; `None` where a file was not stored.

    Attributes:
        facts: `card.json`, see `gather`.
        gate: the gate's verdict with its numbers.
    """

    facts: Json | None
    evaluation: Json | None
    robustness: Json | None
    validation: Json | None
    lineage: Json | None
    gate: Json | None
    params: Json | None


_FILES = {"facts": FILE, "evaluation": "evaluation/metrics.json", "robustness": "robustness.json",
          "validation": "validation/validation.json", "lineage": "lineage.json", "gate": "gate.json",
          "params": "params.yaml"}


def gather(name: str) -> dict[str, Any]:
    """The content of `card.json`: the facts on data and members that only the working folder has.

    Args:
        name: the task, for instance `circor-murmur`.
    """
    model = read_json(paths.model(name) / "model.json")
    recordings = pd.read_parquet(paths.RECORDINGS)
    cases = folds.read(paths.folds(name), ["recording_id", "unit_id", "group_id", "part"])
    used = recordings.drop(columns="group_id").merge(cases, on="recording_id", validate="1:1")
    quarantine = pd.read_parquet(paths.QUARANTINE)
    return {
        "collections": [_collection(of, used[used["dataset"] == of], quarantine[quarantine["dataset"] == of])
                        for of in tasks.datasets_of(name)],
        "people": {column: used.drop_duplicates("unit_id")[column].fillna("not given").value_counts().sort_index()
                   .to_dict() for column in ("age_group", "sex")},
        "sample_rates_hz": sorted(used["sample_rate_hz"].unique().tolist()),
        "members": [{key: member.get(key) for key in ("trial", "encoder", "pooling", "head", "level")}
                    for member in model.get("members", [])],
        "readings": model.get("readings", []), "refer_below": model.get("refer_below"),
        "applicability": model.get("applicability"),
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
    """Fetch and parse the files of the version's run. A missing file is no error; the card then says so."""
    with temporary_folder() as folder:
        found = {key: _parsed(client, version.run_id, name, folder) for key, name in _FILES.items()}
    return StoredResults(**found)


def _parsed(client: "Client", run_id: str, name: str, folder: Path) -> Json | None:
    parent = str(Path(name).parent)
    if name not in tracking.list_files(client, run_id, None if parent == "." else parent):
        return None
    path = tracking.fetch(client, run_id, name, folder)
    parsed: Json = yaml.safe_load(path.read_text(encoding="utf-8")) if path.suffix == ".yaml" else read_json(path)
    return parsed


def text(client: "Client", version: Version) -> str:
    """The whole card as Markdown, with the version's present status in the registry."""
    return render(version, read(client, version), champions.read(client, version.name))


def render(version: Version, stored: StoredResults, history: list[champions.Entry]) -> str:
    """The card's text. The same inputs give the same bytes."""
    found, used = stored.evaluation, tasks.datasets_of(version.name)
    task = tasks.of_stored(found or {}, version.name)
    opening = headline.performance(found, _what(stored), _titles(stored, used)) if found else None
    facts = {
        "version": version, "stored": stored, "task": task, "datasets": used, "found": found,
        "opening": " ".join(opening) if opening else None, "status": status(version, history),
        "cautions": version_cautions.of(version, history),
        "history": [e for e in history if version.number in (e.decision.version, e.decision.before)],
        "warnings": cautions.warnings(found, datasets.cautions(used)) if found else [], "sections": sections,
    }
    body = environment().get_template("card.md.jinja").render(**facts)
    return f"---\n{yaml.safe_dump(front_matter(version, stored), sort_keys=False, allow_unicode=True)}---\n\n{body}"


def as_html(card: str) -> str:
    """The card as HTML for a section of a page: without front matter and title, headings from <h3> on, escaped.

    Args:
        card: the Markdown of `text`.
    """
    from markdown_it import MarkdownIt

    body = card.split("\n---\n", 1)[1].split("\n> ", 1)[1]
    tokens = MarkdownIt("commonmark", {"html": False}).enable("table")
    markup: str = tokens.render(f"> {body}")
    for level in (3, 2):
        markup = markup.replace(f"<h{level}>", f"<h{level + 1}>").replace(f"</h{level}>", f"</h{level + 1}>")
    return markup


def excerpt(card: str) -> str:
    """The opening of a card, for a description in the registry: what it is not for, what it is, and how good.

    The status, which changes later, is not in it.

    Args:
        card: the Markdown of `text`.
    """
    opening = card.split("\n---\n", 1)[1].split("\n> ", 1)[1]
    for end in ("\nStatus in the registry", "\n## "):
        opening = opening.split(end, 1)[0]
    return f"> {opening.strip()}"[:_LONGEST_EXCERPT] + f"\n\nThe whole card: {CARD}, among the files of the run."


def environment() -> "Environment":
    """Load templates of this package.

    Markdown has no automatic escaping: `sections.cell` escapes each table cell, and as the filter `text` whatever a
    person, a publisher or a file's name says.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(loader=PackageLoader("heartml.reporting.model_card"), undefined=StrictUndefined,
                        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    found.filters |= {"figure": number_format.figure, "span": number_format.span, "listed": number_format.listed,
                      "text": sections.cell}
    return found


def _what(stored: StoredResults) -> str:
    members = (stored.facts or {}).get("members", [])
    return headline.model_in_words(len(members), len({m["encoder"] for m in members})) if members else "The model"


def _titles(stored: StoredResults, datasets_used: tuple[str, ...]) -> str:
    return number_format.listed([c["title"] for c in stored.facts["collections"]] if stored.facts else datasets_used)


def status(version: Version, history: list[champions.Entry]) -> str:
    """The version's status in the registry: champion or not, and by whose decision."""
    entry = champions.last(history)
    if gone := consent.describe(version):
        return f"consent was withdrawn: {gone}"
    if versions.CHAMPION in version.aliases:
        return f"champion: {entry.in_words()}" if entry and entry.decision.version == version.number else "champion"
    if retired := champions.retired(history, version.number):
        return f"was the champion, and was retired: {retired.in_words()}"
    return {versions.PROMOTED: "was the champion, and was replaced", versions.REFUSED: "refused by the gate",
            versions.ABANDONED: "abandoned by a killed run"}.get(version.verdict or "", "not decided yet")


def front_matter(version: Version, stored: StoredResults) -> dict[str, Any]:
    """The YAML header that model hubs read: licence, tags, and the held-out results."""
    licences = sorted({c["licence"] for c in stored.facts["collections"]}) if stored.facts else []
    found: dict[str, Any] = {
        "library_name": "heartml", "license": str((stored.facts or {}).get("licence") or "unknown").lower(),
        "pipeline_tag": "audio-classification",
        "tags": [*_TAGS[(stored.evaluation or {}).get("organ", HEART)], "not-a-medical-device"],
        "data_licences": licences,
    }
    if stored.evaluation:
        results = [{"type": name, "value": round(number["value"], 4)}
                   for name, number in stored.evaluation["held_out"].items() if number["value"] is not None]
        task = {"type": "audio-classification", "name": version.name}
        data = {"type": "held-out", "name": _titles(stored, tasks.datasets_of(version.name))}
        found["model-index"] = [{"name": f"{version.name} version {version.number}",
                                 "results": [{"task": task, "dataset": data, "metrics": results}]}]
    return found
