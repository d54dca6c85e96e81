"""The scripts of `examples/`, as modules."""

import importlib.util
from types import ModuleType

from support.workspaces import ROOT

EXAMPLES = ROOT / "examples"


def load(name: str) -> ModuleType:
    """The script `examples/<name>.py`."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
