"""After the stages: one version for each content, judged on common held-out units, explained by what its run keeps."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.finished_project import TASK
from support.published_project import DATA_HASH, evaluate_with_skill, publish_model, run_states, version_states

from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.lineage import capture
from heartml.registry import tracking, versions
from heartml.registry.versions import CHALLENGER, CHAMPION, PROMOTED, REFUSED
from heartml.release import publish
from heartml.release.publish import NOTHING_NEW


def test_the_first_model_is_promoted_and_its_run_explains_it(project: Path) -> None:
    outcome = publish_model()
    assert outcome.state == PROMOTED
    assert version_states() == [("1", PROMOTED, (CHAMPION,))]
    client = tracking.connect()
    run = client.get_run(outcome.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["split.folds"] == "5"
    assert run.data.params["encoders"] == '[\n  "logspec",\n  "random_conv"\n]'
    found = outcome.evaluation["held_out"]["uar"]
    assert run.data.metrics["held_out/uar"] == found["value"]
    assert run.data.metrics["held_out/uar_low"] == found["low"]
    assert run.data.metrics["floor/majority/uar"] == outcome.evaluation["floors"]["majority"]["uar"]["value"]
    assert run.data.metrics["seconds/search/simulated-murmur"] == 12.5
    assert run.data.metrics["peak_memory_mb/search/simulated-murmur"] == 640
    assert run.data.tags["heartml.data"] == DATA_HASH
    assert run.data.tags["heartml.code_dirty"] == "false"
    assert len(run.data.tags["mlflow.source.git.commit"]) == 40
    [given] = run.inputs.dataset_inputs
    assert given.dataset.digest == DATA_HASH.removesuffix(".dir")
    kept = {item.path for item in client.list_artifacts(outcome.run_id)}
    assert {"dvc.lock", "params.yaml", "data.dvc", "requirements.lock", "folds.parquet", "validation", "evaluation",
            "out_of_fold.parquet", "lineage.json", "gate.json", "report.html"} <= kept
    assert "code.diff" not in kept


def test_the_page_says_the_verdict_and_lies_in_run_and_folder(project: Path, tmp_path: Path) -> None:
    outcome = publish_model()
    assert outcome.report == "reports/simulated-murmur.html"
    page = Path(outcome.report).read_text(encoding="utf-8")
    assert "Promoted: version 1 is the champion" in page
    stored = tracking.fetch(tracking.connect(), outcome.run_id or "", "report.html", tmp_path / "fetched")
    assert stored.read_text(encoding="utf-8") == page


def test_nothing_new_registers_nothing(project: Path) -> None:
    first, again = publish_model(), publish_model()
    assert (first.state, again.state) == (PROMOTED, NOTHING_NEW)
    assert "version 1 and is the champion" in again.reason
    assert run_states() == ["FINISHED"]
    assert len(version_states()) == 1


def test_a_lost_page_is_written_again_and_nothing_else(project: Path) -> None:
    page = Path(publish_model().report or "")
    before = page.read_bytes()
    shutil.rmtree(page.parent)
    assert publish_model().state == NOTHING_NEW
    assert page.read_bytes() == before
    assert run_states() == ["FINISHED"]


def test_a_better_model_takes_over_and_a_worse_one_does_not(project: Path) -> None:
    first = publish_model()
    assert first.state == PROMOTED, first.reason
    evaluate_with_skill(skill=12)
    better = publish_model()
    assert better.state == PROMOTED, better.reason
    assert "than champion 1 at 97% (look 1) on " in better.reason
    evaluate_with_skill(skill=0.2, seed=5)
    worse = publish_model()
    assert worse.state == REFUSED
    assert "better:" in worse.reason
    assert version_states() == [("1", PROMOTED, ()), ("2", PROMOTED, (CHAMPION,)), ("3", REFUSED, (CHALLENGER,))]
    assert "Not promoted: version 3" in Path(worse.report or "").read_text(encoding="utf-8")


def test_a_model_without_lineage_is_registered_but_not_promoted(project: Path) -> None:
    shutil.rmtree(project / ".git")
    outcome = publish_model()
    assert outcome.state == REFUSED
    assert "no git commit" in outcome.reason
    assert version_states() == [("1", REFUSED, (CHALLENGER,))]


def test_changed_code_is_kept_with_the_run(project: Path, tmp_path: Path) -> None:
    (project / "new_module.py").write_text("answer = 42\n")
    outcome = publish_model()
    stored = tracking.fetch(tracking.connect(), outcome.run_id or "", "code.diff", tmp_path / "fetched")
    diff = stored.read_text(encoding="utf-8")
    assert "+answer = 42" in diff
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout
    assert "new_module.py" not in listed, "the user's index stays as it was"
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(project), str(clone)], check=True)
    subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=clone, check=True)
    assert (clone / "new_module.py").read_text() == "answer = 42\n"


@pytest.mark.thorough("test_publish_gate.py dies at every write")
@pytest.mark.parametrize("module, name", [(versions, "register"), (versions, "record_verdict"), (versions, "settle"),
                                          (publish, "_write_page")])
def test_a_run_that_ended_between_two_steps_is_finished_by_the_next(
    project: Path, monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            publish_model()
    outcome = publish_model()
    assert outcome.state == (NOTHING_NEW if name == "_write_page" else PROMOTED)
    assert version_states() == [("1", PROMOTED, (CHAMPION,))]
    assert Path(outcome.report or "").exists()


def test_a_run_that_fails_registers_nothing_and_is_marked(project: Path) -> None:
    (paths.model(TASK) / "model.json").write_text("{}")
    with pytest.raises(HeartMLError, match="Retrain"):
        publish_model()
    assert version_states() == []
    assert run_states() == ["FAILED"]


def test_the_key_follows_the_content_and_nothing_else(project: Path) -> None:
    key = capture.content_key(TASK)
    os.utime(paths.model(TASK) / "model.json", (1, 1))
    assert capture.content_key(TASK) == key
    evaluate_with_skill(skill=2, seed=9)
    assert capture.content_key(TASK) != key
