"""A report's page, read back: its tags, words and tables; and a patient's name that tries to be markup."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

HOSTILE = "simulated-<script>alert('x')</script>&\"quoted\""


@dataclass
class ReportTable:
    """A table as a reader sees it.

    Attributes:
        name: its aria-label or caption, else the id of its section.
        columns: the headings, the first of them over the headings of the rows.
        cells: (heading of the row, of the column) -> text; a note in the place of all figures has the column "".
        of_results: whether it says that its numbers are those of the evaluation.
    """

    name: str
    of_results: bool
    columns: list[str] = field(default_factory=list)
    cells: dict[tuple[str, str], str] = field(default_factory=dict)


class ReportPage(HTMLParser):
    """Every tag and attribute, all visible text, and the tables."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.words, self.tags, self.tables = [], [], [], []
        self._table, self._row, self._cell, self._hidden, self._section = None, None, None, [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append((tag, given))
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "section":
            self._section = given["id"]
        if self._hidden or tag == "svg" or (tag == "span" and given.get("aria-hidden") == "true"):
            self._hidden += [tag] if tag in ("svg", "span") else []
        if tag == "table":
            self._table = ReportTable(given.get("aria-label", ""), given.get("data-numbers") == "metrics")
            self.tables.append(self._table)
        if self._table is None:
            return
        if tag == "tr":
            self._row = []
        if tag in ("th", "td", "caption"):
            self._cell = [tag, given, ""]

    def handle_endtag(self, tag):
        if self._hidden and tag == self._hidden[-1]:
            self._hidden.pop()
        if self._table is None:
            return
        if tag in ("th", "td"):
            self._row.append((*self._cell[:2], " ".join(self._cell[2].split())))
        if tag == "caption":
            self._table.name = self._table.name or " ".join(self._cell[2].split())
        if tag == "tr":
            self._take_row(self._row)
        if tag == "table":
            self._table.name = self._table.name or self._section
            self._table = None
        if tag in ("th", "td", "caption"):
            self._cell = None

    def handle_data(self, data):
        self.words.append(data)
        if self._cell and not self._hidden:
            self._cell[2] += data + " "

    def _take_row(self, row):
        """A row of column headings, or a heading and its cells in the order of the columns."""
        if not self._table.columns:
            self._table.columns = [text for _, _, text in row]
            return
        (first, _, heading), *cells = row
        if first != "th":
            return                  # a list of files or members, without a heading in each row
        column = 1
        for _, given, text in cells:
            name = "" if "colspan" in given else self._table.columns[column]
            assert (heading, name) not in self._table.cells, f"{self._table.name}: two cells {heading}, {name}"
            self._table.cells[heading, name] = text
            column += int(given.get("colspan", 1))
        assert column == len(self._table.columns), f"{self._table.name}, {heading}: {column} columns"
