"""`heartml weights`: a publisher's file becomes data that DVC tracks, with what may be done with it."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from dvc.repo import Repo
from support import tiny_checkpoints
from support.workspaces import ROOT

from heartml.cli import cli
from heartml.core import config
from heartml.core.system.hashing import sha256_file
from heartml.inference import weights
from heartml.inference.weights import WeightListError
from heartml.models import encoders
from heartml.models.encoders.weight_files import WeightsError

PARAMS = config.load(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with DVC and a remote, and the checkpoints `outside/`."""
    root = tmp_path_factory.mktemp("weights") / "project"
    root.mkdir()
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    with Repo.init(str(root), no_scm=True) as repo, repo.config.edit() as config_file:
        config_file["remote"]["here"] = {"url": str(root.parent / "remote")}
        config_file["core"] |= {"remote": "here", "analytics": False}
    outside = root.parent / "outside"
    outside.mkdir()
    tiny_checkpoints.efficientat(outside / "mn.pt")
    tiny_checkpoints.byol_a(outside / "byol.pth")
    tiny_checkpoints.m2d(outside)
    return root


@pytest.fixture
def outside(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(tmp_path))
    return project.parent / "outside"


def test_added_weights_are_tracked_with_their_licence_and_can_be_declared(outside: Path) -> None:
    done = weights.add(outside / "mn.pt", "efficientat", "MIT", PARAMS, name="mn_tiny", citation="Ourselves, 2026")
    assert Path("weights/mn_tiny/mn.pt").read_bytes() == (outside / "mn.pt").read_bytes()
    content = yaml.safe_load(Path("weights/mn_tiny.dvc").read_text())
    assert content["outs"][0]["path"] == "mn_tiny"
    assert "push" not in content["outs"][0]
    assert content["meta"] == {"kind": "efficientat", "file": "mn.pt", "sha256": sha256_file(outside / "mn.pt"),
                               "licence": "MIT", "citation": "Ourselves, 2026", "redistribute": True,
                               "shape": {"hop_ms": 10.0, "mels": 128, "strides": [2, 2, 2, 2]}}
    declared = yaml.safe_load(done.declaration)
    spec = encoders.spec("mn_tiny", tiny_checkpoints.with_sections(PARAMS, declared))
    assert spec.pretrained and (spec.pretrained.held, spec.pretrained.citation) == (True, "Ourselves, 2026")
    assert weights.add(outside / "mn.pt", "efficientat", "MIT", PARAMS, name="mn_tiny").sha256 == done.sha256
    with pytest.raises(WeightListError, match="other weights have this name; choose one with --name"):
        (outside / "other").mkdir()
        weights.add(tiny_checkpoints.byol_a(outside / "other/mn.pt")[0], "byol_a", "x", PARAMS, name="mn_tiny")


def test_the_shape_in_a_folder_s_name_is_not_lost_under_another_name(outside: Path) -> None:
    file = outside / tiny_checkpoints.M2D_FOLDER / "checkpoint-0.pth"
    done = weights.add(file, "m2d", "evaluation only", PARAMS, name="ear")
    spec = encoders.spec("ear", tiny_checkpoints.with_sections(PARAMS, yaml.safe_load(done.declaration)))
    assert encoders.load(spec).dim == 2 * 24
    assert spec.pretrained and spec.pretrained.licence == "evaluation only"
    assert not spec.pretrained.held
    copy = outside / "plain" / "net.pth"
    copy.parent.mkdir()
    copy.write_bytes(file.read_bytes())
    more = {"input_size": [32, 64], "patch_size": [16, 16], "sample_rate_hz": 16000}
    done = weights.add(copy, "m2d", "evaluation only", PARAMS, name="said", more=more)
    spec = encoders.spec("said", tiny_checkpoints.with_sections(PARAMS, yaml.safe_load(done.declaration)))
    assert encoders.load(spec).dim == 2 * 24


def test_what_must_not_be_passed_on_stays_out_of_remotes(outside: Path, project: Path) -> None:
    weights.add(outside / "byol.pth", "byol_a", "NTT", PARAMS, name="kept_back")
    weights.add(outside / "mn.pt", "efficientat", "MIT", PARAMS, name="passed_on")
    with Repo(str(project)) as repo:
        repo.push()
    pushed = {path.name for path in (project.parent / "remote").rglob("*") if path.is_file()}
    for name, there in (("kept_back", False), ("passed_on", True)):
        digest = yaml.safe_load(Path(f"weights/{name}.dvc").read_text())["outs"][0]["md5"]
        assert (digest[2:] in pushed) is there, name


def test_the_list_says_what_is_here_and_what_may_be_done_with_it(outside: Path) -> None:
    weights.add(outside / "byol.pth", "byol_a", "NTT: evaluation", PARAMS)
    found = json.loads(CliRunner().invoke(cli, ["weights", "--json"], catch_exceptions=False).stdout)
    own = next(one for one in found if one["name"] == "byol")
    assert (own["kind"], own["here"], own["redistribute"], own["licence"]) == ("byol_a", True, False, "NTT: evaluation")
    assert own["megabytes"] == pytest.approx((outside / "byol.pth").stat().st_size / 1e6)
    assert "byol_a" in CliRunner().invoke(cli, ["weights"], catch_exceptions=False).stdout


@pytest.mark.parametrize(("kind", "words"), [
    ("logspec", "'logspec' is no kind of pre-trained encoder: there are efficientat"), ("efficientat", "does not fit"),
])
def test_what_cannot_be_used_is_refused_and_nothing_is_copied(outside: Path, kind: str, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        weights.add(outside / "byol.pth", kind, "x", PARAMS, name="refused")
    assert not Path("weights/refused").exists() and not Path("weights/refused.dvc").exists()


def test_the_command_prints_the_line_for_the_parameters(outside: Path) -> None:
    done = CliRunner().invoke(cli, ["weights", "add", str(outside / "byol.pth"), "--kind", "byol_a", "--licence", "NTT",
                                    "--name", "b"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "not to be passed on: no model holds them, no remote gets them" in done.stdout
    digest = sha256_file(outside / "byol.pth")
    assert f'  b: {{kind: byol_a, weights: weights/b/byol.pth, sha256: "{digest}"}}' in done.stdout
