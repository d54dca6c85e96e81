"""Simulated children (`heartml simulate`). They have CirCor's layout and are read by `circor.read`."""

from pathlib import Path

from heartml.data.datasets import Layout, Remote, circor

NAME = "simulated"
TITLE = "HeartML's simulated children"
CITATION = "Made by `heartml simulate`; the model and its sources are in heartml/data/simulation/"
LICENCE = "Apache-2.0"
PUBLISHER = "heartml simulate"
REMOTES: tuple[Remote, ...] = ()
TASKS = circor.TASKS
LABELS = circor.LABELS


def read(folder: Path) -> Layout:
    """Read a simulated corpus; patient ids become `simulated-<id>`.

    Raises:
        LayoutError: the folder holds no such corpus.
    """
    return circor.read(folder, NAME)
