"""The documentation tells the truth: links lead somewhere, commands parse, files that it names are there."""

import re
from collections.abc import Callable, Iterator
from urllib.parse import unquote

import click
import pytest
from support import markdown_pages
from support.markdown_pages import Page
from support.workspaces import ROOT

from heartml.cli import cli

EXPECTED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "splits/README.md")
PAGES = sorted({*EXPECTED, *(page.relative_to(ROOT).as_posix() for page in ROOT.glob("docs/*.md"))})
PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_]+|.*[<{*|].*|\.\.\.|…")       # DIR, <name>, one|other: to be filled in
FOLDERS = ("heartml", "flows", "tests", "benchmarks")
PATH = re.compile(rf"(?<![\w./~-])(?:{'|'.join(FOLDERS)})/[\w./*<>{{}},-]*")
CALL = re.compile(r"((\S*/)?time (-\w (\"[^\"]*\"|'[^']*') )?)?(\S*/)?(heartml|python3? -m heartml)(?= |$)")
HISTORY = ("CHANGELOG.md", "docs/experiments.md")      # pages that may name files which are gone


def at(page: Page, line: int, text: str, why: str) -> str:
    path = page.path.relative_to(ROOT) if page.path.is_relative_to(ROOT) else page.path
    return f"{path}:{line}: `{text}`: {why}"


def bad_links(page: Page) -> Iterator[str]:
    """Links to files that are not there, and anchors without a heading."""
    for line, target in page.links:
        if re.match(r"[a-z]+:|//", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.path.parent / unquote(name) if name else page.path
        if name and not path.exists():
            yield at(page, line, target, "no such file")
        elif anchor and path.suffix == ".md":
            anchors = (markdown_pages.read(path) if name else page).anchors
            if unquote(anchor) not in anchors:
                yield at(page, line, target, "no such heading")


def bad_commands(page: Page) -> Iterator[str]:
    """`heartml ...` that the command line would refuse; in a block that is to be typed, also what is left out."""
    for (line, text), typed in page.commands:
        called = CALL.match(text)
        if not called:
            continue
        try:
            own = markdown_pages.words(text[called.end():])
            wrong = complaint(click.Context(cli, **cli.context_settings), own,
                              whole=typed and "..." not in text and "[" not in text)
        except ValueError as error:
            wrong = str(error).lower()
        if wrong:
            yield at(page, line, text, wrong)


def complaint(context: click.Context, given: list[str], *, whole: bool) -> str | None:
    """Why a command does not take the words `given`, or None; `whole`: nothing that it needs may be missing."""
    command = context.command
    options = {name: option for option in command.get_params(context) if isinstance(option, click.Option)
               for name in (*option.opts, *option.secondary_opts)}
    names, places = set(), []
    left = list(given)
    while left:
        word = left.pop(0)
        name, has_value, value = word.partition("=")
        if re.match(r"-+[a-zA-Z]", word):
            option = options.get(name)
            if option is None:
                return f"no option {name}"
            names.add(option.name)
            if option.is_flag or option.count:
                continue
            if not has_value and not left:
                return f"option {name} needs a value"
            value = value if has_value else left.pop(0)
            known = option.type.choices if isinstance(option.type, click.Choice) else (value,)
            if value not in known and not PLACEHOLDER.fullmatch(value):
                return f"option {name} is one of {', '.join(known)}"
        elif isinstance(command, click.Group):
            return subcommand(context, command, word, left, whole=whole)
        elif word != "...":
            places.append(word)
    return count_complaint(command, names, places, whole=whole and "help" not in names)


def subcommand(above: click.Context, group: click.Group, word: str, left: list[str], *, whole: bool) -> str | None:
    if PLACEHOLDER.fullmatch(word) and "|" not in word:
        return None
    for name in word.split("|"):
        if name not in group.commands:
            return f"no command {name}"
        if wrong := complaint(click.Context(group.commands[name], parent=above), left, whole=whole):
            return wrong
    return None


def count_complaint(command: click.Command, names: set[str | None], places: list[str], *, whole: bool) -> str | None:
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    if isinstance(command, click.Group):
        return None
    if all(one.nargs == 1 for one in arguments) and len(places) > len(arguments):
        return f"{len(places) - len(arguments)} words too many: {' '.join(places[len(arguments):])}"
    required = [one.name for one in arguments if one.required]
    if whole and len(places) < len(required):
        return f"{str(required[len(places)]).upper()} is missing"
    missing = [option.opts[0] for option in command.params
               if isinstance(option, click.Option) and option.required and option.name not in names]
    return f"{missing[0]} is missing" if whole and missing else None


def bad_paths(page: Page) -> Iterator[str]:
    """Files and folders of the code that are not there; `*`, `<name>` and `NAME` stand for any name."""
    for number, line in enumerate(page.text.splitlines(), 1):
        for match in PATH.finditer(line):
            name = re.sub(r"<[^>]*>|\b[A-Z]{2,}\b(?!\.md)", "*", match[0].rstrip(".,-").replace("/...", "/"))
            if "{" in name or not any(ROOT.glob(name.rstrip("/"))):
                yield at(page, number, match[0], "no such file or folder")


def bad_targets(page: Page) -> Iterator[str]:
    """`make TARGET` that the Makefile does not have."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for (line, text), _ in page.commands:
        for word in text.split()[1:] if re.match(r"make( |$)", text) else ():
            if re.fullmatch(r"[a-z][a-z-]*", word) and word not in targets:
                yield at(page, line, text, f"no target {word}")


def page(name: str) -> Page:
    assert (ROOT / name).is_file(), f"{name} is missing"
    return markdown_pages.read(ROOT / name)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("check", [bad_links, bad_commands, bad_targets], ids=lambda check: check.__name__)
def test_no_page_names_what_is_not_there(name: str, check: Callable[[Page], Iterator[str]]) -> None:
    found = list(check(page(name)))
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("name", [name for name in PAGES if name not in HISTORY])
def test_every_file_that_a_page_names_is_there(name: str) -> None:
    found = list(bad_paths(page(name)))
    assert not found, "\n".join(["", *found])


def test_readme_has_at_most_150_lines() -> None:
    assert len(page("README.md").text.splitlines()) <= 150


def test_readme_shows_a_picture_and_links_the_glossary_and_every_page_is_reached_from_it() -> None:
    readme = page("README.md")
    targets = {target.partition("#")[0] for _, target in readme.links}
    assert "docs/glossary.md" in targets
    assert any(target.endswith((".webp", ".png")) for target in targets)
    reached = set(targets)
    for name in sorted(target for target in targets if target.startswith("docs/") and target.endswith(".md")):
        reached |= {f"docs/{target.partition('#')[0]}" for _, target in page(name).links}
    lost = {name for name in PAGES if name.startswith("docs/")} - reached
    assert not lost, f"no page links to {', '.join(sorted(lost))}"


def test_the_glossary_defines_twenty_to_forty_terms_once() -> None:
    glossary = page("docs/glossary.md")
    lines = glossary.text.splitlines()
    terms = [heading for heading in glossary.headings if heading.level == 3]
    assert 20 <= len(terms) <= 40
    assert len({term.words.lower() for term in terms}) == len(terms)
    empty = [term.words for term in terms if not "".join(lines[term.line:term.line + 2]).strip(" #")]
    assert not empty, f"without a definition: {', '.join(empty)}"


def test_what_people_expect_to_find_is_there_and_says_the_same() -> None:
    import tomllib

    import yaml

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert cited["title"].lower() == project["name"]
    hosted = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert any(step.get("run") == "bash .ci/run" for step in hosted["jobs"]["suite"]["steps"])
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repo["repo"] for repo in hooks} == {"local"}, "a hook from elsewhere is a second version of a tool"


def written(text: str) -> Page:
    return markdown_pages.parse(ROOT / "docs" / "planted.md", text)


@pytest.mark.parametrize(("check", "text", "why"), [
    (bad_links, "See [this](missing.md).", "no such file"),
    (bad_links, "See [these\nwords](settings.md#no-such-thing).", "no such heading"),
    (bad_links, "![picture](images/none.png)", "no such file"),
    (bad_links, '<img src="images/none.png">', "no such file"),
    (bad_links, "[![badge](images/none.png)](settings.md)", "no such file"),
    (bad_commands, "Run `heartml fly`.", "no command fly"),
    (bad_commands, "Run `heartml\nretrain --fast`.", "no option --fast"),
    (bad_commands, "```console\n$ make run && heartml ingest pascal DIR --quickly  # soon\n```", "no option --quickly"),
    (bad_commands, "```sh\nX=1 .venv/bin/heartml protocol m2d\n```", "no command m2d"),
    (bad_commands, "```\nheartml audit one \\\n    two\n```", "words too many: two"),
    (bad_commands, "```\nheartml predict\n```", "NAMED is missing"),
    (bad_commands, "```\nheartml score incoming/\n```", "--to is missing"),
    (bad_commands, "`heartml leave-out TASK --by sensor`", "--by is one of dataset, source"),
    (bad_commands, "`heartml promote NAME/3 --reason \"why`", "no closing quotation"),
    (bad_commands, "`python -m heartml halve`", "no command halve"),
    (bad_commands, "`/usr/bin/time -f \"%U %M\" heartml scored IN`", "no command scored"),
    (bad_paths, "It is in `heartml/nowhere.py`.", "no such file or folder"),
    (bad_paths, "It is in tests/nowhere/.", "no such file or folder"),
    (bad_paths, "One is `heartml/data/nowhere/<name>.py`.", "no such file or folder"),
    (bad_targets, "`make haste`", "no target haste"),
])
def test_a_planted_fault_is_found_with_its_line(check: Callable[[Page], Iterator[str]], text: str, why: str) -> None:
    found = list(check(written(f"# Title\n\n{text}\n")))
    assert len(found) == 1, found
    assert why in found[0]
    assert re.match(r"docs/planted\.md:[345]: ", found[0])


@pytest.mark.parametrize("text", [
    "[out](https://example.org/x.md#y), [here](#a-title-with-code-twice-1), [there](settings.md), [m](mailto:a@b.org)",
    "`[not a link](nowhere.md)` and\n```\n[nor this](nowhere.md)\n# no heading\n```",
    "`heartml`, `heartml --help`, `heartml -h`, `heartml --version`, `heartml COMMAND`, `python -m heartml STAGE`",
    "`heartml features ... --part 1/2`, `heartml predict INPUT... [--json]`, `heartml trace RECORDING|PATIENT`",
    "| `heartml audit\\|verify NAME/VERSION` |, `heartml.withdrawn`, `heartml ingest`, `--use`, `heartml-2`",
    "```console\nheartml ingest pascal DIR > log 2>&1 &\nheartml retrain; heartml models --json | head -3\n```",
    "```mermaid\nheartml fly\n```",
    "`heartml/core`, `heartml/data/datasets/NAME.py`, `heartml/models/heads/<name>.py`, tests/*/test_*.py, flows/.",
    "`make`, `make run`, `make -n test`, `make PYTHON=python3.12 run`; we make haste",
])
def test_what_is_right_is_not_complained_of(text: str) -> None:
    right = written(f"## A title, with `code` (twice)\n\n## A title, with `code` (twice)\n\n{text}\n")
    assert [wrong for check in (bad_links, bad_commands, bad_paths, bad_targets) for wrong in check(right)] == []
