"""Cells and tables that other people wrote: one rule for what is missing, a number, an age; no value is guessed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from heartml.core.system import cells, tables, untrusted
from heartml.core.system.cells import CellError
from heartml.core.system.untrusted import DocumentError


def rows(text: str, *wanted: str) -> list[dict[str, str]]:
    return [dict(row) for row in tables.parse(text, wanted)[1]]


@pytest.mark.parametrize("word", ["", " ", "nan", "NaN", "NA", "N/A", "#N/A", "null", "NULL", "None", "-", "\u00a0-"])
def test_words_for_nothing_are_nothing_everywhere(word: str) -> None:
    assert cells.is_missing(word)
    assert cells.present(word) is None
    assert cells.identifier(word) is None
    assert cells.age_group(word) is None
    assert cells.sex(word) is None


@pytest.mark.parametrize("word", ["0", "Unknown", "no", "nano", "--", "n"])
def test_other_words_are_not(word: str) -> None:
    assert cells.present(word) == word


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("1.0", 1), ("1.", 1), ("0012", 12), ("-1.00", -1), (" 7 ", 7)])
def test_a_whole_number_is_read_in_every_form(text: str, number: int) -> None:
    assert cells.whole(text) == number


@pytest.mark.parametrize("text", ["", "1.5", "12,000", "1e3", "0x1", "\u0663", "9" * 16, "1 2", "nan", "+-1"])
def test_what_is_no_whole_number_is_none(text: str) -> None:
    assert cells.whole(text) is None


@pytest.mark.parametrize(("first", "second"), [
    ("12", "12.0"), ("12", "0012"), ("12.0", "1.2e1"), ("P1", "p1"), ("p1", "p1\u200b"),
    ("M\u00fcller", "Mu\u0308ller"), ("Ann  Lee", "ann lee"),
])
def test_two_spellings_that_may_be_one_person_are_found(first: str, second: str) -> None:
    assert cells.other_spellings([first, "other", second]) == {first: (second,), second: (first,)}


@pytest.mark.parametrize("ids", [
    ("12", "1-2"), ("12", "1 2"), ("12", "12.5"), ("p1", "p01"), ("a_b", "ab"), ("1" * 30, "1" * 29 + "2"),
    ("M\u00fcller", "M\u00f6ller"),
])
def test_ids_of_two_people_are_two(ids: tuple[str, str]) -> None:
    assert not cells.other_spellings(ids)
    assert tuple(map(cells.identifier, ids)) == ids, "an id keeps its text"


@pytest.mark.parametrize("text", ["unknown", "?", "Unk", "1.23457E+11", "1,2E+8"])
def test_what_several_people_may_have_is_no_id(text: str) -> None:
    with pytest.raises(CellError, match="several people may have it"):
        cells.identifier(text)


@pytest.mark.parametrize(("text", "group"), [
    ("45.0", "40-49"), ("45,5", "40-49"), ("0", "0-9"), ("120", "120-129"), ("30-39", "30-39"), ("70+", "70+"),
    ("Young adult", "Young adult"), (">= 65", ">= 65"), ("unknown", None),
])
def test_ages_become_groups(text: str, group: str | None) -> None:
    assert cells.age_group(text) == group


@pytest.mark.parametrize("text", ["45y", "45 years", "4 months", "-1", "121", "450", "1e2", "Oct-19", "39-30", "1-450"])
def test_an_age_with_a_unit_or_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(CellError, match="years from 0 to 120"):
        cells.age_group(text)


@pytest.mark.parametrize("text", ["1", "x", "Femal"])
def test_a_sex_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CellError, match="write Female or Male"):
        cells.sex(text)


def test_a_word_that_could_be_two_is_none() -> None:
    assert cells.choice("as", ["AS", "As"]) is None
    assert cells.choice("AS", ["AS", "As"]) == "AS"


@pytest.mark.parametrize("head", ["Patient ID", "patient_id", "PATIENT-ID", "\u200bpatient id", "Patient\u00a0ID "])
def test_a_column_is_found_whatever_its_case_and_spacing(head: str) -> None:
    assert rows(f"x,{head}\n1,p1\n", "patient_id") == [{"x": "1", "patient_id": "p1"}]


def test_the_exact_name_goes_before_a_similar_one() -> None:
    assert rows("ID,id\n1,2\n", "id") == [{"ID": "1", "id": "2"}]


@pytest.mark.parametrize("text", ["Patient ID,patient-id\n1,2\n", "a,a\n1,2\n"])
def test_two_columns_that_may_be_meant_are_refused(text: str) -> None:
    with pytest.raises(DocumentError, match="two columns are called"):
        tables.parse(text, ["patient_id"])


@pytest.mark.parametrize("text", [
    "a,b\n1,2\n", "a;b\n1;2\n", "a\tb\n1\t2\n", "a,b\r1,2\r", "a,b\r\n\r\n1,2\r\n,\r\n", "sep=;\na;b\n1;2\n",
    '"a",b\n"1",2',
])
def test_every_separator_and_line_end_is_read_by_one_rule(text: str) -> None:
    assert rows(text) == [{"a": "1", "b": "2"}]


def test_a_row_knows_its_line_and_what_it_lacks() -> None:
    [first, second] = tables.parse('sep=,\na,b\n"x\ny",2\n\n3,4,5\n')[1]
    assert (first.line, first["a"], first.too_long) == (4, "x\ny", False)
    assert (second.line, second.too_long, second["no such column"]) == (6, True, "")


def test_empty_lines_above_the_names_of_the_columns_are_not_these_names() -> None:
    names, [row] = tables.parse("\n;;\na;b\n1;2\n")
    assert (names, row.line, dict(row)) == (["a", "b"], 4, {"a": "1", "b": "2"})
    assert tables.parse("\n\n")[0] == []


@pytest.mark.skipif(shutil.which("iconv") is None, reason="iconv is not installed")
@pytest.mark.parametrize("encoding", ["WINDOWS-1252", "UTF-16", "UTF-32"])
def test_the_way_out_of_another_encoding_works(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "OLD").write_bytes("a\nM\u00fcller\n".encode(encoding))
    [command] = re.findall("`(.*?)`", untrusted.SAVE_AS_UTF8)
    assert f"-f {encoding}" in untrusted.SAVE_AS_UTF8
    subprocess.run(command.replace("WINDOWS-1252", encoding), shell=True, cwd=tmp_path, check=True)
    assert [dict(row) for row in tables.read(tmp_path / "NEW")[1]] == [{"a": "M\u00fcller"}]


def test_two_thousand_columns_are_read_and_a_million_are_refused() -> None:
    names = ",".join(f"c{n}" for n in range(2000))
    assert rows(f"a,{names}\n1\n") == [{"a": "1"}]
    with pytest.raises(DocumentError, match="1,000,000 columns"):
        tables.parse("," * 999_999)


@pytest.mark.parametrize(("data", "words"), [
    ("a,b\n1,M\u00fcller\n".encode("latin-1"), "line 2, byte 7 is 0xfc \\('\u00fc' in Windows-1252\\)"),
    ("a,b\r1,M\u00fcller\r".encode("cp1252"), "line 2, byte 7"),
    ("a,b\n".encode("utf-16"), "not UTF-8 but UTF-16"), ("a,b\n".encode("utf-16-le"), "UTF-16"),
    ("a,b\n".encode("utf-32"), "not UTF-8 but UTF-32"), (b"\0\0\xfe\xff", "not UTF-8 but UTF-32"),
])
def test_what_is_not_utf8_is_refused_with_its_place_and_the_way_out(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(DocumentError, match=words) as refused:
        tables.read(tmp_path / "t.csv")
    assert "CSV UTF-8" in str(refused.value)
    assert untrusted.SAVE_AS_UTF8 in str(refused.value)
