"""What recordings are about: their organ, by the tasks whose labels they have. Pure."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from heartml.core.schema import label_column
from heartml.core.task_definition import HEART
from heartml.core.tasks import TASKS, Task

if TYPE_CHECKING:
    import pandas as pd


def of_recordings(recordings: "pd.DataFrame", own: Iterable[Task] = ()) -> "pd.Series[str]":
    """The organ of each recording: a heart, unless all tasks for which it has a label are about another organ.

    Where a recording has no label, those of its data set decide.

    Args:
        recordings: `dataset` and label columns.
        own: the tasks that the data sets declare.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"dataset": ["a", "b", "b", "b"], "label_murmur": ["Absent", None, None, None],
    ...                       "label_lung_sound": [None, "Rhonchi", None, "Normal"]})
    >>> of_recordings(table).tolist()
    ['heart', 'lung', 'lung', 'lung']
    """
    found: dict[str, pd.Series[bool]] = {}
    for task in (*TASKS.values(), *own):
        if (column := label_column(task.label)) in recordings:
            labelled = recordings[column].notna()
            found[task.organ] = found[task.organ] | labelled if task.organ in found else labelled
    organs = recordings["dataset"].astype(object).map(lambda _: HEART)
    for organ, labelled in found.items():
        others = [mask for other, mask in found.items() if other != organ]
        any_other = others[0] if others else labelled & False
        of_dataset = labelled.groupby(recordings["dataset"]).transform("any")
        others_of_dataset = any_other.groupby(recordings["dataset"]).transform("any")
        unlabelled = ~labelled & ~any_other
        organs = organs.mask((labelled & ~any_other) | (unlabelled & of_dataset & ~others_of_dataset), organ)
    return organs
