"""A key that is there twice in YAML is refused with both lines; PyYAML would take the last one in silence."""

from pathlib import Path

import pytest
import yaml

from heartml.core import config
from heartml.core.system.errors import HeartMLError
from heartml.core.system.untrusted import DocumentError, parse_yaml
from heartml.data.datasets import LayoutError, mapping_file

MAPPING = """title: t
citation: c
licence: l
table: t.csv
columns: {path: file}
tasks:
  d: {column: x, classes: {click: a, thud: b}}
"""


@pytest.mark.parametrize(("text", "words"), [
    ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is there twice, first in line 1; keep one"),
    ("t:\n  - {x: 1}\n  - {y: {k: 1}, x: 2,\n     y: 3}", "line 4: the key 'y' is there twice, first in line 3"),
    ("[a]: 1\nb: 2\nb: 3", "line 3: the key 'b' is there twice"),
])
@pytest.mark.parametrize("loader", [yaml.SafeLoader, yaml.BaseLoader])
def test_a_key_that_is_there_twice_is_refused(text: str, words: str, loader: type[yaml.SafeLoader]) -> None:
    with pytest.raises(DocumentError, match=words):
        parse_yaml(text, loader)


def test_one_word_as_key_and_value_or_in_two_mappings_is_allowed() -> None:
    text = "a: a\nb: {a: b, b: [a, a, {a: 1}]}\nc: [[a], {b: 1}]\nd: {}\n"
    assert parse_yaml(text, yaml.SafeLoader) == yaml.safe_load(text)


@pytest.mark.parametrize(("old", "new", "words"), [
    ("  d:", "  d: {column: y, classes: [p, q]}\n  d:", "line 8: the key 'd' is there twice, first in line 7"),
    ("click: a,", "click: a, click: c,", "line 7: the key 'click' is there twice"),
])
def test_a_mapping_file_with_a_key_twice_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "clinic.yaml"
    path.write_text(MAPPING)
    mapping_file.read(path)
    path.write_text(MAPPING.replace(old, new))
    with pytest.raises(LayoutError, match=words):
        mapping_file.read(path)


def test_parameters_with_a_key_twice_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: 1\nseed: 2\n")
    with pytest.raises(HeartMLError, match=r"line 2: the key 'seed' is there twice"):
        config.load(path)
