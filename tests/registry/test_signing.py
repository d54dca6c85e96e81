"""Signed models: what a signature covers, whose counts, and that nothing which could run code is ever signed."""

import base64
import json
import pickle
import py_compile
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest
from safetensors.numpy import save_file

from heartml.core import paths
from heartml.core.system.files import read_json, write_json
from heartml.registry import signing
from heartml.registry.signing import content, keys
from heartml.registry.signing.content import ContentError
from heartml.registry.signing.keys import Key, KeysError

SAID = {"model": "simulated-murmur", "run_id": "r1"}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, without keys."""
    for name in ("HEARTML_SIGNING", "HEARTML_SIGNING_KEY", "HEARTML_TRUSTED_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(project: Path) -> Path:
    """A folder like a stored model, signed with the own key."""
    folder = unsigned(project / "model")
    signing.sign(folder, SAID)
    return folder


def unsigned(folder: Path) -> Path:
    (folder / "code").mkdir(parents=True)
    save_file({"weights": np.arange(3.0)}, folder / "model.safetensors")
    write_json(folder / "model.json", {"biases": [0.1, 0.2]})
    (folder / "code/serving.py").write_text("answer = 42\n")
    return folder


def other_key(place: Path) -> Key:
    """A key pair of somebody else."""
    keys._make(place / "theirs.pem")
    return keys._private(place / "theirs.pem", "theirs")


def test_what_was_signed_is_verified_and_tells_what_was_said(model: Path) -> None:
    signed = signing.verify(model, keys.trusted(), "it")
    assert signed.statement == SAID
    assert signed.key == keys.own().fingerprint


def test_a_private_key_is_made_once_and_its_owner_alone_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    first, again = keys.own(), keys.own()
    assert first == again
    assert stat.S_IMODE(paths.OWN_KEY.stat().st_mode) == 0o600
    assert stat.S_IMODE(paths.OWN_KEY.parent.stat().st_mode) == 0o700
    assert "PRIVATE" not in paths.OWN_KEY.with_suffix(".pub").read_text()
    assert capsys.readouterr().err.count("made a key") == 1


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def statement(model: Path) -> None:
    write_json(model / signing.STATEMENT, {**SAID, "run_id": "r2"})


def payload(model: Path) -> None:
    """The signed text itself, edited in place."""
    told = read_json(model / signing.SIGNATURE)
    envelope = told["dsseEnvelope"]
    text = base64.b64decode(envelope["payload"]).replace(b"model.json", b"model.jsom")
    envelope["payload"] = base64.b64encode(text).decode()
    write_json(model / signing.SIGNATURE, told)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a changed weight": lambda model: flip(model / "model.safetensors"),
    "changed code": lambda model: (model / "code/serving.py").write_text("answer = 43\n"),
    "a file more": lambda model: (model / "code/more.py").write_text(""),
    "a hidden file more": lambda model: (model / ".gitattributes").write_text(""),
    "a file less": lambda model: (model / "model.json").unlink(),
    "a link": lambda model: (model / "link.json").symlink_to(model / "model.json"),
    "another statement": statement,
    "an edited signature": payload,
    "no signature": lambda model: (model / signing.SIGNATURE).unlink(),
    "an empty signature": lambda model: (model / signing.SIGNATURE).write_text("{}"),
    "garbage as signature": lambda model: (model / signing.SIGNATURE).write_bytes(b"\x80\x04."),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_is_refused(model: Path, change: str) -> None:
    CHANGES[change](model)
    with pytest.raises(signing.SignatureRefused, match=r"^it: "):
        signing.verify(model, keys.trusted(), "it")


def test_what_loading_leaves_beside_a_model_is_no_change(model: Path) -> None:
    (model / "registered_model_meta").write_text("model_name: x\n")
    py_compile.compile(str(model / "code/serving.py"))
    signing.verify(model, keys.trusted(), "it")


def test_somebody_elses_signature_does_not_count_until_their_key_is_trusted(
    model: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = other_key(project)
    with monkeypatch.context() as patch:
        patch.setenv("HEARTML_SIGNING_KEY", str(theirs.private))
        for name in (signing.STATEMENT, signing.SIGNATURE):
            (model / name).unlink()
        signing.sign(model, SAID)
    with pytest.raises(signing.SignatureRefused, match=f"signed with key {theirs.short}, which is not trusted"):
        signing.verify(model, keys.trusted(), "it")
    paths.TRUSTED_KEYS.mkdir()
    (paths.TRUSTED_KEYS / "theirs.pub").write_text(theirs.public)
    assert signing.verify(model, keys.trusted(), "it").key == theirs.fingerprint


def test_the_own_name_on_anothers_signature_does_not_help(model: Path, project: Path) -> None:
    """An attacker signs with a key of theirs and writes the trusted fingerprint beside it."""
    theirs, own = other_key(project), keys.own()
    signing._sign(model, model / signing.SIGNATURE, theirs)
    text = (model / signing.SIGNATURE).read_text()
    (model / signing.SIGNATURE).write_text(text.replace(theirs.fingerprint, own.fingerprint))
    with pytest.raises(signing.SignatureRefused, match="not that of key"):
        signing.verify(model, keys.trusted(), "it")


def test_named_keys_are_the_only_ones(model: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_key(project)
    monkeypatch.setenv("HEARTML_TRUSTED_KEYS", str(project / "theirs.pub"))
    with pytest.raises(signing.SignatureRefused, match="not trusted"):
        signing.verify(model, keys.trusted(), "it")
    monkeypatch.setenv("HEARTML_TRUSTED_KEYS", str(project / "gone.pub"))
    with pytest.raises(KeysError, match=r"gone\.pub: no such file or folder\. .* are in \.heartml/keys/$"):
        keys.trusted()
    paths.OWN_KEY.with_suffix(".pub").unlink()
    with pytest.raises(KeysError, match=r"gone\.pub: no such file or folder\. `heartml retrain` makes a key"):
        keys.trusted()


@pytest.mark.parametrize("text", ["", "no key", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"])
def test_a_file_that_is_no_key_is_named(project: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    Path("bad").write_text(text)
    for variable, ask in (("HEARTML_SIGNING_KEY", keys.own), ("HEARTML_TRUSTED_KEYS", keys.trusted)):
        monkeypatch.setenv(variable, "bad")
        with pytest.raises(KeysError, match="bad: no EC"):
            ask()


def test_a_signed_file_speaks_for_itself_alone(project: Path) -> None:
    signature = Path("gate.signature.json")
    Path("gate.json").write_text('{"version": "1"}')
    signature.write_text(signing.sign_file("gate.json", '{"version": "1"}'))
    assert signing.verify_file(Path("gate.json"), signature, keys.trusted(), "it") == keys.own().fingerprint
    Path("gate.json").write_text('{"version": "2"}')
    with pytest.raises(signing.SignatureRefused):
        signing.verify_file(Path("gate.json"), signature, keys.trusted(), "it")


def test_off_is_an_explicit_setting_and_said_aloud(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert signing.required()
    assert not capsys.readouterr().err
    monkeypatch.setenv("HEARTML_SIGNING", "off")
    assert not signing.required()
    assert "neither signed nor verified" in capsys.readouterr().err


@pytest.mark.parametrize("text, off", [
    ("signing: {required: false}\n", True), ("signing: {required: true}\n", False), ("seed: 1\n", False),
    ("signing: {required: perhaps}\n", False), ("signing: [", False),
    ("another: {version: 2}\nsigning: {required: no}\n", True),
])
def test_params_switch_it_off_in_one_way_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, off: bool
) -> None:
    paths.PARAMS.write_text(text)
    assert signing.required() is not off
    assert ("signing.required is false in params.yaml" in capsys.readouterr().err) is off


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return print, ("code ran",)


def torch_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Evil()))


PICKLES: dict[str, Callable[[Path], object]] = {
    **{f"protocol {n}": lambda path, n=n: path.write_bytes(pickle.dumps(Evil(), protocol=n)) for n in range(6)},
    "joblib": lambda path: joblib.dump(Evil(), path),
    "compressed joblib": lambda path: joblib.dump(Evil(), path, compress=3),
    "torch": torch_zip,
    "object array": lambda path: np.array([Evil()], dtype=object).dump(path),
}


@pytest.mark.parametrize("name", ["weights.pkl", "model.joblib", "model.txt", "model.json", "code/notes.py",
                                  "more.safetensors", "model.pt", "unnamed"])
@pytest.mark.parametrize("kind", PICKLES)
def test_no_pickle_under_any_name_is_signed(project: Path, kind: str, name: str) -> None:
    folder = unsigned(project / "model")
    PICKLES[kind](folder / name)
    with pytest.raises(ContentError, match=Path(name).name):
        signing.sign(folder, SAID)
    assert not (folder / signing.SIGNATURE).exists()


def test_a_pickle_behind_the_tensors_is_found(project: Path) -> None:
    folder = unsigned(project / "model")
    with (folder / "model.safetensors").open("ab") as file:
        file.write(pickle.dumps(Evil()))
    assert content.problems(folder) == ["model.safetensors: safetensors with more bytes than tensors"]


def test_what_is_text_and_numbers_is_fine(project: Path) -> None:
    assert content.problems(unsigned(project / "model")) == []
    assert content.problems(Path(__file__).parents[2] / "heartml/metrics") == []


@pytest.mark.parametrize("flavour, words", [
    ({"loader_module": "mlflow.sklearn"}, "not as code that is text"),
    ({"python_model": "python_model.pkl"}, "not as code that is text"),
    ({"artifacts": {"model": {"path": "../../elsewhere"}}}, "outside"),
    ({"code": "/etc"}, "outside"),
])
def test_mlflow_loads_it_in_one_way_alone(project: Path, flavour: dict[str, object], words: str) -> None:
    folder = unsigned(project / "model")
    own = {"loader_module": "mlflow.pyfunc.loaders.code_model", "code": "code"}
    (folder / "MLmodel").write_text(json.dumps({"flavors": {"python_function": own}}))
    assert content.problems(folder) == []
    (folder / "MLmodel").write_text(json.dumps({"flavors": {"python_function": {**own, **flavour}}}))
    assert any(words in problem for problem in content.problems(folder))
    (folder / "MLmodel").write_text(json.dumps({"flavors": {"python_function": own, "sklearn": {}}}))
    assert any("flavour sklearn" in problem for problem in content.problems(folder))


def test_bytecode_is_its_sources_or_it_is_named(project: Path) -> None:
    folder = unsigned(project / "model")
    source = folder / "code/serving.py"
    compiled = Path(py_compile.compile(str(source)))
    assert content.foreign_bytecode(folder) == []
    header = compiled.read_bytes()[:16]
    evil = project / "evil.py"
    evil.write_text("print('code ran')\n")
    compiled.write_bytes(header + Path(py_compile.compile(str(evil))).read_bytes()[16:])
    assert "differs from its source" in content.foreign_bytecode(folder)[0]
    compiled.write_bytes(b"\0" * 40)
    assert "another Python" in content.foreign_bytecode(folder)[0]
    source.unlink()
    assert "without a source" in content.foreign_bytecode(folder)[0]
