"""The chain behind a version: complete, the same wherever data have moved since, in vocabularies that others read."""

import dataclasses
import getpass
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pandas as pd
import pytest
import yaml
from prov.model import ProvActivity, ProvDocument, ProvEntity
from rich.console import Console
from support import small_project
from support.small_project import TASK
from support.workspaces import Workspace

from heartml import cli
from heartml.cli import lineage as commands
from heartml.core import paths
from heartml.core.schema import TEST
from heartml.core.system import files
from heartml.lineage import chain, dvc_objects, export_openlineage, export_prov, page, show, tree
from heartml.lineage.chain import Chain
from heartml.registry import tracking, versions
from heartml.registry.champions import NONE, PERSON, Decision, Entry
from heartml.reporting.outline import Node

HOSTILE = "<script>alert('x')</script>&\"quoted\".wav"


@pytest.fixture(scope="module")
def project(retrained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A copy of the retrained project as the working folder of this module; `changed` takes copies of it."""
    copy = retrained.copy(tmp_path_factory.mktemp("provenance") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy.root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield copy


@pytest.fixture(scope="module")
def found(project: Workspace) -> Chain:
    """The chain of the champion."""
    return read()


def read() -> Chain:
    client = tracking.connect()
    return chain.read(client, chain.locate(client, TASK))


@pytest.fixture
def changed(project: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy to be harmed."""
    copy = project.copy(tmp_path / "changed")
    monkeypatch.chdir(copy.root)
    return copy


def stored(project: Workspace, name: str) -> Path:
    """A file of the champion's run."""
    [place] = project.root.glob(f".heartml/mlartifacts/*/artifacts/{name}")
    return place


def locked(project: Workspace) -> dict[str, set[tuple[str, str]]]:
    """Stage -> (path, hash) of everything that it reads or writes, as the run keeps `dvc.lock`."""
    stages = yaml.safe_load(stored(project, "dvc.lock").read_text())["stages"]
    return {address: {(link["path"], link["md5"]) for link in (*entry["deps"], *entry["outs"])}
            for address, entry in stages.items()}


def test_a_chain_leads_from_the_version_to_every_recording_of_its_folds(found: Chain) -> None:
    assert found.missing == ()
    folds = found.folds.set_index("recording_id")["part"]
    assert len(folds) and set(folds) == {"0", "1", "2", TEST}
    known = found.recordings.set_index("recording_id")
    assert known.loc[folds.index, "part"].equals(folds.astype(known["part"].dtype))
    for column in ("source_file", "source_sha256", "licence", "dataset", chain.AUDIO_MD5):
        assert known[column].notna().all(), column


def test_the_audio_of_the_chain_is_what_lies_in_the_cache_under_that_hash(found: Chain) -> None:
    row = found.recordings.iloc[0]
    assert dvc_objects.Objects().read(row[chain.AUDIO_MD5]) == paths.audio(row["recording_id"]).read_bytes()


def test_all_stages_are_there_each_behind_what_it_reads(project: Workspace, found: Chain) -> None:
    order = [stage.address for stage in found.stages]
    assert sorted(order) == sorted(small_project.STAGES)
    for stage in found.stages:
        for other in found.stages:
            if other is not stage and chain.reads(stage, other):
                assert order.index(other.address) < order.index(stage.address)
    assert found.lock and found.lock.sha256 == found.facts["dvc_lock_sha256"] == found.run.tags["heartml.dvc_lock"]


def test_prov_reads_back_as_written_and_its_hashes_are_those_of_the_lock(project: Workspace, found: Chain) -> None:
    document = ProvDocument.deserialize(content=export_prov.as_json(found))
    assert document == export_prov.document(found)
    told = {str(a.label): a for a in document.get_records(ProvActivity)}
    assert set(told) == {*small_project.STAGES, "registration"}
    entities = [dict(e.extra_attributes) for e in document.get_records(ProvEntity)]
    plain = [{str(key): value for key, value in entity.items()} for entity in entities]
    hashes = {(entity["heartml:path"], entity["heartml:md5"]) for entity in plain if "heartml:path" in entity}
    expected = set().union(*locked(project).values()) | {("data", found.data.md5)}
    assert hashes == expected
    sources = {entity["heartml:sha256"] for entity in plain if "heartml:sha256" in entity}
    assert sources == set(found.recordings["source_sha256"])


def test_openlineage_tells_each_stage_once_begun_and_once_ended_with_the_hashes_of_the_lock(
    project: Workspace, found: Chain
) -> None:
    told = [json.loads(json.dumps(event)) for event in export_openlineage.as_dicts(found)]
    assert told == export_openlineage.as_dicts(read()), "the same chain, the same events"
    by_job: dict[str, list[dict]] = {}
    for event in told:
        by_job.setdefault(event["job"]["name"], []).append(event)
    assert set(by_job) == {*small_project.STAGES, f"register {TASK}"}
    for name, pair in by_job.items():
        assert [event["eventType"] for event in pair] == ["START", "COMPLETE"]
        assert len({event["run"]["runId"] for event in pair}) == 1
        if name in small_project.STAGES:
            links = pair[1]["inputs"] + pair[1]["outputs"]
            assert {(x["name"], x["facets"]["version"]["datasetVersion"]) for x in links} == locked(project)[name]
    assert len({event["run"]["runId"] for event in told}) == len(by_job)


def test_the_chain_of_a_version_stays_when_data_code_and_lock_move_on(changed: Workspace, found: Chain) -> None:
    before = export_prov.as_json(found)
    recordings = pd.read_parquet(paths.RECORDINGS)
    files.write_parquet(paths.RECORDINGS, recordings.assign(source_file="another.wav").head(3))
    for name, text in (("data.dvc", "outs:\n- md5: 0123.dir\n  path: data\n"), ("dvc.lock", "stages: {}\n"),
                       ("params.yaml", "seed: 1\n")):
        Path(name).write_text(text)
    shutil.rmtree("artifacts")
    assert export_prov.as_json(read()) == before


def test_files_that_are_gone_or_damaged_are_named_with_the_way_out(changed: Workspace) -> None:
    names = ("lineage.json", "dvc.lock", "folds.parquet", "validation/validation.json", "evaluation/metrics.json",
             "gate.json", "params.yaml", "data.dvc")
    for harm in (lambda place: place.write_bytes(b"{ \x00 no"), Path.unlink):
        for name in names:
            harm(stored(changed, name))
        harmed = read()
        text = " ".join(str(node) for node in walk(tree.outline(harmed, 3)))
        for name in names:
            assert [words for words in harmed.missing if words.startswith(f"{name}: ") and "heartml retrain" in words]
            assert f"{name}: " in text
        assert "Links missing" in page.render(harmed)
        export_prov.as_json(harmed)
        export_openlineage.as_dicts(harmed)


def test_a_run_that_is_gone_leaves_a_chain_that_says_so(changed: Workspace) -> None:
    import sqlite3

    client = tracking.connect()
    version = chain.locate(client, TASK)
    client.delete_run(version.run_id)
    assert "deleted" in chain.read(client, version).missing[0]
    with sqlite3.connect(".heartml/mlflow.db") as store:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            store.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (version.run_id,))
    gone = chain.read(client, version)
    assert gone.run is None and len(gone.missing) == 1 and version.run_id in gone.missing[0]
    assert "gone" in page.render(gone)


def objects_of(found: Chain) -> dict[str, str]:
    return {"listing": found.data.md5, "recordings": found.data.objects["recordings.parquet"]}


@pytest.mark.parametrize("which", ["listing", "recordings"])
def test_data_come_from_a_remote_when_the_cache_has_lost_or_damaged_them(
    changed: Workspace, found: Chain, which: str
) -> None:
    md5 = objects_of(found)[which]
    place = Path(".dvc/cache/files/md5") / md5[:2] / md5[2:]
    whole = place.read_bytes()
    place.unlink()
    place.write_bytes(whole[:-1])
    harmed = read()
    assert len(harmed.recordings) == 0
    assert [words for words in harmed.missing if md5.split(".")[0] in words or "damaged" in words]
    assert "DVC's cache: damaged" in " ".join(harmed.missing) and "dvc fetch data.dvc" in " ".join(harmed.missing)
    remote = Path("bundled/files/md5") / md5[:2] / md5[2:]
    remote.parent.mkdir(parents=True)
    remote.write_bytes(whole)
    assert read().missing == ()
    place.unlink()
    assert read().recordings.equals(found.recordings)


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.under:
        yield from walk(child)


def test_the_tree_names_every_link_and_cuts_only_the_recordings(found: Chain) -> None:
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(show.tree(tree.outline(found, 3), whole=False))
    text = console.export_text()
    for digest in (found.version.run_id, found.code.commit, found.lock.sha256, found.data.md5.removesuffix(".dir"),
                   *(link.md5.removesuffix(".dir") for stage in found.stages for link in stage.outputs)):
        assert digest[:show.DIGITS] in text
    assert text.count(".wav") == 3 and f"and {len(found.recordings) - 3:,} more" in text
    everything = [node.name for node in walk(tree.outline(found))]
    assert set(found.recordings["source_file"]) <= set(everything)


@pytest.mark.parametrize("left", [0, 3])
def test_the_line_counts_the_recordings_of_the_folds_among_all(found: Chain, left: int) -> None:
    there = len(found.recordings)
    fewer = dataclasses.replace(found, folds=found.folds.iloc[left:])
    [told] = [node for node in tree.brief(fewer) if node.name == "recordings"]
    assert told.words == (f"{there - left:,} of {there:,} in this data version" if left else f"{there:,}")


def test_the_page_has_everything_in_it_and_fetches_nothing(found: Chain) -> None:
    text = page.render(found)
    assert all(file in text for file in found.recordings["source_file"])
    assert "http://" not in text and "https://" not in text and "<script" not in text
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text


def test_hostile_names_stay_text(found: Chain) -> None:
    hostile = dataclasses.replace(
        found, recordings=found.recordings.assign(source_file=HOSTILE),
        code=dataclasses.replace(found.code, dirty=True, difference=f"diff --git a/{HOSTILE} b/x\n".encode(),
                                 left_out=(HOSTILE,)))
    assert "<script" not in page.render(hostile)
    assert ProvDocument.deserialize(content=export_prov.as_json(hostile)) == export_prov.document(hostile)


def test_what_was_not_committed_is_named_file_by_file(found: Chain) -> None:
    file = "heartml/audio/sound_files.py"
    diff = f"diff --git a/{file} b/{file}\n-a\n+b\ndiff --git a/new.py b/new.py\n+c\n"
    dirty = dataclasses.replace(found, code=dataclasses.replace(
        found.code, dirty=True, difference=diff.encode(), left_out=("download/: a new folder with recordings",)))
    [code] = [node for node in tree.outline(dirty, 0).under if node.name == "Code"]
    assert [node.words for node in code.under if node.name == "changed"] == ["heartml/audio/sound_files.py", "new.py"]
    assert "2 uncommitted files (code.diff); left out: download/: a new folder with recordings" in code.words
    assert diff in page.render(dirty).replace("&#43;", "+")


def test_the_report_opens_with_the_line_of_lineage_and_leads_to_the_rest(project: Workspace, found: Chain) -> None:
    text = Path(f"reports/{TASK}.html").read_text()
    opening, _, rest = text.partition("</header>")
    for digest in (found.version.run_id, found.code.commit, found.lock.sha256, found.data.md5):
        assert digest in opening and digest in rest
    assert 'href="#lineage"' in opening and 'id="lineage"' in rest
    assert found.recordings["source_file"].iloc[0] in rest


def test_an_auditor_has_the_chain_on_the_terminal_within_ten_seconds_of_work(project: Workspace) -> None:
    before = os.times()
    done = project.run("lineage", TASK)
    after = os.times()
    assert "nothing: every link was found" in done.stdout
    assert f"heartml lineage {TASK}/1 --full" in done.stdout and "stages behind this model" in done.stdout
    assert after.children_user + after.children_system - before.children_user - before.children_system < 10


def test_ten_lines_name_the_parts_and_what_is_missing_below_them(found: Chain) -> None:
    def rows(chain: Chain) -> list[tuple[str, str]]:
        names, words = show.summary(tree.outline(chain, 0)).columns
        return list(zip(map(str, names.cells), map(str, words.cells), strict=True))

    whole = rows(found)
    assert [name for name, _ in whole] == [
        "Gate", "Run", "Code", "dvc.lock", "params.yaml", "Validation", "Folds", "Data", "Environment", "Missing"]
    assert f" UTC by {getpass.getuser()}, " in dict(whole)["Run"]
    assert f"of {found.recordings['patient_id'].nunique()} patients (simulated)" in dict(whole)["Data"]
    by_hand = Decision(PERSON, "1", NONE, "I listened to its errors", "Ada")
    promoted = rows(dataclasses.replace(found, decision=Entry(1, by_hand, 0, True, True)))
    assert promoted[0][0] == "Decision" and "promoted by Ada" in promoted[0][1]
    damaged = rows(dataclasses.replace(found, missing=("folds.parquet: gone",)))
    assert damaged[-2:] == [("Missing", "1 links"), ("missing", "folds.parquet: gone")]


def test_no_name_controls_the_terminal() -> None:
    table = show.summary(Node("task", "version 1", under=(Node("Run\x1b[2J", "by \x1b]0;title\x07"),)))
    drawn = io.StringIO()
    Console(file=drawn, width=100).print(table)
    assert "\x1b" not in drawn.getvalue() and "\\x1b[2J" in drawn.getvalue()
    assert commands._printable(["P\x1b]0;title\x070"]) == "P\\x1b]0;title\\x070"


def test_a_user_s_mistake_is_one_line(project: Workspace) -> None:
    run = click.testing.CliRunner().invoke
    with pytest.raises(versions.RegistryError, match=f"{TASK}/9: not in the registry; {TASK} has version 1"):
        run(cli.cli, ["lineage", f"{TASK}/9"], catch_exceptions=False)
    assert run(cli.cli, ["lineage", TASK, "--json", "--diff"]).exit_code == 2
    assert json.loads(run(cli.cli, ["lineage", f"{TASK}/1", "--json"]).stdout)["prefix"] == {"heartml": "urn:heartml:"}
    lines = run(cli.cli, ["lineage", f"{TASK}@champion", "--openlineage"]).stdout.splitlines()
    assert len(lines) == 2 * (len(small_project.STAGES) + 1) and all(json.loads(line) for line in lines)
