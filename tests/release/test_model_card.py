"""The model card says what is stored with a version, and nothing else."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from support.finished_project import TASK
from support.published_project import DATA_HASH, publish_model

from heartml.registry import consent, tracking, versions
from heartml.release import publish
from heartml.reporting import model_card, number_format
from heartml.reporting.model_card import sections


def test_the_card_is_with_the_run_and_says_only_what_is_stored(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = publish_model()
    client = tracking.connect()
    version = versions.get(client, TASK)
    told = model_card.text(client, version)
    stored = tracking.fetch(client, outcome.run_id or "", model_card.CARD, tmp_path / "fetched")
    stored = stored.read_text(encoding="utf-8")
    assert stored == told
    front = yaml.safe_load(told.split("---")[1])
    found = outcome.evaluation["held_out"]
    values = {m["type"]: m["value"] for m in front["model-index"][0]["results"][0]["metrics"]}
    assert values["uar"] == round(found["uar"]["value"], 4)
    assert "Not a medical device" in told
    for word in ("Intended use", "Out of scope", "Data", "Subgroups", "Calibration", "Robustness", "limits", "Ethical",
                 "The gate's verdict", "Lineage", "Licence", "heartml audit simulated-murmur/1"):
        assert word in told
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert commit in told
    assert DATA_HASH in told
    assert f"{number_format.figure(found['uar']['value'])} ({number_format.span(found['uar'])})" in told
    assert "1 silent" in told
    assert "champion: version 1 serves" in told
    shutil.rmtree(project / "data")
    shutil.rmtree(project / "artifacts")
    assert model_card.text(client, version) == told, "a year later, elsewhere, it says the same"
    client.set_model_version_tag(TASK, "1", consent.TAG, "patient simulated-100")
    assert "withdrawn: patient simulated-100" in model_card.text(client, versions.get(client, TASK))


def test_the_card_of_a_version_without_its_files_says_what_is_not_known(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_write_page", lambda *_: None)
    outcome = publish_model()
    shutil.rmtree(project / ".heartml/mlartifacts" / (outcome.run_id or "") / "artifacts")
    client = tracking.connect()
    told = model_card.text(client, versions.get(client, TASK))
    assert "The evaluation was not stored" in told
    assert "No lineage was stored" in told
    assert "Not a medical device" in told


@pytest.mark.parametrize("hostile", ["a | b", "<script>x</script>", "line\nbreak", "[click](http://evil)", "`x`"])
def test_a_cell_of_the_card_brings_no_markup(hostile: str) -> None:
    rendered = model_card.as_html(f"---\nx: 1\n---\n\n# T\n\n> d\n\n{sections.table(('a',), [(hostile,)])}\n")
    assert "<script" not in rendered
    assert "<a " not in rendered
    assert rendered.count("<td>") == 1
