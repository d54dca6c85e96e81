"""Single checks of an audit, on evidence whose answer is known: what holds is said, what does not is named."""

import hashlib
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from heartml import audit
from heartml.audit import recompute, registry_claims, show, stored_bytes
from heartml.audit.evidence import Evidence
from heartml.audit.links import BROKEN, HOLDS, MISSING, Audit, AuditLink, LinkBroken, LinkMissing
from heartml.core import paths
from heartml.lineage.dvc_objects import ObjectNotFound
from heartml.registry.versions import Version

HOSTILE = "\x1b[2Jx[bold]<script>"
VERSION = Version("simulated-murmur", "3", "0f3a", "models:/m", (), {}, 0)


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    """Evidence whose run files are an empty folder, to be filled."""
    found = Evidence(None, VERSION, tmp_path / "place")      # type: ignore[arg-type]
    (tmp_path / "run").mkdir()
    found.__dict__["run_files"] = tmp_path / "run"
    found.__dict__["run"] = SimpleNamespace(tags={}, data=(), metrics={}, params={}, run_id="0f3a")
    return found


def keep(evidence: Evidence, name: str, content: Any) -> None:
    path = evidence.run_files / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pd.DataFrame):
        content.to_parquet(path)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


# The files of a run


def test_a_file_that_is_not_there_is_missing_and_a_damaged_one_broken(evidence: Evidence) -> None:
    with pytest.raises(LinkMissing, match=r"lineage\.json: not among the files of run 0f3a"):
        _ = evidence.facts
    keep(evidence, "dvc.lock", "stages: {a: &x [1], b: *x}")
    with pytest.raises(LinkBroken, match=r"dvc\.lock: damaged: it repeats itself by aliases"):
        _ = evidence.lock
    keep(evidence, "lineage.json", "{half")
    with pytest.raises(LinkBroken, match=r"lineage\.json: damaged"):
        _ = evidence.facts


def test_the_outputs_of_a_model_are_those_of_its_stages_in_the_lock(evidence: Evidence) -> None:
    def stage(dependency: str, out: str) -> dict[str, Any]:
        return {"cmd": "x", "deps": [{"path": dependency, "md5": "1"}], "outs": [{"path": out, "md5": f"md5 of {out}"}]}

    keep(evidence, "dvc.lock", json.dumps({"stages": {
        "split": stage("data", "artifacts/simulated-murmur/folds.parquet"),
        "ensemble": stage("artifacts/simulated-murmur/folds.parquet", "artifacts/simulated-murmur/model"),
        "other": stage("data", "artifacts/pascal-sounds/model")}}))
    assert set(evidence.stages) == {"split", "ensemble"}
    assert evidence.outputs["artifacts/simulated-murmur/model"] == "md5 of artifacts/simulated-murmur/model"
    keep(evidence, "dvc.lock", json.dumps({"stages": {"other": stage("data", "artifacts/pascal-sounds/model")}}))
    del evidence.__dict__["lock"], evidence.__dict__["stages"]
    with pytest.raises(LinkMissing, match="no stage in it makes artifacts/simulated-murmur"):
        _ = evidence.stages


def test_notes_and_lock_have_to_agree_stage_by_stage(evidence: Evidence) -> None:
    evidence.__dict__["stages"] = {"split": {"cmd": "a"}, "search": {"cmd": "b"}}
    evidence.__dict__["facts"] = {"stages": {"split": {"cmd": "a"}, "search": {"cmd": "b"}}}
    assert stored_bytes.noted_stages(evidence).startswith("2 stages")
    evidence.__dict__["facts"] = {"stages": {"split": {"cmd": "other"}, "report": {}}}
    with pytest.raises(LinkBroken, match="differ on report; search; split"):
        stored_bytes.noted_stages(evidence)
    evidence.__dict__["facts"] = {"missing": ["no git commit"]}
    with pytest.raises(LinkMissing, match="no git commit"):
        stored_bytes.noted_stages(evidence)


# Stored bytes


class Place:
    """A storage in memory that has these bytes under these hashes."""

    def __init__(self, name: str, content: dict[str, bytes]) -> None:
        self.name, self.content = name, content

    def read(self, md5: str) -> bytes:
        if md5 not in self.content:
            raise ObjectNotFound("not there")
        return self.content[md5]


def md5_of(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def test_every_output_is_hashed_again_where_it_is_stored(evidence: Evidence) -> None:
    md5 = md5_of(b"one")
    evidence.__dict__["outputs"] = {"artifacts/a.txt": md5}

    def stored(**places: bytes) -> str:
        evidence.objects = SimpleNamespace(places=tuple(Place(name, {md5: data}) for name, data in places.items()))
        return stored_bytes.stage_outputs(evidence)

    assert stored(cache=b"one").startswith("1 ")
    with pytest.raises(LinkBroken, match=r"1 of 1 .*artifacts/a\.txt: the_remote has other bytes"):
        stored(the_remote=b"0ne", cache=b"one")
    with pytest.raises(LinkMissing, match=r"1 of 1 .*artifacts/a\.txt"):
        stored()


def test_run_lock_and_notes_have_to_name_one_version_of_the_data(evidence: Evidence) -> None:
    def stages(*versions: str) -> dict[str, Any]:
        return {str(n): {"deps": [{"path": paths.DATA.as_posix(), "md5": md5}]} for n, md5 in enumerate(versions)}

    evidence.__dict__ |= {"data_md5": "ab.dir", "facts": {"data": {"hash": "ab.dir"}}, "stages": stages("ab.dir")}
    evidence.run.tags["heartml.data"] = "ab.dir"
    evidence.run.data = ({"source": json.dumps({"hash": "ab.dir"})},)
    assert stored_bytes.data_version(evidence).startswith("ab.dir, the same in ")
    evidence.run.tags["heartml.data"] = "cd.dir"
    with pytest.raises(LinkBroken, match=r"its tag: cd\.dir"):
        stored_bytes.data_version(evidence)
    evidence.__dict__["stages"] = stages("ab.dir", "cd.dir")
    with pytest.raises(LinkBroken, match=r"several versions of the data: ab\.dir, cd\.dir"):
        stored_bytes.data_version(evidence)


# What is computed again, and what the registry says


def folds(**changes: str) -> pd.DataFrame:
    """Six recordings of six units in two folds and the held-out part; `changes`: recording -> another part."""
    rows = [{"recording_id": f"r{n}", "unit_id": f"u{n}", "group_id": f"g{n}", "label": "Absent",
             "part": ("test", "0", "1")[n % 3]} for n in range(6)]
    table = pd.DataFrame(rows)
    return table.assign(part=table["recording_id"].map(changes).fillna(table["part"]))


def of_folds(evidence: Evidence, table: pd.DataFrame, patients: dict[str, str] | None = None) -> None:
    predicted = folds().drop_duplicates("unit_id")[["unit_id", "part"]]
    keep(evidence, "folds.parquet", table)
    keep(evidence, "evaluation/predictions.parquet", predicted[predicted["part"] == "test"])
    keep(evidence, "out_of_fold.parquet", predicted[predicted["part"] != "test"])
    keep(evidence, "validation/groups.parquet", table[["recording_id", "group_id"]])
    data = table[["recording_id", "group_id"]].assign(patient_id=[(patients or {}).get(i, i) for i in table["unit_id"]])
    evidence.__dict__["data_md5"] = "ab.dir"
    evidence.objects = SimpleNamespace(listing=lambda _: {}, table=lambda *_: data)


def test_nobody_stands_on_both_sides_of_a_split(evidence: Evidence) -> None:
    of_folds(evidence, folds())
    assert recompute.groups(evidence).startswith("6 recordings, 6 groups, 2 folds and the held-out part")
    of_folds(evidence, folds(), patients={"u0": "one child", "u1": "one child"})
    with pytest.raises(LinkBroken, match="one child"):
        recompute.groups(evidence)
    of_folds(evidence, folds(r1="1", r2="0"))
    with pytest.raises(LinkBroken, match=r"out_of_fold\.parquet has another split than folds\.parquet: unit u1; u2"):
        recompute.groups(evidence)


def test_withdrawn_consent_breaks_the_link_by_tag_and_by_table(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keep(evidence, "folds.parquet", folds())
    nobody = registry_claims.withdrawn(evidence)
    paths.WITHDRAWN.parent.mkdir(parents=True)
    pd.DataFrame({"recording_id": ["r9"], "patient_id": ["circor-9"]}).to_parquet(paths.WITHDRAWN)
    assert registry_claims.withdrawn(evidence) == nobody, "it is a recording of another model"
    pd.DataFrame({"recording_id": ["r1"], "patient_id": ["circor-1"]}).to_parquet(paths.WITHDRAWN)
    with pytest.raises(LinkBroken, match="circor-1"):
        registry_claims.withdrawn(evidence)


def test_validation_has_to_have_passed_and_the_tag_has_to_say_so(evidence: Evidence) -> None:
    keep(evidence, "validation/validation.json", {"success": True, "warnings": ["a", "b"]})
    evidence.run.tags["heartml.validation"] = "passed"
    assert registry_claims.validation(evidence) == "passed, 2 warnings"
    evidence.run.tags["heartml.validation"] = "failed"
    with pytest.raises(LinkBroken, match="the run's tag: failed"):
        registry_claims.validation(evidence)
    keep(evidence, "validation/validation.json", {"success": False, "errors": ["two labels"]})
    with pytest.raises(LinkBroken, match=r"the data did not pass .two labels"):
        registry_claims.validation(evidence)


# For people


def an_audit() -> Audit:
    links = (AuditLink("a", "Data", HOLDS, "all there", "9 files", "content hashes"),
             AuditLink("b", "Model", BROKEN, "the same", HOSTILE, "the signature"),
             AuditLink("c", "Commit", MISSING, "there", "gone", "git"))
    return Audit(VERSION, links, 1.25)


def test_the_summary_has_a_line_for_each_area_and_every_link_that_does_not_hold() -> None:
    areas = [name for _, names in show.AREAS.values() for name in names]
    assert sorted(areas) == sorted({*(check.name for check in (*audit.CHECKS, audit.WEIGHTS)), "export", "reproduced"})
    links = tuple(AuditLink(name, name, BROKEN if name == "groups" else HOLDS, "apart", f"{name} as stored", "git")
                  for name in areas)
    text = StringIO()
    show.summary(Audit(VERSION, links, 1.25), Console(file=text, width=160))
    lines = text.getvalue().splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["Signature", "holds"], ["Code", "holds"], ["Data", "broken"]]
    assert "commit as stored" in lines[2] and "data as stored" not in text.getvalue()
    assert lines[4].strip() == "groups: groups as stored (expected: apart)"
    assert len(lines) == len(show.AREAS) + 3 and lines[-1] == f"1 broken of {len(areas)} links, 1.2 s"


def test_table_rows_and_page_show_every_link_and_expectations_of_what_does_not_hold() -> None:
    found, text = an_audit(), StringIO()
    show.table(found, Console(file=text, width=160))
    shown = text.getvalue()
    assert "1 broken and 1 missing of 3 links, 1.2 s" in shown
    assert "Expected: the same" in shown and "Expected: all there" not in shown
    assert "\x1b[2J" not in shown and "[bold]" in shown
    assert [(row["Link"], row["State"], row["Rests on"]) for row in show.rows(found)] == [
        ("Data", HOLDS, "content hashes"), ("Model", BROKEN, "the signature"), ("Commit", MISSING, "git")]
    page = show.page(found)
    assert "&lt;script&gt;" in page and "<script>" not in page
    assert page.count("Data") >= 1 and "1 broken and 1 missing of 3 links" in page


def test_the_evidence_of_a_validated_source_is_the_file_that_the_registry_noted(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not registry_claims.has_sources(evidence)
    noted = hashlib.sha256(b"{}").hexdigest()
    evidence.__dict__["version"] = replace(VERSION, tags={"heartml.validated_source.ward": noted})
    assert registry_claims.has_sources(evidence)
    with pytest.raises(LinkMissing, match=r"not here: sources/ward.json"):
        registry_claims.sources(evidence)
    Path("sources").mkdir()
    Path("sources/ward.json").write_text("{}")
    assert registry_claims.sources(evidence) == "as noted: sources/ward.json"
    Path("sources/ward.json").write_text('{"validated": true}')
    with pytest.raises(LinkBroken, match=r"changed since the validation: sources/ward.json"):
        registry_claims.sources(evidence)
