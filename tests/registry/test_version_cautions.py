"""What is said about a version before its predictions are trusted: who has which cautions, in which words."""

import json
from pathlib import Path
from typing import Any

import pytest

from heartml.core.config import PredictParams
from heartml.registry import consent, version_cautions
from heartml.registry.champions import GATE, NONE, PERSON, RETIREMENT, ROLLBACK, Decision, Entry
from heartml.registry.version_cautions import CautionedModel
from heartml.registry.versions import ABANDONED, PROMOTED, REFUSED, Version

TITLE = "simulated-murmur version 2: "
REFUSAL = {"heartml.verdict": REFUSED, "heartml.reason": "refused: floors: below the best baseline",
           "heartml.gate.floors": "failed (-0.1): below the best baseline", "heartml.gate.lineage": "passed: complete"}
ADA = "Ada Lovelace <ada@example.org>"


def version(**tags: str) -> Version:
    return Version("simulated-murmur", "2", "0f3a", "models:/m", (), tags, 0)


def entry(kind: str, before: str, number: str, reason: str = "I listened to its errors") -> Entry:
    return Entry(1, Decision(kind, number, before, reason, ADA), 0, counts=True, followed=True)


DATE, BELOW = "1970-01-01 00:00 UTC", "the gate refused it (floors: below the best baseline)"
PROMOTION = {"heartml.verdict": PROMOTED}
WITHDRAWAL = {**PROMOTION, consent.TAG: json.dumps({"circor-9979": {"recordings": 4, "in": ["training"]}})}
LEFT = {"heartml.verdict": REFUSED, "heartml.reason": "refused: retired", "heartml.gate.retired": "failed: version 1"}
CASES: dict[str, tuple[dict[str, str], list[Entry], list[str]]] = {
    "promoted by the gate": (PROMOTION, [entry(GATE, "1", "2")], []),
    "rolled back to, after the gate promoted it": (PROMOTION, [entry(ROLLBACK, "3", "2")], []),
    "refused": (REFUSAL, [], [BELOW]),
    "refused and promoted": (
        REFUSAL, [entry(PERSON, "1", "2")],
        [f"{BELOW}; promoted by {ADA} on {DATE} all the same: I listened to its errors"]),
    "refused and rolled back to": (
        REFUSAL, [entry(PERSON, "1", "2"), entry(ROLLBACK, "3", "2", "again")],
        [f"{BELOW}; rolled back to by {ADA} on {DATE} all the same: again"]),
    "another one promoted": (REFUSAL, [entry(PERSON, "1", "3")], [BELOW]),
    "not judged": ({}, [], ["the gate has not judged it"]),
    "killed": ({"heartml.verdict": ABANDONED}, [], ["the gate never judged it, its run was killed"]),
    "withdrawn": (
        WITHDRAWAL, [], ["consent for data in it was withdrawn: circor-9979 (4 recordings, training)"]),
    "retired": (
        PROMOTION, [entry(GATE, "1", "2"), entry(RETIREMENT, "2", NONE, "two\nlines")],
        [f"retired on {DATE} by {ADA}: two lines"]),
    "left to a person": (LEFT, [entry(PERSON, NONE, "2")], []),
    "left to a person who has not decided": (LEFT, [], ["the gate refused it (retired)"]),
    "refused for more than a retirement": (
        {**REFUSAL, "heartml.gate.retired": "failed: version 1"}, [entry(PERSON, NONE, "2", "why not")],
        [f"{BELOW}; promoted by {ADA} on {DATE} all the same: why not"]),
}


@pytest.mark.parametrize("name", CASES)
def test_each_caution_is_one_line_with_the_versions_name(name: str) -> None:
    tags, history, expected = CASES[name]
    found = version_cautions.of(version(**tags), history)
    assert list(found) == [TITLE + words for words in expected]
    assert all(len(line.splitlines()) == 1 for line in found)


@pytest.mark.parametrize("name", CASES)
def test_what_leaves_the_project_names_nobody(name: str) -> None:
    tags, history, expected = CASES[name]
    found = version_cautions.of(version(**tags), history, named=False)
    assert list(found) == [TITLE + words.replace(ADA, "a person") for words in expected]


def test_long_reasons_are_cut_and_cannot_write_on_a_terminal() -> None:
    tags = {**REFUSAL, "heartml.reason": "refused: \x1b[2J " + "so many words " * 300}
    [found] = version_cautions.of(version(**tags), [entry(PERSON, "1", "2", "because " * 300)])
    assert len(found) < 800
    assert "\x1b" not in found


def test_a_setting_makes_a_caution_an_error() -> None:
    warn, refuse = (PredictParams(least_confidence=0.6, loudest_lead=0.1, **of) for of in (
        {}, {"cautioned_model": "refuse"}))      # type: ignore[arg-type]
    version_cautions.check(["a: b"], warn)
    version_cautions.check([], refuse)
    with pytest.raises(CautionedModel, match=r"a: b\. `predict.cautioned_model: refuse` in params.yaml .* --model"):
        version_cautions.check(["a: b"], refuse)


@pytest.mark.parametrize("content", ["", "[]", '{"cautions": 1}', b"\xff"])
def test_beside_a_copy_they_are_read_again_and_damage_is_said(tmp_path: Path, content: Any) -> None:
    folder = tmp_path / "served"
    assert version_cautions.read_beside(folder) == ()
    file = version_cautions.write_beside(folder, ["one", "two"])
    assert version_cautions.read_beside(folder) == ("one", "two")
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    [words] = version_cautions.read_beside(folder)
    assert "damaged" in words and "heartml verify" in words
