"""Weights that this project did not train: lineage and card name them, and an audit checks them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import tiny_checkpoints

from heartml import audit
from heartml.audit import stored_bytes
from heartml.audit.evidence import Evidence
from heartml.audit.links import LinkBroken
from heartml.core.system.errors import HeartMLError
from heartml.core.system.hashing import sha256_file
from heartml.lineage import tree
from heartml.models import held_weights
from heartml.registry.versions import Version
from heartml.reporting.model_card import sections

VERSION = Version("simulated-murmur", "3", "0f3a", "models:/m", (), {}, 0)


@pytest.fixture
def evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evidence:
    """Evidence of a version whose model holds the weights of the encoder `ear`."""
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(tmp_path / "cache"))
    file, _ = tiny_checkpoints.byol_a(tmp_path / "byol.pth")
    section = {"weights": str(file), "sha256": sha256_file(file), "hold": True, "redistribute": True, "licence": "ours",
               "citation": "us"}
    stored = tmp_path / "stored"
    (stored / "ensemble").mkdir(parents=True)
    (stored / "MLmodel").write_text("flavors: {python_function: {artifacts: {model: {path: ensemble}}}}")
    write(stored, {"ear": {"name": "ear", "kind": "byol_a", "sections": {"byol_a": section}}})
    found = Evidence(None, VERSION, tmp_path / "place")      # type: ignore[arg-type]
    found.__dict__ |= {"stored_model": stored, "facts": {"weights": held_weights.facts(specs_in(stored))}}
    return found


def write(stored: Path, specs: dict[str, Any]) -> None:
    (stored / "ensemble/model.json").write_text(json.dumps({"encoders": held_weights.save(stored / "ensemble", specs)}))


def specs_in(stored: Path) -> dict[str, Any]:
    return json.loads((stored / "ensemble/model.json").read_text())["encoders"]


def test_weights_that_are_as_noted_hold(evidence: Evidence) -> None:
    assert stored_bytes.has_weights(evidence)
    assert "byol.pth, SHA-256" in stored_bytes.weights(evidence)
    assert [check.name for check in audit._where_there_are_any(audit.CHECKS, evidence)] == ["weights"]


def test_a_model_without_such_weights_has_no_such_link(evidence: Evidence) -> None:
    logspec = {"logspec": {"name": "logspec", "sections": {"logspec": {"bands": 48}}}}
    (evidence.stored_model / "ensemble/model.json").write_text(json.dumps({"encoders": logspec}))
    evidence.__dict__["facts"] = {}
    assert audit._where_there_are_any(audit.CHECKS, evidence) == []
    (evidence.stored_model / "MLmodel").unlink()
    assert audit._where_there_are_any(audit.CHECKS, evidence) == []


def test_other_weights_than_noted_are_found(evidence: Evidence) -> None:
    evidence.__dict__["facts"] = {"weights": [{**evidence.facts["weights"][0], "sha256": "0" * 64}]}
    with pytest.raises(LinkBroken, match=r"model\.json and lineage\.json name other weights: .*SHA-256 0000"):
        stored_bytes.weights(evidence)
    evidence.__dict__["facts"] = {}
    with pytest.raises(LinkBroken, match=r"lineage\.json: none"):
        stored_bytes.weights(evidence)


def test_held_weights_that_changed_are_found(evidence: Evidence) -> None:
    file = next((evidence.stored_model / "ensemble/weights").iterdir())
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(HeartMLError, match="not the weights that the model was saved with"):
        stored_bytes.weights(evidence)


def test_held_weights_that_must_not_be_passed_on_are_found(evidence: Evidence) -> None:
    specs = specs_in(evidence.stored_model)
    specs["ear"]["sections"]["byol_a"]["redistribute"] = False
    (evidence.stored_model / "ensemble/model.json").write_text(json.dumps({"encoders": specs}))
    evidence.__dict__["facts"] = {"weights": held_weights.facts(specs)}
    with pytest.raises(LinkBroken, match="must not be passed on: ear"):
        stored_bytes.weights(evidence)


def test_lineage_and_card_name_file_hash_and_licence(evidence: Evidence) -> None:
    digest = evidence.facts["weights"][0]["sha256"]
    node, = tree._weights(SimpleNamespace(facts=evidence.facts))      # type: ignore[arg-type]
    assert (node.under[0].name, node.under[0].digest) == ("ear", digest)
    assert "licence ours; held by the model" in node.under[0].words
    assert tree._weights(SimpleNamespace(facts={})) == []             # type: ignore[arg-type]
    row = sections.weights(evidence.facts).splitlines()[2]
    assert all(word in row for word in ("ear", "byol", digest, "ours", "us", "held"))
