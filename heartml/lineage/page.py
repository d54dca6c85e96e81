"""A chain as HTML: a page of its own, and what the report shows of it. Nothing is fetched from elsewhere."""

from heartml.lineage import tree
from heartml.lineage.chain import Chain
from heartml.reporting.environment import environment
from heartml.reporting.outline import Lineage

_LISTED = 200      # recordings of a data set in the report; the page of its own lists all


def render(chain: Chain) -> str:
    """The page as HTML."""
    page = environment().get_template("lineage.html.jinja")
    return page.render(root=tree.outline(chain), brief=tree.brief(chain), missing=chain.missing)


def section(chain: Chain) -> Lineage:
    """For `report.render`."""
    return Lineage(tree.outline(chain, _LISTED), tree.brief(chain))
