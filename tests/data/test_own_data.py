"""The whole way of docs/own-data.md, with two, three and seven classes: from a folder to an exported model.

It trains three models, so `make test` leaves it out. The parts of the way are tested in `test_new_collection.py`,
`test_declared_tasks.py` and `tests/models/test_own_task.py`.
"""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from support import example_scripts, small_project
from support.workspaces import ROOT, Workspace

from heartml.core.system.files import read_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800),
              pytest.mark.thorough("it trains three models; the parts have tests of their own")]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_from_a_folder_to_an_exported_model(here: Workspace, tmp_path: Path, count: int) -> None:
    small_project._shrink(here / "params.yaml")
    made = example_scripts.load("own_collection")
    made.write(tmp_path / "clinic", count, 12 * count)
    classes = set(made.CLASSES[:count])
    assert "next: heartml ingest generic" in here.run("init", tmp_path / "clinic").stdout
    here.run("ingest", "generic", tmp_path / "clinic" / "clinic.yaml")
    here.run("tasks", "--use", "clinic-finding")
    here.commit("own data")
    assert "clinic-finding: " in here.run("retrain").stdout
    found = read_json(here / "artifacts/clinic-finding/evaluation/metrics.json")
    assert set(found["classes"]) == set(found["definition"]["classes"]) == classes
    assert found["held_out"]["uar"]["value"] > 1 / count
    model = here / "artifacts/clinic-finding/model"
    sounds = sorted((tmp_path / "clinic" / "sounds").glob("p[123]_*.wav"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copyfile(ROOT / "params.yaml", elsewhere / "params.yaml")
    own = json.loads(Workspace(elsewhere).run("predict", *sounds, "--model", model, "--json").stdout)
    here.run("export", "clinic-finding/1", "--to", "exported")
    exported = json.loads(here.run("predict", *sounds, "--model", "exported", "--json").stdout)
    for one, other in zip(own["answers"], exported["answers"], strict=True):
        assert set(one["calibrated"]) == classes
        assert one["decision"] == other["decision"]
        assert one["calibrated"] == pytest.approx(other["calibrated"], abs=1e-4)
    assert read_json(here / "exported/export.json")["own_classes"] is True
    assert "links hold" in here.run("audit", "clinic-finding/1").stdout
    (tmp_path / "visits.csv").write_text("\n".join(["path", *map(str, sounds)]))
    here.run("score", tmp_path / "visits.csv", "--to", "scores.parquet", "--model", "clinic-finding/1")
    assert {f"p_{name}" for name in classes} <= set(pd.read_parquet(here / "scores.parquet"))
