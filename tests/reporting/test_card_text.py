"""What people and files say on the model card: text, never markup or a link."""

from dataclasses import fields
from pathlib import Path

import pytest

from heartml.core import paths
from heartml.core.system.files import write_json
from heartml.core.task_definition import OFFICIAL, Declared, Task
from heartml.registry.champions import NONE, PERSON, Decision, Entry
from heartml.registry.versions import CHAMPION, Version
from heartml.reporting import model_card
from heartml.reporting.model_card import StoredResults

NAME = "simulated-murmur"


@pytest.mark.parametrize("words", ["Ada <ada@example.org>", "<script>x</script>", "[click](http://evil)", "`x` *y*"])
def test_a_person_a_reason_and_a_warning_bring_no_markup(words: str) -> None:
    version = Version(NAME, "1", "0f3a", "models:/m", (CHAMPION,), {"heartml.verdict": "promoted"}, 0)
    entry = Entry(1, Decision(PERSON, "1", NONE, words, words), 0, counts=True, followed=True)
    nothing = dict.fromkeys(field.name for field in fields(StoredResults))
    stored = StoredResults(**{**nothing, "validation": {"success": True, "warnings": [words]},
                              "gate": {"reason": words, "criteria": []}})
    page = model_card.as_html(model_card.render(version, stored, [entry]))
    shown = words.replace("<", "&lt;").replace(">", "&gt;")
    assert page.count(shown) == 2 + 2 + 1 + 1, "status and journal say who and why; the warning; the gate's reason"
    assert not any(tag in page for tag in ("<a ", "<script", "<em>y", "<code>x"))


def test_names_of_somebodys_own_classes_bring_no_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = Task("pedal", "pedal", ("<b>=1+1", "a *c*", "[x](http://evil)"), "recording", "uar", OFFICIAL)
    write_json(paths.declared_tasks("clinic"), {"pedal": Declared(task).to_json()})
    version = Version("clinic-pedal", "1", "0f3a", "models:/m", (), {}, 0)
    stored = StoredResults(**dict.fromkeys(field.name for field in fields(StoredResults)))
    page = model_card.as_html(model_card.render(version, stored, []))
    assert page.count("&lt;b&gt;=1+1, a *c* and [x](http://evil)") == 2
    assert "<b>" not in page
    assert "http://evil\"" not in page
