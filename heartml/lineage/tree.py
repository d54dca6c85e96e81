"""A chain as a tree of nodes, from the version to the recordings. The terminal and the HTML page both show this tree.

In: `chain.Chain`. Out: `Node`s with whole hashes. Nothing here depends on the width of a terminal.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from heartml.core.folds import labelled
from heartml.core.schema import TEST
from heartml.core.system.errors import HeartMLError
from heartml.data import datasets
from heartml.lineage.chain import Chain, StageRecord, TrackedPath
from heartml.registry import consent
from heartml.reporting.number_format import criterion
from heartml.reporting.outline import Node

if TYPE_CHECKING:
    import pandas as pd

_CHANGED = re.compile(r"^diff --git \"?a/(.+?)\"? \"?b/", re.MULTILINE)
_LONGEST_DIFF = 200_000     # characters on a page


def outline(chain: Chain, keep: int | None = None) -> Node:
    """The whole chain as a tree.

    Args:
        keep: how many recordings of each data set are listed; `None`: all.
    """
    version = chain.version
    state = ", ".join([f"version {version.number}", *version.aliases, *([version.verdict] if version.verdict else [])])
    return Node(version.name, state, under=(
        *_withdrawn(chain), *_retired(chain), *_decided(chain), _gate(chain), _run(chain), _code(chain), _lock(chain),
        _params(chain), *_weights(chain), _validation(chain), _folds(chain), _data(chain, keep), _environment(chain),
        _missing(chain),
    ), open=True)


def brief(chain: Chain) -> tuple[Node, ...]:
    """The chain in one line: the main parts with their hashes, and whether anything is missing."""
    code, data = chain.code, chain.data
    return (
        Node("version", chain.version.number), Node("run", digest=chain.version.run_id),
        Node("commit", "+ uncommitted changes" if code.dirty else "", code.commit or "not known", bad=not code.commit),
        Node("dvc.lock", digest=chain.lock.sha256 if chain.lock else "missing", bad=not chain.lock),
        Node("stages", str(len(chain.stages)), bad=not chain.stages),
        Node("data", digest=data.md5 if data else "missing", bad=not data),
        Node("recordings", _recordings(chain), bad=not len(chain.recordings)),
        Node("links missing", str(len(chain.missing)), bad=True) if chain.missing else Node("nothing missing"),
    )


def _recordings(chain: Chain) -> str:
    """How many recordings the task uses, and how many its data version has."""
    used, there = chain.folds["recording_id"].nunique() if len(chain.folds) else 0, len(chain.recordings)
    return f"{used:,} of {there:,} in this data version" if 0 < used < there else f"{there:,}"


def _withdrawn(chain: Chain) -> list[Node]:
    found = consent.describe(chain.version)
    return [Node("Consent withdrawn", found, bad=True)] if found else []


def _retired(chain: Chain) -> list[Node]:
    return [Node("Retired", chain.retirement.in_words(), bad=True)] if chain.retirement else []


def _decided(chain: Chain) -> list[Node]:
    return [Node("Decision", chain.decision.in_words(), bad=True)] if chain.decision else []


def _gate(chain: Chain) -> Node:
    gate = chain.gate
    if gate is None:
        reason = chain.version.tags.get("heartml.reason", "has not judged it yet")
        return Node("Gate", reason, bad=not chain.version.verdict)
    lines = tuple(Node("passed" if c["passed"] else "failed", f"{criterion(c['name'])}: {c['words']}",
                       bad=not c["passed"]) for c in gate["criteria"])
    return Node("Gate", gate["reason"], under=lines, open=True)


def _run(chain: Chain) -> Node:
    run = chain.run
    if run is None:
        return Node("Run", "gone", chain.version.run_id, bad=True)
    words = f"{run.status}, registered {_when(run.start_ms)} UTC"
    words += f" by {run.tags['mlflow.user']}" if run.tags.get("mlflow.user") else ""
    if run.end_ms:
        words += f", {(run.end_ms - run.start_ms) / 1000:.1f} s"
    inputs = tuple(Node("data set", entry["name"], entry["digest"]) for entry in run.data)
    counts = (Node("metrics", f"{len(run.metrics)} logged"), Node("parameters", f"{len(run.params)} logged"))
    return Node("Run", words, run.run_id, (*inputs, *counts), bad=run.status != "FINISHED")


def _when(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"


def _code(chain: Chain) -> Node:
    code = chain.code
    if not code.commit:
        return Node("Code", "the commit is not known", bad=True)
    left_out = tuple(Node("not in code.diff", words) for words in code.left_out)
    without = f"; left out: {'; '.join(code.left_out[:2])}{' ...' if code.left_out[2:] else ''}" if left_out else ""
    if not code.dirty:
        return Node("Code", f"commit, nothing uncommitted{without}", code.commit, left_out)
    changed = dict.fromkeys(_CHANGED.findall(code.diff or ""))
    words = f"commit, with {len(changed)} uncommitted files (code.diff)" if code.diff else "commit; the diff is lost"
    words += without
    diff = Node("diff", "", code.diff_sha256 or "", text=(code.diff or "")[:_LONGEST_DIFF])
    return Node("Code", words, code.commit, (*(Node("changed", file) for file in changed), *left_out, diff),
                bad=not code.diff)


def _lock(chain: Chain) -> Node:
    if chain.lock is None:
        return Node("dvc.lock", "missing", bad=True)
    stages = tuple(_stage(stage) for stage in chain.stages)
    return Node("dvc.lock", f"{len(stages)} stages behind this model", chain.lock.sha256, stages, open=True)


def _stage(stage: StageRecord) -> Node:
    code = [link for link in stage.inputs if link.path.startswith("heartml")]
    other = [link for link in stage.inputs if link not in code]
    params = [Node(name, _value(value)) for names in stage.params.values() for name, value in sorted(names.items())]
    return Node(stage.address, stage.command, under=(
        *(_link("reads", link) for link in other),
        Node("code", f"{len(code)} files and folders", under=tuple(_link("", link) for link in code)),
        *([Node("parameters", f"{len(params)}", under=tuple(params))] if params else []),
        *(_link("writes", link) for link in stage.outputs),
    ), open=True)


def _link(name: str, link: TrackedPath) -> Node:
    return Node(name, f"{link.path} ({link.files:,} files)" if link.files else link.path, link.md5, bad=not link.md5)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(item)}" for key, item in value.items()) + "}"
    return str(value)


def _params(chain: Chain) -> Node:
    if chain.params is None:
        return Node("params.yaml", "missing", bad=True)
    sections = tuple(Node(name, _value(value)) for name, value in chain.params.items())
    return Node("params.yaml", f"{len(sections)} sections", chain.facts.get("params_sha256") or "", sections)


def _weights(chain: Chain) -> list[Node]:
    """The weights that this project did not train, one node an encoder."""
    found = chain.facts.get("weights", [])
    lines = tuple(Node(one["encoder"], f"{one['kind']}, {one['weights']}, licence {one['licence']}; "
                       f"{'held by the model' if one['held'] else 'named by the model'}", one["sha256"])
                  for one in found)
    return [Node("Pre-trained weights", f"of {len(lines)} encoders", under=lines, open=True)] if lines else []


def _validation(chain: Chain) -> Node:
    found = chain.validation
    if found is None:
        return Node("Validation", "missing", bad=True)
    passed = bool(found.get("success"))
    lines = [Node("error", str(words), bad=True) for words in found.get("errors", [])]
    lines += [Node("warning", str(words)) for words in found.get("warnings", [])]
    words = f"{'passed' if passed else 'failed'}, {len(found.get('checks', []))} checks"
    return Node("Validation", f"{words}, {len(found.get('warnings', []))} warnings", under=tuple(lines), bad=not passed)


def _folds(chain: Chain) -> Node:
    if chain.folds.empty:
        return Node("Folds", "missing", bad=True)
    cases = labelled(chain.folds)
    parts = tuple(Node(_part(part), _counts(own)) for part, own in cases.groupby("part", sort=True))
    if len(context := chain.folds[chain.folds["label"].isna()]):
        parts += (Node("heard, not scored", _counts(context)),)
    crossing = int((chain.folds.groupby("group_id")["part"].nunique() > 1).sum())
    words = f"{_counts(cases)}; {f'{crossing} groups cross' if crossing else 'no group crosses'}"
    return Node("Folds", words, (chain.facts.get("outputs_sha256") or {}).get("folds", ""), parts, bad=crossing > 0,
                open=True)


def _part(part: object) -> str:
    if not isinstance(part, str):
        return "not used"
    return "held out" if part == TEST else f"fold {part}"


def _counts(rows: "pd.DataFrame") -> str:
    return f"{len(rows):,} recordings, {rows['unit_id'].nunique():,} units, {rows['group_id'].nunique():,} groups"


def _data(chain: Chain, keep: int | None) -> Node:
    if chain.data is None:
        return Node("Data", "missing", bad=True)
    sets = tuple(_data_set(str(name), own, keep) for name, own in chain.recordings.groupby("dataset", sort=True))
    size = f"{chain.data.files or 0:,} files, {(chain.data.bytes or 0) / 1e6:,.1f} MB"
    words = f"{size}, {len(chain.recordings):,} recordings of {chain.recordings['patient_id'].nunique():,} patients"
    return Node("Data", f"{words} ({', '.join(one.name for one in sets)})", chain.data.md5, sets,
                bad=chain.recordings.empty, open=True)


def _data_set(name: str, own: "pd.DataFrame", keep: int | None) -> Node:
    listed = own.sort_values("source_file", kind="stable")
    listed = listed if keep is None else listed.head(keep)
    columns = ("source_file", "source_sha256", "recording_id", "part", "licence")
    rows = [Node(str(file), f"{_part(part)}, recording {key[:12]}, {licence}", str(sha256))
            for file, sha256, key, part, licence in listed[list(columns)].astype(object).itertuples(index=False)]
    rest = len(own) - len(rows)
    more = [Node("", f"and {rest:,} more (`heartml lineage --recordings` lists all)")] if rest else []
    words = f"{len(own):,} recordings of {own['patient_id'].nunique():,} patients; licence {_listed(own['licence'])}"
    return Node(name, words, under=(*_cited(name), *rows, *more), open=True)


def _cited(dataset: str) -> list[Node]:
    try:
        return [Node("publisher", datasets.load(dataset).CITATION)]
    except HeartMLError:      # a collection whose mapping file is not here any more
        return []


def _listed(values: Iterable[object]) -> str:
    return ", ".join(sorted({str(value) for value in values}))


def _environment(chain: Chain) -> Node:
    found = chain.environment
    if not found:
        return Node("Environment", "missing", bad=True)
    packages = [Node(name, str(number)) for name, number in found.get("packages", {}).items()]
    lock = found.get("requirements_lock_sha256")
    hardware = f"{found.get('machine')}, {found.get('cores')} cores, {found.get('gpu') or 'no GPU'}"
    return Node("Environment", f"Python {found.get('python')}; {hardware}; {found.get('platform')}", under=(
        Node("requirements.lock", "" if lock else "missing", lock or "", bad=not lock), *packages))


def _missing(chain: Chain) -> Node:
    if not chain.missing:
        return Node("Missing", "nothing: every link was found")
    lines = tuple(Node("missing", words, bad=True) for words in chain.missing)
    return Node("Missing", f"{len(lines)} links", under=lines, bad=True, open=True)
