"""A trained project that is moved to a folder of any name is read there as before, and leaves nothing beside it."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
from support.small_project import TASK
from support.workspaces import Workspace

NAME = 'run #2 100%25 is it? "x"'
COMMANDS = (["models"], ["lineage", TASK], ["audit", TASK], ["predict", "{sound}"])
ONE_AFTER_ANOTHER = """
import sys
from heartml.cli import cli
for number, arguments in enumerate(COMMANDS):
    print("== command", number, flush=True)
    cli([argument.format(sound=sys.argv[1]) for argument in arguments], standalone_mode=False)
"""     # in one process, since each start of one costs as much as a command


def test_a_moved_project_is_read_in_a_folder_of_any_name(retrained: Workspace, tmp_path: Path) -> None:
    project = retrained.copy(tmp_path / NAME)
    before = {path.name for path in project.root.iterdir()}
    sound = next((project / "data/audio").rglob("*.flac")).relative_to(project.root)
    code = ONE_AFTER_ANOTHER.replace("COMMANDS", repr(COMMANDS))
    done = subprocess.run([sys.executable, "-c", code, str(sound)], cwd=project.root, env=project.environment,
                          text=True, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    models, lineage, audit, predicted = done.stdout.split("== command")[1:]
    assert f"{TASK}/1" in models and "promoted" in models
    assert "nothing: every link was found" in lineage
    assert "links hold" in audit and "broken" not in audit and "missing" not in audit
    recordings = pd.read_parquet(project / "data/recordings.parquet").set_index("recording_id")
    assert Path(recordings.at[sound.stem, "source_file"]).name in predicted and sound.stem not in predicted
    assert f"{TASK} version 1" in predicted
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert {path.name for path in project.root.iterdir()} == before
