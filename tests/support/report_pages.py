"""A report's page, read back: its tags, words and tables; and a patient's name that tries to be markup."""

from html.parser import HTMLParser

HOSTILE = "simulated-<script>alert('x')</script>&\"quoted\""


class ReportPage(HTMLParser):
    """Every attribute, every table cell of the tables of figures, and all visible text."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.cells, self.words, self.tags = [], [], [], []
        self.in_numbers, self.in_cell = False, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "table":
            self.in_numbers = dict(attrs).get("data-numbers") == "metrics"
        if tag == "td" and self.in_numbers:
            self.in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag):
        if tag == "td":
            self.in_cell = False
        if tag == "table":
            self.in_numbers = False

    def handle_data(self, data):
        self.words.append(data)
        if self.in_cell:
            self.cells[-1] += data + " "
