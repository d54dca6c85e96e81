"""`heartml export`: the files, what stands in them, what is refused, and that `heartml predict` answers with them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from click.testing import CliRunner
from support import many_heads, registered_model, tiny_models

from heartml import export
from heartml.audit import export as audited
from heartml.audit.evidence import Evidence
from heartml.audit.links import LinkBroken
from heartml.cli import cli
from heartml.cli import export as commands
from heartml.core import paths
from heartml.core.system.hashing import sha256_folder
from heartml.export import comparison, graph, statement
from heartml.inference import exported, predict, predict_exported
from heartml.inference.exported import ExportedModel, ExportError
from heartml.models.fitted_model import Model
from heartml.registry import signing, tracking, versions

TASK = "simulated-murmur"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model() -> Model:
    return many_heads.fit(networks=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, empty_store: Path, model: Model) -> Iterator[Path]:
    """A working folder with a registry whose champion is the small model, and its export in `exported`."""
    root = tmp_path_factory.mktemp("exporting")
    with registered_model.project(root, empty_store):
        many_heads.save(paths.model(TASK), model)
        registered_model.register(tracking.connect(), TASK, "key", None)
        sounds = Path("sounds")
        sounds.mkdir()
        for name, seed, seconds in (("2530_AV", 3, 3.0), ("2530_MV", 5, 2.0), ("other", 4, 1.0)):
            one = tiny_models.draw_sound(("murmur", "noise", "clean")[seed % 3], seed, seconds)
            soundfile.write(sounds / f"{name}.wav", one.pcm, one.sample_rate_hz)
        Path("plain.json").write_text(json.dumps(_predicted()))
        done = CliRunner().invoke(cli, ["export", TASK, "--to", "exported", "--int8", "--compare", "6"])
        assert done.exit_code == 0, done.output
        Path("said").write_text(done.output)
        yield root


def _predicted(*more: str) -> dict[str, object]:
    done = CliRunner().invoke(cli, ["predict", "sounds", "--json", *more])
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree("exported", tmp_path / "copy"))


def test_the_command_says_what_it_wrote_and_how_close_it_is(project: Path) -> None:
    said = Path("said").read_text()
    assert f"{TASK} version 1, the champion" in said
    assert "6 of 6 simulated recordings are decided alike" in said
    assert {path.name for path in Path("exported").iterdir()} == {
        "export.json", "export.signature.json", "model.onnx", "model.int8.onnx", "patient.onnx"}


def test_the_file_says_what_it_is(project: Path) -> None:
    props = {one.key: one.value for one in onnx.load("exported/model.onnx").metadata_props}
    facts = json.loads(Path("exported/export.json").read_text())
    assert props["heartml.name"] == TASK and props["heartml.version"] == "1"
    assert props["heartml.run_id"] == facts["run_id"] and props["heartml.model_sha256"] == facts["model_sha256"]
    assert "Not a medical device" in props["heartml.notice"]
    assert json.loads(props["heartml.classes"]) == facts["classes"] == ["Present", "Unknown", "Absent"]


def test_predict_answers_the_same_from_the_export(project: Path) -> None:
    plain = json.loads(Path("plain.json").read_text())
    for more in (("--model", "exported"), ()):          # named, and found by itself
        found = _predicted(*more)
        assert "exported to" in found["model"]["source"]
        for own, other in zip(found["answers"], plain["answers"], strict=True):
            close = [(own[key], other[key]) for key in ("calibrated", "probabilities")]
            for one, two in close:
                np.testing.assert_allclose(list(one.values()), list(two.values()), atol=1e-4)
            for key in ("unit_id", "decision", "leaning", "reasons", "outside", "warnings"):
                assert own[key] == other[key]
            for one, two in zip(own["recordings"], other["recordings"], strict=True):
                assert [f["check"] for f in one["findings"]] == [f["check"] for f in two["findings"]]
                for mine, theirs in zip(one["findings"], two["findings"], strict=True):
                    assert (mine["words"], mine["limit"]) == (theirs["words"], theirs["limit"])
                    assert mine["value"] == pytest.approx(theirs["value"], abs=1e-3)
    assert "exported to" not in plain["model"]["source"]


def test_predict_from_an_export_waits_for_no_library_that_it_does_not_need(project: Path) -> None:
    code = ("import sys; sys.argv = ['heartml', 'predict', 'sounds/other.wav', '--model', 'exported']\n"
            "from heartml.cli import main\n"
            "try: main()\n"
            "finally: print(*sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "onnxruntime" in loaded
    slow = {"torch", "sklearn", "scipy", "pandas", "mlflow", "prefect", "dvc", "lightgbm", "optuna", "sqlalchemy"}
    assert not slow & loaded


def test_predict_takes_the_model_itself_where_the_export_is_gone(project: Path) -> None:
    Path("exported").rename("elsewhere")
    try:
        assert "exported to" not in _predicted()["model"]["source"]
    finally:
        Path("elsewhere").rename("exported")


def test_eight_bits_answer_too(project: Path) -> None:
    facts = json.loads(Path("exported/export.json").read_text())
    assert facts["compared_int8"]["recordings"] == 6
    one = tiny_models.draw_sound("murmur", 3)
    small = ExportedModel.load(Path("exported"), exported.SMALL).recording(one.floats, one.sample_rate_hz)
    assert set(small.probabilities) == set(facts["classes"])


@pytest.mark.parametrize("name", ["model.onnx", "patient.onnx", "export.json", "export.signature.json"])
def test_a_changed_file_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    done = CliRunner().invoke(cli, ["predict", "sounds", "--model", str(copy)])
    assert done.exit_code == 1 and isinstance(done.exception, (ExportError, signing.SignatureRefused)), done.output


def test_a_missing_file_or_signature_is_named(copy: Path) -> None:
    (copy / exported.SIGNATURE).unlink()
    with pytest.raises(signing.SignatureRefused, match="not signed"):
        predict.run([Path("sounds")], str(copy), None)
    (copy / "patient.onnx").unlink()
    with pytest.raises(ExportError, match=r"patient\.onnx is missing"):
        predict.run([Path("sounds")], str(copy), None)


def test_a_statement_that_names_a_file_elsewhere_is_refused(copy: Path) -> None:
    facts = json.loads((copy / "export.json").read_text())
    facts["files"]["../sounds/other.wav"] = {"sha256": "0", "bytes": 1}
    (copy / "export.json").write_text(json.dumps(facts))
    with pytest.raises(ExportError, match="missing"):
        ExportedModel.load(copy)


def test_nothing_that_is_not_an_export_is_replaced(project: Path, copy: Path) -> None:
    (copy / "notes.txt").write_text("mine")
    Path("shop").mkdir()
    Path("shop/files.json").write_text("{}")
    Path("link").symlink_to("nowhere")
    for to, page, words in (("sounds", None, "no part of an earlier export"), (copy, None, r"holds notes\.txt"),
                            (None, "shop", "no part of an earlier page"), ("link", None, "a link or a file"),
                            (None, "link", "a link or a file"), ("same", "same", "name two")):
        with pytest.raises(export.ExportRefused, match=words):
            export.run(TASK, None, to and Path(to), page=page and Path(page))
    assert len(list(Path("sounds").iterdir())) == 3 and (copy / "notes.txt").read_text() == "mine"
    assert Path("shop/files.json").exists() and Path("link").is_symlink()


@pytest.mark.parametrize("change", [
    {"classes": ["a"]}, {"quality": []}, {"cautions": 5}, {"model": None}, {"format": 2}, {"references": "none"}])
def test_a_statement_that_lacks_something_is_one_line(
    copy: Path, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTML_SIGNING", "off")
    facts = json.loads((copy / "export.json").read_text())
    (copy / "export.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(ExportError, match=r"export\.json"):
        predict.run([Path("sounds")], str(copy), None)


@pytest.mark.parametrize("change", [{"classes": ["a", "b"]}, {"references": []}, {"quality": ["peak"]}])
def test_a_statement_that_does_not_fit_the_model_is_one_line(
    copy: Path, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTML_SIGNING", "off")
    facts = json.loads((copy / "export.json").read_text())
    (copy / "export.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(ExportError, match="does not fit the model"):
        predict.run([Path("sounds")], str(copy), None)


def test_a_damaged_export_is_not_in_the_way_of_the_model(project: Path) -> None:
    whole = Path("exported/model.onnx").read_bytes()
    Path("exported/model.onnx").write_bytes(whole[:1000])
    try:
        assert "exported to" not in _predicted()["model"]["source"]
    finally:
        Path("exported/model.onnx").write_bytes(whole)


def test_an_export_has_the_cautions_of_today(project: Path) -> None:
    client = tracking.connect()
    client.set_model_version_tag(TASK, "1", "heartml.verdict", "refused")
    try:
        said = _predicted("--model", "exported")["cautions"]
    finally:
        client.set_model_version_tag(TASK, "1", "heartml.verdict", "promoted")
    assert any("the gate refused it" in words for words in said)


def test_a_graph_that_answers_otherwise_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison sees a fault of the graph: here one more dB in every decision."""
    whole = graph.of_model

    def shifted(model: Model) -> graph.Graphs:
        from dataclasses import replace

        scale = replace(model.ensemble.calibration, scale=model.ensemble.calibration.scale * 1.01)
        return whole(replace(model, ensemble=replace(model.ensemble, calibration=scale)))

    monkeypatch.setattr(graph, "of_model", shifted)
    with pytest.raises(export.ExportRefused, match="do not answer as it does"):
        export.run(TASK, None, Path("wrong"), recordings=3)
    assert not Path("wrong").exists()


def test_a_missing_library_is_named_with_the_way_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(export.ExportRefused, match=r"spox, onnx, .*pip install -e '\.\[export\]'"):
        export.run(TASK, None, Path("nowhere"))


def test_a_task_that_the_export_does_not_predict_is_an_error(project: Path) -> None:
    with pytest.raises(predict.NoModel, match="predicts simulated-murmur"):
        predict.run([Path("sounds")], "exported", "pascal-sounds")


def test_an_audit_holds_the_export_against_its_version(project: Path, copy: Path, tmp_path: Path) -> None:
    client = tracking.connect()
    assert audited.version_of(Path("exported")) == f"{TASK}/1"
    evidence = Evidence(client, versions.get(client, f"{TASK}/1"), tmp_path)
    assert "3 files as signed" in audited.check(Path("exported"), evidence)
    client.set_tag(evidence.version.run_id, audited.MODEL_TAG, "0" * 64)
    with pytest.raises(LinkBroken, match="model_sha256"):
        audited.check(Path("exported"), evidence)
    client.set_tag(evidence.version.run_id, audited.MODEL_TAG, sha256_folder(paths.model(TASK)))
    (copy / "model.onnx").write_bytes(b"other")
    with pytest.raises(LinkBroken, match="not the file that was exported"):
        audited.check(copy, evidence)


def test_every_file_has_its_hash_and_size_in_the_statement(project: Path) -> None:
    facts = json.loads(Path("exported/export.json").read_text())
    for name, known in facts["files"].items():
        assert statement.file_facts(Path("exported") / name) == known


def test_a_signature_is_checked_once_and_again_when_asked(copy: Path) -> None:
    predict_exported.verify(copy)
    facts = json.loads((copy / "export.signature.json").read_text())
    facts["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA"
    (copy / "export.signature.json").write_text(json.dumps(facts))
    with pytest.raises(signing.SignatureRefused):
        predict_exported.verify(copy)


def test_the_command_asks_for_a_folder_and_its_help_says_what_it_writes() -> None:
    assert "--to or --page" in CliRunner().invoke(commands.export, []).output
    for command in commands.COMMANDS:
        said = CliRunner().invoke(command, ["--help"]).output
        assert "Exit status" in said and "Examples:" in said


def test_the_ten_lines_of_the_documentation_run(project: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    code = "".join(part.split("```")[0] for part in page.split("```python\n")[1:])
    facts = json.loads(Path("exported/export.json").read_text())
    (tmp_path / "exported").symlink_to(Path("exported").resolve())
    shutil.copy("sounds/2530_AV.wav", tmp_path / "recording.wav")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    alone, together = done.stdout.splitlines()
    assert alone in facts["classes"] or alone.startswith("refer: ")
    assert together.split()[0] in (*facts["classes"], "refer")


def test_simulated_recordings_are_the_same_every_time() -> None:
    first, again = comparison.simulated(3), comparison.simulated(3)
    assert all((one[0] == two[0]).all() and one[1] == two[1] == 4000 for one, two in zip(first, again, strict=True))
