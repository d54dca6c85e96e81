"""The journal of champions: of rivals one wins, wherever they are; no death leaves a half promotion; people decide."""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.mortal_client import Killed, MortalClient

from heartml.registry import champions, consent, model_files, tracking, versions
from heartml.registry.champions import FOUND, GATE, NONE, PERSON, ROLLBACK
from heartml.registry.versions import CHAMPION, ChampionChanged, Version
from heartml.release import outcome, overrides
from heartml.release.overrides import PromotionRefused

NAME = "simulated-murmur"
PROMOTE = {"promote": True, "reason": "promoted: it is better", "criteria": [
    {"name": "floors", "passed": True, "value": 0.25, "required": 0.0, "words": "above the floors"},
    {"name": "lineage", "passed": True, "value": 0.0, "required": 0.0, "words": "complete"}]}
REFUSE = {"promote": False, "reason": "refused: floors", "criteria": [
    {"name": "floors", "passed": False, "value": -0.1, "required": 0.0, "words": "below the floors"}]}
NO_LINEAGE = {"promote": False, "reason": "refused: lineage", "criteria": [
    {"name": "lineage", "passed": False, "value": 1.0, "required": 0.0, "words": "no git commit"}]}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Any:
    """A client of a store of this test's own, in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path(".heartml").mkdir()
    shutil.copyfile(empty_store, ".heartml/mlflow.db")
    return tracking.connect()


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every version's files are there and sound, but for those named in this list."""
    gone: list[str] = []

    def download(_: Any, version: Version, into: Path) -> Path:
        if version.number in gone:
            raise versions.RegistryError(f"{version.name} version {version.number}: its files are gone")
        return into

    monkeypatch.setattr(model_files, "download", download)
    return gone


def judged(client: Any, key: str, verdict: dict, compared_with: str | None, name: str = NAME) -> Version:
    with tracking.run(client, name, key) as run_id:
        tracking.log_files(client, run_id, {"gate.json": "{}"})
    version = versions.register(client, name, run_id=run_id, source=f"runs:/{run_id}/model", key=key)
    versions.record_verdict(client, version, verdict, compared_with)
    return version


def promoted(client: Any, *keys: str) -> None:
    for key in keys:
        before = versions.champion(client, NAME)
        versions.settle(client, judged(client, key, PROMOTE, before.number if before else None))


def serves(client: Any, name: str = NAME) -> str:
    found = versions.champion(client, name)
    return found.number if found else NONE


def story(client: Any, name: str = NAME) -> list[tuple[str, str, str, bool]]:
    return [(e.decision.kind, e.decision.before, e.decision.version, e.counts) for e in champions.read(client, name)]


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every thread were a machine of its own: no lock is common to them, only the server is."""
    @contextlib.contextmanager
    def unlocked() -> Iterator[None]:
        yield

    monkeypatch.setattr(versions, "_registry_lock", unlocked)


def test_the_journal_names_each_champion_and_is_no_model(client) -> None:
    promoted(client, "k1", "k2")
    versions.settle(client, judged(client, "k3", REFUSE, "2"))
    assert story(client) == [(GATE, NONE, "1", True), (GATE, "1", "2", True)]
    assert versions.model_names(client) == [NAME]
    first = champions.read(client, NAME)[0]
    assert first.decision.reason == "promoted: it is better"
    assert first.followed


def test_of_rivals_on_several_machines_exactly_one_is_promoted(client, machines) -> None:
    promoted(client, "k0")
    rivals = [judged(client, f"k{n}", PROMOTE, "1") for n in (1, 2, 3)]
    ready = threading.Barrier(3)
    checked = versions._note_moved_by_hand

    def settle(version: Version) -> str:
        try:
            versions.settle(tracking.connect(), version)
        except ChampionChanged:
            return "lost"
        return "won"

    def together(*given: Any) -> str:
        number = checked(*given)
        ready.wait(timeout=60)      # all have seen that champion 1 serves before any of them decides
        return number

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(3) as pool:
        patch.setattr(versions, "_note_moved_by_hand", together)
        assert sorted(pool.map(settle, rivals)) == ["lost", "lost", "won"]
    counted = champions.effective(champions.read(client, NAME))
    assert len(counted) == 2
    assert serves(client) == counted[-1].decision.version
    [winner] = [v for v in versions.list_versions(client, NAME) if v.settled and v.number != "1"]
    assert winner.number == serves(client)


def test_a_machine_that_is_late_with_the_alias_does_not_take_it_back(client, machines) -> None:
    promoted(client, "k1")
    slow, fast = judged(client, "k2", PROMOTE, "1"), judged(client, "k3", PROMOTE, "2")
    move = client.set_registered_model_alias

    def late(*given: Any) -> None:
        versions.settle(client, fast)        # a whole promotion while the slow one is on its way to the alias
        move(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "set_registered_model_alias", _once(late, move))
        versions.settle(client, slow)
    assert serves(client) == champions.serving_version(champions.read(client, NAME)) == "3"


def _once(first: Any, then: Any) -> Any:
    calls = iter([first])

    def call(*given: Any) -> Any:
        return next(calls, then)(*given)

    return call


def finish(client: Any, name: str) -> None:
    """What `publish` does, but for the stages' files: register, judge, settle."""
    versions.follow_journal(client, name)
    version = versions.find_by_key(client, name, "k2")
    if version is None:
        version = versions.register(client, name, run_id="0" * 32, source="runs:/0/model", key="k2")
    if version.verdict is None:
        versions.record_verdict(client, version, PROMOTE, serves(client, name))
    if not version.settled:
        versions.settle(client, version)


def facts(client: Any, name: str) -> Any:
    return [(v.number, v.verdict, v.aliases, v.settled, {k: w for k, w in v.tags.items() if k != "heartml.process"})
            for v in versions.list_versions(client, name)], story(client, name)


def test_a_death_at_any_write_is_finished_by_the_next_run_with_the_same_result(client) -> None:
    def prepared(name: str) -> None:
        versions.settle(client, judged(client, "k1", PROMOTE, None, name))

    prepared("simulated-undisturbed")
    undisturbed = MortalClient(client, float("inf"))
    finish(undisturbed, "simulated-undisturbed")
    assert undisturbed.writes > 10
    for lives in range(undisturbed.writes):
        name = f"simulated-killed{lives}"
        prepared(name)
        with pytest.raises(Killed):
            finish(MortalClient(client, lives), name)
        finish(client, name)
        assert facts(client, name) == facts(client, "simulated-undisturbed"), f"killed before write {lives + 1}"


def test_a_half_promotion_is_finished_by_whatever_comes_next(client) -> None:
    promoted(client, "k1")
    dying = MortalClient(client, float("inf"))
    second = judged(client, "k2", PROMOTE, "1")
    dying.set_registered_model_alias = None      # dies between the journal and the alias
    with pytest.raises(TypeError):
        versions.settle(dying, second)
    assert serves(client) == "1"
    assert champions.serving_version(champions.read(client, NAME)) == "2"
    with pytest.raises(ChampionChanged, match="champion is version 2"):
        versions.settle(client, judged(client, "k3", PROMOTE, "1"))
    assert serves(client) == "2"


def test_an_alias_on_its_way_is_not_taken_for_one_that_was_moved_by_hand(client, machines) -> None:
    promoted(client, "k1")
    first, second = judged(client, "k2", PROMOTE, "1"), judged(client, "k3", PROMOTE, "1")
    follow = versions._follow

    def overtaken(*given: Any) -> None:
        follow(*given)
        if len(story(client)) == 1:      # another machine enters its decision, and has not moved the alias yet
            told = champions.Decision(GATE, "2", "1", "better", "the gate")
            champions.append(client, NAME, told, source=first.source, run_id=first.run_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "_follow", overtaken)
        with pytest.raises(ChampionChanged, match="champion is version 2"):
            versions.settle(client, second)
    versions.settle(client, first)
    assert story(client) == [(GATE, NONE, "1", True), (GATE, "1", "2", True)]
    assert serves(client) == "2"


def test_an_alias_that_was_moved_by_hand_is_respected_and_entered(client) -> None:
    promoted(client, "k1", "k2")
    client.set_registered_model_alias(NAME, CHAMPION, "1")
    versions.settle(client, judged(client, "k3", PROMOTE, "1"))
    assert story(client)[2:] == [(FOUND, "2", "1", True), (GATE, "1", "3", True)]
    assert serves(client) == "3"


def test_a_person_promotes_what_the_gate_refused_and_all_of_it_is_recorded(client, stored) -> None:
    promoted(client, "k1")
    versions.settle(client, judged(client, "k2", REFUSE, "1"))
    done = overrides.promote(f"{NAME}/2", "  I listened to its errors  ")
    assert serves(client) == "2"
    assert done.version.aliases == (CHAMPION,)
    told = champions.read(client, NAME)[-1].decision
    assert (told.kind, told.before, told.reason, told.gate) == (PERSON, "1", "I listened to its errors",
                                                                "refused: floors")
    assert told.who == overrides.current_person() != ""
    again = overrides.promote(f"{NAME}/2", "to be sure")
    assert again.entry is None
    assert len(story(client)) == 2


@pytest.mark.parametrize("reason", ["", "  "])
def test_nobody_decides_without_a_reason(client, stored, reason: str) -> None:
    promoted(client, "k1", "k2")
    with pytest.raises(PromotionRefused, match="needs a reason"):
        overrides.promote(f"{NAME}/1", reason)
    with pytest.raises(PromotionRefused, match="needs a reason"):
        overrides.roll_back(NAME, None, reason)
    assert serves(client) == "2"


def test_what_was_withdrawn_or_has_no_lineage_takes_force_and_that_is_recorded(client, stored) -> None:
    promoted(client, "k1")
    versions.settle(client, judged(client, "k2", NO_LINEAGE, "1"))
    versions.settle(client, judged(client, "k3", REFUSE, "1"))
    client.set_model_version_tag(NAME, "3", consent.TAG, "patient simulated-50001")
    for number, why in (("2", "no git commit"), ("3", "patient simulated-50001")):
        with pytest.raises(PromotionRefused, match=why):
            overrides.promote(f"{NAME}/{number}", "please")
        assert serves(client) != number
        overrides.promote(f"{NAME}/{number}", "please", force=True)
        assert serves(client) == number
        assert why in champions.read(client, NAME)[-1].decision.forced


def test_a_version_whose_files_are_gone_never_serves(client, stored) -> None:
    promoted(client, "k1")
    versions.settle(client, judged(client, "k2", REFUSE, "1"))
    stored.append("2")
    with pytest.raises(versions.RegistryError, match="files are gone"):
        overrides.promote(f"{NAME}/2", "please", force=True)
    assert serves(client) == "1"


def test_a_version_that_the_gate_never_judged_takes_force(client, stored) -> None:
    promoted(client, "k1")
    version = judged(client, "k2", REFUSE, "1")
    versions.forget_verdict(client, version)
    with pytest.raises(PromotionRefused, match="never judged"):
        overrides.promote(f"{NAME}/2", "please")


def test_rolling_back_goes_back_forth_and_further(client, stored) -> None:
    promoted(client, "k1", "k2", "k3")
    for to, now in ((None, "2"), (None, "3"), ("1", "1"), (None, "3")):
        overrides.roll_back(NAME, to, "it hears things")
        assert serves(client) == now
    assert [kind for kind, *_ in story(client)] == [GATE] * 3 + [ROLLBACK] * 4


def test_there_must_be_something_to_go_back_to(client, stored) -> None:
    promoted(client, "k1")
    with pytest.raises(PromotionRefused, match="first champion"):
        overrides.roll_back(NAME, None, "why not")
    versions.settle(client, judged(client, "k2", REFUSE, "1"))
    with pytest.raises(PromotionRefused, match="never served"):
        overrides.roll_back(NAME, "2", "why not")
    with pytest.raises(versions.RegistryError, match="heartml models"):
        overrides.roll_back("circor-murmur", None, "why not")


def test_a_rollback_stays_when_the_version_is_settled_again(client, stored) -> None:
    promoted(client, "k1", "k2")
    overrides.roll_back(NAME, None, "false alarms")
    client.delete_model_version_tag(NAME, "2", "heartml.settled")       # as if its run had died just before
    [_, second] = versions.list_versions(client, NAME)
    versions.settle(client, second)
    assert serves(client) == "1"


def test_a_version_that_served_is_never_called_abandoned(client, monkeypatch: pytest.MonkeyPatch) -> None:
    promoted(client, "k1", "k2")
    for number in "12":
        client.delete_model_version_tag(NAME, number, "heartml.settled")
    judged(client, "k3", PROMOTE, "1")
    judged(client, "k4", REFUSE, "2")
    monkeypatch.setattr(versions.processes, "has_ended", lambda _: True)
    versions.close_abandoned(client, NAME)
    assert [v.verdict for v in versions.list_versions(client, NAME)] == ["promoted", "promoted", "abandoned", "refused"]
    assert all(v.settled for v in versions.list_versions(client, NAME))


@pytest.mark.parametrize(("before", "version", "words"), [
    (NONE, "1", "version 1 serves since 1970-01-01 00:00 UTC, promoted by the gate when none served: better"),
    ("1", "2", "version 2 serves since 1970-01-01 00:00 UTC, promoted by the gate after version 1: better"),
    ("1", NONE, "no version serves since 1970-01-01 00:00 UTC, promoted by the gate after version 1: better"),
])
def test_a_decision_is_told_and_none_is_no_version(before: str, version: str, words: str) -> None:
    told = champions.Decision(GATE, version, before, "better", "the gate")
    assert champions.Entry(1, told, 0, True, True).in_words() == words


def test_a_list_names_each_version_whole_as_promote_wants_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    names, reason = ("circor-systolic_grading", "circor-systolic_quality"), "refused: " + "so many words " * 9
    outcome.show_versions([Version(name, "12", "r", "s", (CHAMPION,), {"heartml.reason": reason}, 0) for name in names])
    chosen = [champions.Decision(kind, "12", NONE, "why it was", "ann on desk") for kind in (GATE, PERSON)]
    outcome.show_history({names[0]: [champions.Entry(1, told, 0, counts=True, followed=True) for told in chosen]})
    shown = capsys.readouterr().out
    assert all(f"{name}/12  champion" in shown for name in names)
    assert max(map(len, shown.splitlines())) <= 72
    assert "by ann on desk" in shown
    assert shown.count("why it was") == 1, "of the gate's decisions the list of versions has the words"
