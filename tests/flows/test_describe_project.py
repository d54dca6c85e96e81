"""A tiny Qwen2-Audio describes murmurs: from ingested recordings to a registered model that predicts."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

pytest.importorskip("transformers", reason="left out: the extra `encoders` is not installed")
pytest.importorskip("peft", reason="left out: the extra `encoders` is not installed")

from support import small_project, tiny_qwen

TASK = "simulated-systolic_pitch"


def configured(params: Path, section: dict[str, Any]) -> None:
    """One descriptor, one trial of `describe`, and the pooled head that every search needs: it hears nothing here."""
    numbers: dict[str, Any] = yaml.safe_load(params.read_text())
    numbers["tasks"], numbers["encoders"] = [TASK], ["logspec", "deaf", "qwen_input"]
    above = {**numbers["encoder_parameters"]["logspec"], "bands": 2, "low_hz": 1800, "high_hz": 1950}
    numbers["encoder_parameters"] |= {"qwen_input": section, "deaf": {**above, "kind": "logspec"}}
    numbers["validate"]["min_class_groups"] = 3
    numbers["search"] |= {"trials": 2, "network_trials": {"describe": 1}, "heads": ["logistic", "sequence", "describe"],
                          "initial_trials": []}
    numbers["search"]["poolings"] |= {"qwen_input": [], "logspec": []}
    numbers["search"]["network_parameters"]["describe"] |= {
        "steps": 8, "batch": 4, "rate": 1e-2, "lora_rank": 2, "segmenter_steps": 6, "segmenter_channels": 8}
    numbers["search"]["network_parameters"]["describe"]["training"] |= {"accumulation": 1}
    params.write_text(yaml.safe_dump(numbers, sort_keys=False))


@pytest.mark.thorough("it trains a project")
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_language_model_is_trained_registered_and_predicts(tmp_path: Path, empty_store: Path) -> None:
    project = small_project.make(tmp_path / "project", empty_store)
    own = tiny_qwen.write(tmp_path / "tiny_qwen")
    project.run("weights", "add", own, "--kind", "transformers", "--licence", "ours", "--redistribute")
    added = yaml.safe_load((project / "weights/tiny_qwen.dvc").read_text())["meta"]
    configured(project / "params.yaml", {"kind": "transformers", "weights": "weights/tiny_qwen",
                                         "sha256": added["sha256"], "layers": ["input"]})
    project.commit("a language model")
    done = project.run("retrain", timeout_s=1500)
    assert re.search(rf"{TASK}: (promoted|refused), version 1", done.stdout)
    model = project / f"artifacts/{TASK}/model"
    saved = json.loads((model / "model.json").read_text())
    assert "describe" in [one["head"] for one in saved["members"]]
    held = model / "weights" / str(added["sha256"])
    assert (held / "tokenizer.json").exists() and not list(held.glob("*.bin"))
    trials = pd.read_parquet(project / f"artifacts/{TASK}/search/trials.parquet")
    assert set(trials["head"]) == {"describe", "logistic"}
    shutil.rmtree(project / "weights/tiny_qwen")      # the registered version holds its own
    shutil.rmtree(project / ".dvc/cache")
    sounds = sorted((tmp_path / "sim").rglob("*.wav"))[:2]
    answers = [project.run("predict", *sounds, "--model", f"{TASK}/1", "--json").stdout for _ in range(2)]
    assert answers[0] == answers[1]
    for answer in json.loads(answers[0])["answers"]:
        assert sum(answer["calibrated"].values()) == pytest.approx(1)
        assert answer["probabilities"]["Medium"] < 1e-4, "too few patients: in no fold, and no word of the question"
    (asked,) = {one["prompt"] for member in saved["members"] for one in member["heads"] if "prompt" in one}
    assert "What is its systolic murmur pitch? Answer with one of: Low, High." in asked
