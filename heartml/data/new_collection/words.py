"""The words of a label column: which are classes, which are one class, and which are no label. Pure.

In: the cells of a column. Out: word -> class with numbers of rows, and sentences about what was decided.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from heartml.core.system import cells
from heartml.core.task_definition import class_name

_HEALTHY = ("none", "normal", "absent", "healthy", "negative", "no", "0", "gesund", "keine", "kein", "ohne", "nein",
            "unauffällig", "aucun", "sain")
_FORMULA_SIGNS = "=+-@＝＋－＠ "
_SHOWN = 8


def classes_of(words: Sequence[str], *, none: bool | None = None) -> tuple[dict[str, str], dict[str, int]]:
    """Word -> class for the words of a label column, and class -> number of rows; healthy classes come last.

    Spellings that differ in case only are one class. `none` is a class where fewer cells are empty than have it: then
    it is an answer. So is `-` beside `+` or `++`.

    Args:
        none: whether `none` is a class; else the rule above decides.

    >>> classes_of(["Click", "none", "click", "click"])
    ({'click': 'click', 'none': 'none'}, {'click': 3, 'none': 1})
    >>> classes_of(["+", "-", "+"])
    ({'+': 'positive', '-': 'negative'}, {'positive': 2, 'negative': 1})
    """
    missing = {word for word in words if not word or cells.is_missing(word)}
    answers = missing & {"-"} if any(map(_is_plus, words)) else set()
    empty, of_none = empty_and_none(words)
    if of_none > empty if none is None else none:
        answers |= {word for word in missing if _is_none(word)}
    spellings: dict[str, Counter[str]] = {}
    for word in words:
        if word not in missing or word in answers:
            spellings.setdefault(cells.spelling_key(word), Counter())[class_name(word)] += 1
    counts = {most_common(of): of.total() for of in spellings.values()}
    order = sorted(counts, key=lambda word: (_named(word).casefold() in _HEALTHY, -counts[word], word))
    return {word: _named(word) for word in order}, {_named(word): counts[word] for word in order}


def empty_and_none(words: Sequence[str]) -> tuple[int, int]:
    """Number of empty cells, and of cells with the word `none`."""
    return sum(not cells.trimmed(word) for word in words), sum(map(_is_none, words))


def _is_none(word: str) -> bool:
    return cells.trimmed(word).casefold() == "none"


def _is_plus(word: str) -> bool:
    return set(cells.trimmed(word)) == {"+"}


def _named(word: str) -> str:
    """A class's name for a word of the table: without signs in front, which a spreadsheet would calculate."""
    if _is_plus(word):
        return "positive" if len(word) == 1 else f"positive {len(word)}"
    return "negative" if word == "-" else word.lstrip(_FORMULA_SIGNS) or word


def words_in_words(words: Sequence[str], classes: Mapping[str, str], *, folders: bool) -> Iterator[str]:
    """Which words are no label, which are taken as one class, and what to do where that is wrong.

    Args:
        classes: word -> class, of `classes_of`.
        folders: the words are names of folders, with no cells.

    >>> list(words_in_words(["a", "b", "A"], {"a": "a", "b": "b"}, folders=False))
    ["taken for one class: 'A' (1), 'a' (1). If they are two, write them differently in the table"]
    """
    known = {cells.spelling_key(word) for word in classes}
    without = Counter(cells.trimmed(word) for word in words if cells.spelling_key(word) not in known)
    if without:
        counted = ", ".join(f"{f'{word!r} {count}' if word else f'empty {count}'}" for word, count in without.items())
        more = "" if set(without) == {""} else (
            ". If such a word is a class, name it in `classes` of the mapping file, as in {none: no finding}")
        yield (f"rows without a label: {without.total()} ({counted}). They are ingested, and no model is trained on "
               f"them{more}")
    empty, of_none = empty_and_none(words)
    if empty and of_none and "none" in known:
        yield (f"'none' in {of_none} rows is taken for a class, and no word in {empty} rows for no label. If `none` is "
               "no label either, take it out of `classes` of the mapping file")
    for spellings in _spellings(words, known):
        shown = ", ".join(f"{word!r} ({count})" for word, count in sorted(spellings.items())[:_SHOWN])
        yield (f"taken for one class: {shown}. If they are two, {'rename the folders' if folders else 'write them'}"
               f"{'' if folders else ' differently in the table'}")


def _spellings(words: Iterable[str], known: Container[str]) -> list[Counter[str]]:
    """The spellings of each class that has several, with numbers of rows."""
    found: dict[str, Counter[str]] = {}
    for word in words:
        if (key := cells.spelling_key(word)) in known:
            found.setdefault(key, Counter())[cells.trimmed(word)] += 1
    return [spellings for spellings in found.values() if len(spellings) > 1]


def most_common(spellings: Counter[str]) -> str:
    """The most frequent spelling; of equal ones the first in the alphabet."""
    return min(spellings, key=lambda name: (-spellings[name], name))


def positive(classes: Sequence[str]) -> str | None:
    """The class of interest, where all but one are healthy.

    >>> positive(["click", "none"]), positive(["click", "thud"])
    ('click', None)
    """
    ill = [name for name in classes if name.casefold() not in _HEALTHY]
    return ill[0] if len(ill) == 1 else None
