"""A flow in the process of a command: what it returns does not depend on the server."""

import json
import subprocess
import sys

from support.workspaces import Workspace

LOST_REPLY = """
import json
from pathlib import Path
from flows.support import private_server
private_server.start()
from prefect.client.base import PrefectHttpxSyncClient
from flows.support import run_local
send = PrefectHttpxSyncClient.send

def send_again(self, request, **options):
    reply = send(self, request, **options)
    if request.url.path.endswith("/set_state") and b'"COMPLETED"' in request.content:
        reply = send(self, request, **options)      # as Prefect does when the first reply was lost
        print(reply.json()["status"])
    return reply

PrefectHttpxSyncClient.send = send_again
outcomes = run_local.retrain(wait=False, force=False)
Path("outcomes.json").write_text(json.dumps([[outcome.task, outcome.state] for outcome in outcomes]))
"""


def test_the_result_is_kept_when_the_reply_to_the_last_state_is_lost(mine: Workspace) -> None:
    done = subprocess.run([sys.executable, "-c", LOST_REPLY], cwd=mine.root, env=mine.environment, capture_output=True,
                          text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "REJECT" in done.stdout, "Prefect accepts an end twice: the case does not exist any more"
    assert json.loads((mine / "outcomes.json").read_text()) == [["simulated-murmur", "nothing new"]]
