"""Every way out that validation and ingest print is tried: the command exists, and after it the fault is gone."""

import ast
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
from dvc.cli import main as dvc
from dvc.cli import parse_args
from support import publisher_files
from support.publisher_files import beating_noise, wav_bytes
from support.workspaces import ROOT, Workspace

from heartml.cli import cli
from heartml.core import config, paths
from heartml.core.stage import StageError
from heartml.core.system import files
from heartml.data import ingest
from heartml.data.ingest import version
from heartml.data.ingest.version import VersionError
from heartml.data.validation import expectations
from heartml.stages import validate

PARAMS = config.load(ROOT / "params.yaml")
_COMMAND = re.compile(r"`((?:heartml|dvc) [^`]*)`")


def texts(file: Path) -> Iterator[str]:
    """The strings of a module; `x` in the place of what is filled in."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


COMMANDS = sorted({command for package in ("heartml", "flows") for file in (ROOT / package).rglob("*.py")
                   for text in texts(file) for command in _COMMAND.findall(text)} | {paths.RESTORE_DATA})


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.startswith("heartml ")])
def test_every_command_of_ours_that_is_printed_exists_with_its_options(command: str) -> None:
    _, name, *words = shlex.split(command.partition(" && ")[0].rstrip("."))
    if not re.fullmatch(r"[a-z][a-z-]+", name):
        return      # `heartml STAGE`
    known = cli.get_command(click.Context(cli), name)
    if isinstance(known, click.Group) and words:
        known = known.get_command(click.Context(known), words[0])
    assert known is not None, f"there is no {command}"
    options = {option for parameter in known.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= {*options, "--help"}


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.startswith("dvc ")])
def test_every_command_of_dvc_that_is_printed_exists_with_its_options(command: str) -> None:
    words = [word for word in shlex.split(command)[1:] if word not in ("...", "x")]
    if words[0] in ("metrics", "plots") and len(words) == 1:
        words.append("diff")
    parse_args([*words, *(["x"] if words == ["add"] else [])])


@pytest.fixture
def collection(here: Workspace, tmp_path: Path) -> Path:
    """CirCor's layout, ingested; returns the publisher's folder."""
    folder = publisher_files.circor(tmp_path / "publisher")
    ingest.run("circor", folder)
    return folder


def test_what_an_older_ingest_let_pass_is_mended_by_another_one(collection: Path) -> None:
    table = version.read().recordings
    faulty = pd.concat([table, table.iloc[[0]].assign(source_file="copy.wav")], ignore_index=True)
    faulty.loc[1, "licence"] = None
    faulty.loc[2, "label_murmur_here"] = "Presnt"
    several = faulty["patient_id"].duplicated(keep=False) & faulty.index.isin(range(3, 12))
    first, *_ = faulty.index[several]
    faulty.loc[first, ["group_id", "label_murmur"]] = ["circor-else", "Unknown"]
    faulty.loc[11, "seconds"] = PARAMS.ingest.min_seconds / 2
    files.write_parquet(paths.RECORDINGS, faulty)
    assert dvc(["add", "-q", "data"]) == 0
    with pytest.raises(StageError) as refused:
        validate.run()
    lines = str(refused.value).split("\n  ")[1:]
    mended = [line for line in lines if expectations._INGEST in line]
    assert len(mended) == len(lines) >= 6, "same samples, licence, class, length, groups, a label of the patient"
    ingest.run("circor", collection)
    validate.run()


def test_changed_and_missing_data_are_brought_back_by_the_command_that_is_printed(collection: Path) -> None:
    first, second, *_ = sorted((paths.DATA / "audio").rglob("*.flac"))
    whole = first.read_bytes()
    first.unlink()
    first.write_bytes(whole[:1000])
    second.unlink()
    with pytest.raises(StageError) as refused:
        validate.run()
    [command] = {one for one in _COMMAND.findall(str(refused.value)) if "checkout" in one}
    with pytest.raises(VersionError, match=re.escape(f"`{command}` puts that version back")):
        ingest.run("circor", collection)
    assert dvc(shlex.split(command)[1:]) == 0
    assert first.read_bytes() == whole and second.exists()
    validate.run()
    version.read().recordings.iloc[1:].to_parquet(paths.RECORDINGS)
    with pytest.raises(VersionError, match="`dvc add data` records what lies there"):
        ingest.run("circor", collection)
    assert dvc(["add", "-q", "data"]) == 0
    assert ingest.run("circor", collection).new == 1


def test_data_that_are_not_here_come_from_the_remote(collection: Path) -> None:
    assert dvc(["push", "-q"]) == 0
    shutil.rmtree(paths.DATA)
    shutil.rmtree(".dvc/cache")
    with pytest.raises(StageError, match=r"run `heartml ingest`, or `dvc pull data\.dvc`"):
        validate.read()
    assert dvc(["pull", "-q", "data.dvc"]) == 0
    assert len(validate.read()[0])


def test_one_sound_with_two_labels_in_two_collections_is_mended_in_one_of_them(here: Workspace, tmp_path: Path) -> None:
    sound = beating_noise(3, 4)
    for name, label, pcm in (("one", "Present", sound), ("two", "Absent", (0.5 * sound[500:]).astype(np.int16))):
        (tmp_path / name).mkdir()
        others = {f"{n}.wav": beating_noise(10 * n + len(label), 4) for n in range(1, 4)}
        for file, samples in {"same.wav": pcm, **others}.items():
            (tmp_path / name / file).write_bytes(wav_bytes(samples))
        rows = [f"same.wav,a,{label}", *(f"{n}.wav,p{n},{('Absent', 'Present')[n % 2]}" for n in range(1, 4))]
        (tmp_path / name / "recordings.csv").write_text("\n".join(["file,subject,diagnosis", *rows]) + "\n")
        (tmp_path / name / f"{name}.yaml").write_text(
            "title: T\ncitation: C\nlicence: CC0-1.0\ntable: recordings.csv\n"
            "columns: {path: file, patient: subject}\nlabels: {murmur: {column: diagnosis}}\n")
        ingest.run("generic", tmp_path / name)
    with pytest.raises(StageError, match=re.escape(expectations._TWO_LABELS)):
        validate.run()
    table = tmp_path / "two/recordings.csv"
    table.write_text(table.read_text().replace("same.wav,a,Absent", "same.wav,a,"))
    ingest.run("generic", tmp_path / "two")
    validate.run()
    assert files.read_json(paths.VALIDATION / "validation.json")["success"]
