"""Where trials are kept: in a journal, in a folder of any name, or in a database whose address is checked."""

from pathlib import Path

import pytest

from heartml.training import study
from heartml.training.study import StorageError


@pytest.mark.parametrize("address", ["nonsense", "ada:secret@host/x", "postgresql+nodriver://ada:secret@host/x", "mysql://ada:secret@host/x"])
def test_an_address_that_cannot_be_used_is_named_without_its_password(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(study.STORAGE, address)
    with pytest.raises(StorageError, match=rf"^{study.STORAGE}: no address of a database .* unset it") as refused:
        study.open_study(tmp_path / "journal.log", "key")
    assert "secret" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["run #2", "50%25 is it?"])
def test_a_journal_is_kept_in_a_folder_of_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(study.STORAGE, raising=False)
    for trials in (0, 1):
        opened = study.open_study(tmp_path / name / "journal.log", "key")
        assert len(opened.get_trials()) == trials
        opened.tell(opened.ask(), 0.5)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [name, f"{name}/journal.log"]
