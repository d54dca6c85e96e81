"""Stage `report`: one self-contained page about one task, written before the gate decides.

In: see `heartml.reporting.task_report`. Out: `artifacts/<task>/report.html`. It is the last stage, so it also logs
whether all outputs of the task are those of the committed `dvc.lock` (`heartml.pipeline.committed_lock`).
"""

from heartml.core import paths, tasks
from heartml.core.stage import stage
from heartml.core.system.files import replacing
from heartml.pipeline import committed_lock
from heartml.reporting.task_report import render


def run(name: str) -> None:
    """Write the page of one task, without a decision of the gate.

    Raises:
        TaskError: there is no such task.
    """
    tasks.resolve(name)
    with stage("report", task=name) as log:
        page = render(name, None, None)
        with replacing(paths.report(name)) as temporary:
            temporary.write_text(page, encoding="utf-8")
        log.add(f"{len(page) / 1e6:.2f} MB: {paths.report(name)}")
        if compared := committed_lock.in_words(name):
            log.add(compared)
