"""A pre-trained encoder is registered with the verdict of its gate, apart from the classifiers."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support import probe_project, tiny_checkpoints, tiny_vit
from support.probe_project import TASK

from heartml.core import config, paths
from heartml.registry import encoder_versions, tracking, versions
from heartml.release import encoder_release
from heartml.release.encoder_release import EncoderReleaseError
from heartml.training.pretraining import outputs
from heartml.training.pretraining.vit import outputs as vit_outputs
from heartml.training.pretraining.vit import start as starts
from heartml.training.pretraining.vit.outputs import Facts
from heartml.training.pretraining.vit.train import Trained


def row(random: tuple[float, float], logspec: tuple[float, float]) -> dict[str, Any]:
    return {"encoder": "ears", **{key: {"macro_auc": {"value": sum(ends) / 2, "low": ends[0], "high": ends[1]}}
                                  for key, ends in (("against_random", random), ("against_logspec", logspec))}}


@pytest.mark.parametrize(("tasks", "failed"), [
    ([row((0.1, 0.3), (0.01, 0.1)), row((0.05, 0.2), (-0.1, 0.1))], []),
    ([row((0.1, 0.3), (0.01, 0.1)), row((-0.01, 0.2), (-0.1, 0.1))], ["against_random.1"]),
    ([row((0.1, 0.3), (0.01, 0.1)), row((0.1, 0.2), (-0.1, -0.01))], ["against_logspec.1"]),
    ([row((0.1, 0.3), (-0.01, 0.1))], ["better_once"]),
])
def test_the_gate_asks_for_both_controls(tasks: list[dict[str, Any]], failed: list[str]) -> None:
    found = {"tasks": {str(number): {"encoders": [one]} for number, one in enumerate(tasks)}}
    assert [one.name for one in encoder_release.judge("ears", found) if not one.passed] == failed


def test_weights_curves_and_verdict_are_registered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        empty_store: Path) -> None:
    params = probe_project.make(tmp_path, monkeypatch)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(EncoderReleaseError, match="`heartml pretrain` trains it"):
        encoder_release.release([TASK], params)
    paths.STATE.mkdir(exist_ok=True)
    shutil.copyfile(empty_store, paths.STATE / "mlflow.db")
    folder = paths.pretrained("heart")
    tiny_checkpoints.heart(folder / outputs.WEIGHTS)
    (folder / outputs.CURVES).write_text("step,frames\n25,1.5\n50,1.25\n")
    (folder / outputs.FACTS).write_text('{"parameters": {"channels": 8}}')
    version, criteria = encoder_release.release([TASK], config.load())
    again, _ = encoder_release.release([TASK], config.load())
    assert (version.name, version.number) == (again.name, again.number) == ("heartml-encoder-heart", "1")
    passed = all(one.passed for one in criteria)
    assert version.verdict == ("promoted" if passed else "refused")
    assert (versions.CHAMPION in version.aliases) == passed
    client = tracking.connect()
    assert [(m.step, m.value) for m in client.get_metric_history(version.run_id, "loss/frames")] == [(25, 1.5),
                                                                                                      (50, 1.25)]
    kept = tracking.list_files(client, version.run_id, encoder_versions.WEIGHTS)
    assert f"{encoder_versions.WEIGHTS}/{outputs.WEIGHTS}" in kept
    assert versions.model_names(client) == [], "encoders are no classifiers"


@pytest.mark.thorough("half a minute")
def test_snapshots_on_the_way_are_probed_and_the_run_has_their_scores_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path
) -> None:
    params = probe_project.make(tmp_path, monkeypatch)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(EncoderReleaseError, match=r"pretrain/masked: not here\. `heartml pretrain --method masked"):
        encoder_release.release([TASK], params, "masked")
    paths.STATE.mkdir(exist_ok=True)
    shutil.copyfile(empty_store, paths.STATE / "mlflow.db")
    folder = paths.pretrained("masked")
    for number, place in enumerate([folder, folder / "snapshots" / "10", folder / "snapshots" / "20"]):
        start = starts.fresh(tiny_vit.vit(), number)
        trained = Trained(start.transformer, (-6.0, 2.0), {"masked": [1.5]})
        vit_outputs.write(place, trained, Facts(start.shape, {}), {"parameters": {"steps": 30}})
    version, criteria = encoder_release.release([TASK], config.load(), "masked")
    assert version.name == "heartml-encoder-masked"
    assert {one.name for one in criteria} == {f"against_random.{TASK}", f"against_logspec.{TASK}", "better_once"}
    client = tracking.connect()
    assert [m.step for m in client.get_metric_history(version.run_id, f"probe_by_step/{TASK}")] == [10, 20, 30]
    assert [(m.step, m.value) for m in client.get_metric_history(version.run_id, "loss/masked")] == [(25, 1.5)]
    names = {key.rpartition("/")[2] for key in client.get_run(version.run_id).data.metrics if key.startswith("probe/")}
    assert len(names) == 3, "logspec, the encoder, and one control"
