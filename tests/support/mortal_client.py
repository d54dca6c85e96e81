"""An MLflow client that dies at a chosen write: a test tries each moment at which a process may be killed."""

from typing import Any

WRITES = ("create_", "set_", "delete_", "update_", "log_")


class Killed(BaseException):
    """Stands for SIGKILL: nothing that the process would still do reaches the store."""


class MortalClient:
    """A client that dies at its n-th write, and does nothing any more from then on."""

    def __init__(self, client: Any, lives: float) -> None:
        self.client, self.lives, self.writes = client, lives, 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.client, name)

        def counted(*given: Any, **named: Any) -> Any:
            writes = name.startswith(WRITES)
            if self.lives < writes:
                self.lives = -1
                raise Killed(f"at write {self.writes + 1}: {name}")
            self.lives, self.writes = self.lives - writes, self.writes + writes
            return call(*given, **named)

        return counted
