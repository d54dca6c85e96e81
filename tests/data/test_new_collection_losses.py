"""`heartml init` loses no class and no file of a user, and says what it decided."""

from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from heartml.cli.init import init
from heartml.core.system.hashing import sha256
from heartml.data import new_collection
from heartml.data.datasets import generic
from heartml.data.new_collection import CollectionFolderError, names


def folder_of(folder: Path, labels: list[str], table: str = "t.csv", **files: str) -> Path:
    """Sound files that are not decoded, a table with a label for each, and further files."""
    folder.mkdir(parents=True)
    for k in range(len(labels)):
        (folder / f"r{k}.wav").write_bytes(f"{folder} {k}".encode())
    rows = "".join(f"r{k}.wav,{label}\n" for k, label in enumerate(labels))
    (folder / table).write_text("file,finding\n" + rows)
    return folder


def test_force_never_overwrites_what_a_user_wrote(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mine", ["a", "b"] * 6, "mine_recordings.csv")
    for k in range(12):
        (folder / f"r{k}.wav").rename(folder / f"p{k // 2}_{k % 2}.wav")
    table = folder / "mine_recordings.csv"
    table.write_text("file,finding\n" + "".join(f"p{k // 2}_{k % 2}.wav,{'ab'[k // 2 % 2]}\n" for k in range(12)))
    mine = table.read_bytes()
    made = new_collection.plan(folder, {})
    assert made.patients, "the table would be written again with the patients"
    with pytest.raises(CollectionFolderError, match=r"mine_recordings\.csv is there, `heartml init` did not write it"):
        new_collection.write(made, force=True)
    new_collection.write(new_collection.plan(folder, {"patient": "-"}))
    assert new_collection.plan(folder, {}).survey.table == "mine_recordings.csv", "it was only read, so it stays mine"
    with pytest.raises(CollectionFolderError, match="did not write it"):
        new_collection.write(made, force=True)
    assert table.read_bytes() == mine
    (folder / "mine.yaml").write_text("title: mine\n")
    with pytest.raises(CollectionFolderError, match=r"mine\.yaml .*did not write it"):
        new_collection.write(new_collection.plan(folder, {"patient": "-"}), force=True)
    (folder / "other.yaml").mkdir()
    with pytest.raises(CollectionFolderError, match=r"other\.yaml is there"):
        new_collection.write(new_collection.plan(folder, {"name": "other"}), force=True)


def test_a_kill_leaves_no_former_mapping_beside_a_new_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "c", ["a", "b"] * 6)
    (folder / "t.csv").unlink()
    for name in "ab":
        (folder / name).mkdir()
        (folder / f"{name}/x.wav").touch()
    new_collection.write(new_collection.plan(folder, {}))
    replaced: list[str] = []
    rename = Path.replace

    def killed(self: Path, target: Path) -> Path:
        replaced.append(target.name)
        if len(replaced) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        new_collection.write(new_collection.plan(folder, {}), force=True)
    assert replaced == ["c_recordings.csv", "c.yaml"]
    assert not (folder / "c.yaml").exists()


@pytest.mark.parametrize(("labels", "counts", "said"), [
    (["+", "-", "++"] * 4, {"positive": 4, "positive 2": 4, "negative": 4}, ""),
    (["click", "none"] * 6 + [""], {"click": 6, "none": 6}, "'none' in 6 rows is taken for a class, and no word in 1"),
    (["a", "b", "none", "", ""] * 3, {"a": 3, "b": 3}, "rows without a label: 9 ('none' 3, empty 6)"),
    (["1", "01", "1.0", "0"] * 3, {"01": 9, "0": 3}, "taken for one class: '01' (3), '1' (3), '1.0' (3)"),
    (["Normal", "normal", "ill"] * 3, {"ill": 3, "Normal": 6}, "taken for one class: 'Normal' (3), 'normal' (3)"),
])
def test_no_word_is_lost_or_joined_in_silence(
    tmp_path: Path, labels: list[str], counts: dict[str, int], said: str
) -> None:
    made = new_collection.plan(folder_of(tmp_path / "c", labels), {})
    assert made.counts == counts
    assert said in "\n".join(made.notes)
    collection, root = generic.open_collection(new_collection.write(made))
    assert collection.read(root).recordings["label_finding"].value_counts().to_dict() == counts


def test_an_answer_is_checked_when_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "c", ["a", "none", "b", "", ""] * 3)
    monkeypatch.setattr("heartml.cli.init._on_a_terminal", lambda: True)
    done = CliRunner().invoke(init, [str(folder)], input="Bad Name\nward\nfindin\nfile\nfinding\ny\n-\n")
    assert done.exit_code == 0, done.output
    for words in ("Error: --name 'Bad Name': small letters", "'findin' is no column: there are file, finding",
                  "column file holds no classes: it names the sound files",
                  "3 rows have the word none, and 6 are empty: is none a class? [y/N]"):
        assert words in done.output
    assert generic.read_collection(folder / "ward.yaml").own_tasks["finding"].classes == ("a", "b", "none")


def test_a_name_of_another_folder_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    berlin, paris = (folder_of(tmp_path / city / "recordings", ["a", "b"] * 4) for city in ("berlin", "paris"))
    recordings = pd.DataFrame({"dataset": "recordings", "source_file": [f"r{k}.wav" for k in range(8)]})
    recordings["source_sha256"] = [sha256((berlin / name).read_bytes()) for name in recordings["source_file"]]
    recordings.to_parquet(tmp_path / "recordings.parquet")
    monkeypatch.setattr("heartml.core.paths.RECORDINGS", tmp_path / "recordings.parquet")
    assert new_collection.plan(berlin, {}).name == "recordings"
    made = new_collection.plan(paris, {})
    assert made.name == "paris_recordings"
    assert "another data set recordings, whose files are not those of this folder, so this one is" in made.notes[0]
    assert "data/ has a data set recordings already" in new_collection.plan(paris, {"name": "recordings"}).notes[0]
    survey = new_collection.plan(paris, {}).survey
    assert [names.of_another_folder(name, survey) for name in ("recordings", "paris_recordings")] == [True, False]
    assert not any("data/" in note for note in new_collection.plan(berlin, {"name": "recordings"}).notes)


def test_a_file_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    for name in (b"a/x.wav", b"b/\xe9.wav"):
        path = bytes(tmp_path / "c") + b"/" + name
        Path(path.decode("utf-8", "surrogateescape")).parent.mkdir(parents=True, exist_ok=True)
        Path(path.decode("utf-8", "surrogateescape")).touch()
    with pytest.raises(CollectionFolderError, match=r"the name b/\\udce9\.wav is not UTF-8: rename"):
        new_collection.plan(tmp_path / "c", {})
