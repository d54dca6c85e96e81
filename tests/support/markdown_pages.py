"""Markdown pages as the tests of the documentation read them: headings, links, code, and the commands in it."""

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})\s*(\w*)")
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\](?:\([^)]*\))?)*\]\(\s*<?([^\s()<>]+)>?(?:\s+\"[^\"]*\")?\s*\)"
                   r"|^\[[^\]]+\]:\s*(\S+)"
                   r"|<(?:a|img)\b[^>]*?\b(?:href|src)=\"([^\"]+)\"", re.MULTILINE)
_INNER = re.compile(r"!\[[^\]]*\]\(\s*([^\s()]+)\s*\)")     # an image that is itself the words of a link
_NAMED = re.compile(r"<a\b[^>]*?\b(?:id|name)=\"([^\"]+)\"")
_HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(.*?)\s*#*$")
_SHELLS = ("", "console", "shell", "sh", "bash", "text")


class Found(NamedTuple):
    """A piece of a page and the line that it begins in, from 1."""

    line: int
    text: str


class Heading(NamedTuple):
    """A heading: its line, its level (1 to 6), its words, its anchor as GitHub makes it."""

    line: int
    level: int
    words: str
    anchor: str


@dataclass(frozen=True)
class Page:
    """One page: `prose` has blanks in the place of all code, `blocks` and `spans` are the code."""

    path: Path
    text: str
    prose: str
    blocks: tuple[tuple[str, Found], ...]
    spans: tuple[Found, ...]

    @property
    def headings(self) -> list[Heading]:
        """All headings outside of fenced blocks, with GitHub's anchors."""
        seen: Counter[str] = Counter()
        found = []
        lines = zip(self.text.splitlines(), self.prose.splitlines(), strict=True)
        for number, (line, prose) in enumerate(lines, 1):
            if (match := _HEADING.match(line)) and prose.lstrip().startswith("#"):
                plain = slug(match[2])
                found.append(Heading(number, len(match[1]), match[2],
                                     f"{plain}-{seen[plain]}" if seen[plain] else plain))
                seen[plain] += 1
        return found

    @property
    def anchors(self) -> set[str]:
        """What a link into this page may name after #."""
        return {heading.anchor for heading in self.headings} | set(_NAMED.findall(self.prose))

    @property
    def links(self) -> list[Found]:
        """The targets of all links and images, in the order of the page."""
        found = [Found(_line(self.prose, match.start()), next(filter(None, match.groups())))
                 for pattern in (_LINK, _INNER) for match in pattern.finditer(self.prose)]
        return sorted(set(found))

    @property
    def commands(self) -> list[tuple[Found, bool]]:
        """Every simple command in a shell's block (True: it stands there to be typed) and in inline code (False)."""
        typed = [Found(block.line + number, line) for language, block in self.blocks if language in _SHELLS
                 for number, line in _joined(block.text)]
        return [(Found(found.line, one), True) for found in typed for one in _simple(found.text)] + [
            (Found(found.line, one), False) for found in self.spans for one in _simple(found.text)]


def read(path: Path) -> Page:
    """The page at `path`."""
    return parse(path, path.read_text(encoding="utf-8"))


def parse(path: Path, text: str) -> Page:
    """The page `text`, which stands (or would stand) at `path`."""
    blocks: list[tuple[str, Found]] = []
    kept: list[str] = []
    fence, language, start, inside = "", "", 0, []
    for number, line in enumerate(text.splitlines(), 1):
        match = _FENCE.match(line)
        if fence and match and match[1].startswith(fence) and not match[2]:
            blocks.append((language, Found(start + 1, "\n".join(inside))))
            fence = ""
        elif fence:
            inside.append(line)
        elif match:
            fence, language, start, inside = match[1], match[2], number, []
        else:
            kept.append(line)
            continue
        kept.append("")
    prose = "\n".join(kept)
    spans = tuple(Found(_line(prose, match.start()), " ".join(match[2].replace("\\|", "|").split()))
                  for match in _SPAN.finditer(prose))
    return Page(path, text, _SPAN.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), prose), tuple(blocks), spans)


def slug(words: str) -> str:
    """GitHub's anchor of a heading: lower case, without punctuation, a hyphen for each blank."""
    words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", words)
    return re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _joined(block: str) -> Iterator[tuple[int, str]]:
    """The lines of a block; one that ends in a backslash goes on in the next."""
    begun, parts = 0, []
    for number, line in enumerate(block.splitlines()):
        begun = begun if parts else number
        parts.append(line.rstrip().removesuffix("\\"))
        if not line.rstrip().endswith("\\"):
            yield begun, " ".join(parts)
            parts = []


def _simple(line: str) -> list[str]:
    """The simple commands of a line, without prompt, comment, redirections and variables before them."""
    words = re.sub(r"^\s*[$>] ", "", re.sub(r"(^|\s)#(\s.*)?$", "", line))
    parts = re.split(r"\s(?:&&|\|\||\||;|&)\s|\s*;\s", words)
    return [re.sub(r"\s\d?>{1,2}\s?\S+.*$", "", re.sub(r"^(\w+=\S*\s+)*", "", part.strip())).rstrip(" &;")
            for part in parts if part.strip()]


def words(command: str) -> list[str]:
    """The words of a simple command; brackets around optional parts are taken off.

    Raises:
        ValueError: a quotation mark is left open.
    """
    return [word.strip("[]") for word in shlex.split(command) if word.strip("[]")]
