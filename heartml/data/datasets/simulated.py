"""Simulated children (`heartml simulate`), in CirCor's layout and read by CirCor's reader."""

from pathlib import Path

from heartml.data.datasets import Layout, Remote, circor

NAME = "simulated"
TITLE = "HeartML's simulated children"
CITATION = "Made by `heartml simulate`; the model and its sources stand in heartml/simulation/"
LICENCE = "Apache-2.0"
PUBLISHER = "heartml simulate"
REMOTES: tuple[Remote, ...] = ()
TASKS = circor.TASKS
LABELS = circor.LABELS


def read(folder: Path) -> Layout:
    """Read a simulated corpus, naming ids `simulated-<id>`.

    Raises:
        LayoutError: the folder is no such corpus.
    """
    return circor.read(folder, NAME)
