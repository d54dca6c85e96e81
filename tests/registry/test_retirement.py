"""A champion that a person takes out of service: recorded, finished after a death, and undone by a person alone."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.mortal_client import Killed, MortalClient

from heartml.audit import registry_claims
from heartml.audit.links import LinkBroken
from heartml.inference import model_lookup
from heartml.inference.model_lookup import NothingServes
from heartml.lineage import tree
from heartml.registry import champions, model_files, tracking, versions
from heartml.registry.champions import FOUND, GATE, NONE, PERSON, RETIREMENT, ROLLBACK
from heartml.registry.versions import CHAMPION, ChampionChanged, RegistryError, Version
from heartml.release import gate, outcome, overrides
from heartml.release.overrides import PromotionRefused
from heartml.reporting import model_card

NAME = "simulated-murmur"
WHY = "misses loud murmurs of newborns"
PROMOTE: dict[str, Any] = {"promote": True, "reason": "promoted: it is better", "criteria": []}


def replayed(*decisions: tuple[str, str, str]) -> list[champions.Entry]:
    """The journal with decisions (kind, before, version)."""
    return champions.replay([SimpleNamespace(  # type: ignore[misc]
        version=str(n), creation_timestamp=0, tags={"heartml.kind": kind, "heartml.before": before,
                                                    "heartml.version": version})
        for n, (kind, before, version) in enumerate(decisions, 1)])


@pytest.mark.parametrize("name", ["a'b", "a/b", "a\udcffb", ""])
def test_a_name_that_no_model_can_have_is_named(name: str) -> None:
    for act in (lambda: overrides.retire(name, WHY), lambda: overrides.roll_back(name, None, WHY)):
        with pytest.raises(RegistryError, match="is not a valid name of a model"):
            act()


def test_a_reason_that_no_registry_can_keep_is_named() -> None:
    with pytest.raises(PromotionRefused, match="the reason is not UTF-8"):
        overrides.retire(NAME, "caf\udce9")
    with pytest.raises(PromotionRefused, match=r"has 4,901 characters, and a registry keeps 4,900: shorten it"):
        overrides.promote(f"{NAME}/1", "x" * 4901)


def test_a_reply_is_not_kept_where_the_registry_is_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".heartml").mkdir()
    (tmp_path / ".heartml/mlflow.db").write_bytes(b"x")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    answers = iter(({"answer": 1}, {"answer": 2}, {"answer": 3}))
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://elsewhere")
    assert [model_lookup._reply("q", lambda: next(answers)) for _ in "ab"] == [{"answer": 1}, {"answer": 2}]
    monkeypatch.delenv("MLFLOW_REGISTRY_URI")
    assert [model_lookup._reply("q", lambda: next(answers)) for _ in "ab"] == [{"answer": 3}, {"answer": 3}]


@pytest.mark.parametrize(("kind", "counts"), [(GATE, False), (PERSON, True), (ROLLBACK, True), (FOUND, True)])
def test_after_a_retirement_a_person_decides_and_not_the_gate(kind: str, counts: bool) -> None:
    story = replayed((GATE, NONE, "1"), (RETIREMENT, "1", NONE), (kind, NONE, "2"), (GATE, "2", "3"))
    assert [entry.counts for entry in story] == [True, True, counts, counts]
    assert champions.serving_version(story) == ("3" if counts else NONE)
    assert (champions.retirement(story) is None) == counts


def test_a_journal_without_a_retirement_reads_as_before() -> None:
    story = replayed((GATE, NONE, "1"), (FOUND, "1", NONE), (GATE, NONE, "2"), (ROLLBACK, "2", "1"))
    assert all(entry.counts for entry in story)
    assert champions.serving_version(story) == "1"
    assert champions.retired(story, "1") is champions.retirement(story) is None


def test_a_version_is_retired_until_it_serves_again() -> None:
    story = [(GATE, NONE, "1"), (RETIREMENT, "1", NONE), (PERSON, NONE, "2")]
    assert champions.retired(replayed(*story), "1")
    assert not champions.retired(replayed(*story), "2")
    assert not champions.retired(replayed(*story, (ROLLBACK, "2", "1")), "1")


def test_the_gate_refuses_whatever_comes_and_says_whose_decision_it_is() -> None:
    entry = champions.Entry(2, champions.Decision(RETIREMENT, NONE, "1", WHY, "Ada"), 0, counts=True, followed=True)
    fine = gate.no_problems("lineage", [], "complete")
    verdict = gate.decide([*gate.decided_by_a_person(entry), fine], None, first=True)
    assert not verdict.promote
    assert verdict.reason == ("refused: retired: no version serves since 1970-01-01 00:00 UTC, version 1 was retired "
                              f"by Ada: {WHY}; `heartml promote` decides")


def test_audit_card_and_lineage_say_that_a_version_was_retired(monkeypatch: pytest.MonkeyPatch) -> None:
    retired = champions.Entry(2, champions.Decision(RETIREMENT, NONE, "1", WHY, "Ada"), 0, counts=True, followed=True)
    monkeypatch.setattr(champions, "read", lambda *_: [retired])
    words = f"no version serves since 1970-01-01 00:00 UTC, version 1 was retired by Ada: {WHY}"
    tags = {"heartml.verdict": "promoted"}
    for number, known in (("1", True), ("2", False)):
        version = Version(NAME, number, "0f3a", "models:/m", (), tags, 0)
        evidence: Any = SimpleNamespace(version=version, client=None)
        assert (f"not champion: {words}" in registry_claims.alias(evidence)) == known
        assert (words in model_card.status(version, [retired])) == known
        of_version = champions.retired([retired], number)
        [*found] = tree._retired(SimpleNamespace(retirement=of_version))     # type: ignore[arg-type]
        assert [node.words for node in found] == [words] * known
    left: Any = SimpleNamespace(version=Version(NAME, "1", "0f3a", "models:/m", (CHAMPION,), tags, 0), client=None)
    with pytest.raises(LinkBroken, match="journal of decisions says that no version serves"):
        registry_claims.alias(left)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Any:
    """A client of a store of this test's own, where the files of every version are there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(model_files, "download", lambda _, __, into: into)
    Path(".heartml").mkdir()
    shutil.copyfile(empty_store, ".heartml/mlflow.db")
    return tracking.connect()


def judged(client: Any, key: str, compared_with: str | None, name: str = NAME) -> Version:
    version = versions.register(client, name, run_id="0" * 32, source="runs:/0/model", key=key)
    versions.record_verdict(client, version, PROMOTE, compared_with)
    return version


def story(client: Any, name: str = NAME) -> list[tuple[str, str, str, bool, bool]]:
    return [(e.decision.kind, e.decision.before, e.decision.version, e.counts, e.followed)
            for e in champions.read(client, name)]


def test_a_retired_champion_serves_nobody_until_a_person_promotes(
    client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rival = judged(client, "k2", None)      # judged before there was a champion, and settled after the retirement
    versions.settle(client, judged(client, "k1", None))
    done = overrides.retire(NAME, WHY)
    assert done.in_words().startswith(f"{NAME}: no version serves since ")
    assert f"version 2 was retired by {overrides.current_person()}: {WHY}" in done.in_words()
    assert versions.champion(client, NAME) is None
    for attempt in (lambda: versions.get(client, NAME), lambda: overrides.retire(NAME, "again"),
                    lambda: overrides.roll_back(NAME, None, "back"),
                    lambda: model_lookup.locate(None, NAME, ()), lambda: model_lookup.locate(NAME, None, ())):
        with pytest.raises((RegistryError, PromotionRefused, NothingServes)) as refused:
            attempt()
        assert f"nothing serves: version 2 was retired on {done.entry.when} by " in str(refused.value)  # type: ignore[union-attr]
        assert f'because "{WHY}". Promote a version with `heartml promote {NAME}/VERSION' in str(refused.value)
    assert model_lookup.companion_models(model_lookup.LocatedModel(Path(), "a folder", None, None), [NAME]) == []
    with pytest.raises(ChampionChanged, match="no version serves now"):
        versions.settle(client, rival)
    assert len(story(client)) == 2
    outcome.show_history({NAME: champions.read(client, NAME)})
    assert f"{NAME}/2  retired by " in capsys.readouterr().out.replace("\n", " ")
    overrides.promote(f"{NAME}/1", "listened to all of its errors")
    assert versions.get(client, NAME).number == "1"
    with pytest.raises(PromotionRefused, match=r"nothing served before version 1. Choose .* --to \(2\)"):
        overrides.roll_back(NAME, None, "back")
    overrides.roll_back(NAME, "2", "it was the stethoscope")
    assert versions.get(client, NAME).number == "2"


def test_a_death_at_any_write_is_finished_when_it_is_done_again(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def retire(name: str, lives: float) -> MortalClient:
        mortal = MortalClient(client, lives)
        with monkeypatch.context() as patch:
            patch.setattr(tracking, "connect", lambda **_: mortal)
            overrides.retire(name, WHY)
        return mortal

    versions.settle(client, judged(client, "k1", None, "simulated-undisturbed"))
    undisturbed = retire("simulated-undisturbed", float("inf"))
    assert undisturbed.writes == 3
    for lives in range(undisturbed.writes):
        name = f"simulated-killed{lives}"
        versions.settle(client, judged(client, "k1", None, name))
        with pytest.raises(Killed):
            retire(name, lives)
        assert (versions.retirement(client, name) is None) == (lives == 0), "in the journal it is retired already"
        retire(name, float("inf"))
        assert story(client, name) == story(client, "simulated-undisturbed")
        assert versions.champion(client, name) is None


def test_an_alias_that_somebody_set_since_serves(client: Any) -> None:
    versions.settle(client, judged(client, "k1", None))
    overrides.retire(NAME, WHY)
    client.set_registered_model_alias(NAME, CHAMPION, "1")
    assert versions.retirement(client, NAME) is None
    assert versions.get(client, NAME).number == "1"


def test_there_must_be_a_champion_and_a_reason(client: Any) -> None:
    with pytest.raises(PromotionRefused, match="needs a reason"):
        overrides.retire(NAME, " ")
    with pytest.raises(RegistryError, match="heartml models"):
        overrides.retire(NAME, WHY)
