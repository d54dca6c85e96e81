"""The environment of every page: values are escaped, plots are not, and a name that nobody gave is an error."""

import jinja2
import pytest

from heartml.reporting.environment import environment


def test_a_value_is_escaped_and_a_plot_is_not() -> None:
    page = environment().from_string("{{ value }}|{{ plot|svg }}")
    assert page.render(value="<b>&\"", plot="<svg/>") == "&lt;b&gt;&amp;&#34;|<svg/>"


def test_a_name_that_nobody_gave_stops_the_page() -> None:
    with pytest.raises(jinja2.UndefinedError, match="verdict"):
        environment().from_string("{{ verdict }}").render()


def test_numbers_are_written_as_everywhere() -> None:
    page = environment().from_string("{{ a|figure }} ({{ n|span }}), {{ b|signed }}")
    assert page.render(a=0.8149, n={"low": 0.7, "high": 0.9}, b=-0.04) == "0.81 (0.70 to 0.90), −0.04"


def test_every_template_of_the_package_can_be_parsed() -> None:
    found = environment()
    names = found.list_templates(extensions=["jinja"])
    assert {"report.html.jinja", "figures.jinja"} <= set(names)
    for name in names:
        found.get_template(name)
