"""Code that must not be there: calls that run what they read, and tables that bypass `cell`."""

import ast
import re
from functools import cache
from pathlib import Path

from support.workspaces import ROOT

CODE = [path for package in ("heartml", "flows") for path in sorted((ROOT / package).rglob("*.py"))]


def test_every_module_that_writes_a_csv_is_known_and_writes_no_name_that_a_user_chose() -> None:
    """A new one has to come here, and put its texts through `cell`."""
    known = {
        "heartml/inference/output.py": "texts go through `cell`",
        "heartml/inference/several_output.py": "texts go through `cell`",
        "heartml/evaluation/plot_tables.py": "classes, which are no formulas (`task_definition`), and numbers",
        "heartml/data/new_collection/mapping_text.py": "a user's own table again; patients go through `csv_cell`",
        "heartml/stages/robustness.py": "conditions of params.yaml and numbers",
        "heartml/data/simulation/corpus.py": "the simulator's own words",
        "heartml/data/simulation/lung_corpus.py": "the simulator's own words",
        "heartml/evaluation/leave_out/scratch.py": "hashed, not written",
        "heartml/evaluation/protocols/circor_m2d.py": "hashed, not written",
        "heartml/evaluation/protocols/cohort.py": "hashed, not written",
        "heartml/release/gate_inputs.py": "hashed, not written",
        "heartml/evaluation/probe/__init__.py": "hashed, not written",
        "heartml/stages/pretrain.py": "hashed, not written",
        "heartml/training/pretraining/outputs.py": "targets of `core/tasks.py` and numbers",
    }
    pattern = re.compile(r"\.to_csv\(|csv\.writer\(|DictWriter\(|to_excel\(")
    assert {path.relative_to(ROOT).as_posix() for path in CODE if pattern.search(path.read_text())} == set(known)


# Code that must not be there
@cache
def every_call() -> list[tuple[Path, str, ast.Call]]:
    """Module, name and node of every call to a name, `np.load`, `eval`."""
    return [(path, ast.unparse(node.func), node) for path in CODE for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute))]


FORBIDDEN = ("eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "torch.load", "joblib.load",
             "yaml.load", "yaml.unsafe_load", "yaml.full_load", "marshal.loads", "marshal.load",
             "shelve.open", "tempfile.mktemp", "pd.read_pickle", "cloudpickle.load", "cloudpickle.loads", "dill.load")
ALLOWED = {("heartml/core/system/untrusted.py", "yaml.load"), ("heartml/registry/signing/content.py", "marshal.loads"),
           ("heartml/audit/evidence.py", "yaml.load"),      # a SafeLoader of its own
           ("heartml/models/encoders/weight_files.py", "torch.load")}      # of plain tensors alone, see the next test


def test_no_module_runs_what_it_reads() -> None:
    found = {(path.relative_to(ROOT).as_posix(), name) for path, name, _ in every_call() if name in FORBIDDEN}
    assert found <= ALLOWED


def test_torch_s_files_are_read_as_plain_tensors_alone() -> None:
    calls = [node for _, name, node in every_call() if name == "torch.load"]
    assert len(calls) == 1
    words = {word.arg: ast.unparse(word.value) for word in calls[0].keywords}
    assert words["weights_only"] == "True"


def test_every_array_is_loaded_without_pickle_and_no_process_through_a_shell() -> None:
    seen = 0
    for path, name, node in every_call():
        words = {word.arg: word.value for word in node.keywords}
        if name in ("np.load", "numpy.load"):
            seen += 1
            assert ast.unparse(words["allow_pickle"]) == "False", f"{path}:{node.lineno}"
        assert ast.unparse(words["shell"]) == "False" if "shell" in words else True, f"{path}:{node.lineno}"
        if name.startswith("subprocess.") and node.args:
            assert not isinstance(node.args[0], (ast.JoinedStr, ast.BinOp)), f"{path}:{node.lineno}: a text"
    assert seen >= 2
