"""A chain as HTML: a page of its own, and the report's last section. Nothing is loaded from elsewhere."""

from heartml.lineage import tree
from heartml.lineage.chain import Chain
from heartml.reporting.environment import environment
from heartml.reporting.outline import Lineage

_MAX_RECORDINGS = 200      # of each data set in the report; the page of its own lists all


def render(chain: Chain) -> str:
    """The lineage page as HTML."""
    page = environment().get_template("lineage.html.jinja")
    return page.render(root=tree.outline(chain), brief=tree.brief(chain), missing=chain.missing)


def section(chain: Chain) -> Lineage:
    """The lineage section for `task_report.render`."""
    return Lineage(tree.outline(chain, _MAX_RECORDINGS), tree.brief(chain))
