"""A chain as HTML: a page of its own, and what the report shows of it. Nothing is fetched from elsewhere."""

from heartml import report
from heartml.outline import Lineage
from heartml.provenance import outline
from heartml.provenance.chain import Chain

_LISTED = 200      # recordings of a data set in the report; the page of its own lists all


def render(chain: Chain) -> str:
    """The page as HTML."""
    page = report.environment().get_template("lineage.html.jinja")
    return page.render(root=outline.outline(chain), brief=outline.brief(chain), missing=chain.missing)


def section(chain: Chain) -> Lineage:
    """For `report.render`."""
    return Lineage(outline.outline(chain, _LISTED), outline.brief(chain))
