"""The house keeps its shape: lint, types, imports one way, and DVC told of every module that a stage runs."""

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

ROOT = Path(__file__).parents[2]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
OWN = ("heartml/__main__.py", "heartml/__init__.py")   # they only say which stage runs
WIDE = {     # folders that deps may name whole, although a stage does not import all of it
    "heartml/core": "everything stands on it, and it seldom changes",
}
PACKAGE_LOADER = re.compile(r"PackageLoader\(\"([\w.]+)\"")
RUN_FROM = re.compile(r"\bfrom ((?:heartml|flows)[\w.]*) import ([\w, ]+)")
RUN_IMPORT = re.compile(r"(?:\bimport |-m )((?:heartml|flows)[\w.]*)")


IMPORT_EACH_FIRST = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [key for key in sys.modules if key.split(".")[0] in ("heartml", "flows")]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}")
"""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("heartml", "flows", cache_dir=None)


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint_is_clean() -> None:
    run("ruff", "check", ".")


def test_types_are_strict() -> None:
    run("mypy")


def test_imports_run_one_way() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def run_when_imported(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a module, those within `if`, `try`, `with` and classes too, but not those for type checkers."""
    found = []
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found += run_when_imported(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node)
            for field in ("body", "orelse", "finalbody", "handlers"):
                found += run_when_imported([one for one in getattr(node, field, []) if isinstance(one, ast.AST)])
    return found


def imported_at_once(module: str, modules: set[str]) -> list[str]:
    """The modules of this project that Python begins to import when it imports this one, in their order."""
    names = []
    for node in run_when_imported(ast.parse((ROOT / file_of(module)).read_text()).body):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [name if name in modules else node.module for name in within]
    return [name for name in names if name in modules]


def test_every_module_can_be_imported_first(graph: grimp.ImportGraph) -> None:
    begins = {module: imported_at_once(module, graph.modules) for module in graph.modules}
    for module in graph.modules:
        for circle in circles(module, begins):
            pytest.fail(" -> ".join(circle))


def circles(start: str, begins: dict[str, list[str]]) -> list[list[str]]:
    """Paths on which a module begins to import another that waits for it: it would find that one half made.

    A module begins with its packages. That a package has begun is no circle for a module that does not import it.
    """
    found: list[list[str]] = []
    done: set[str] = set()

    def begin(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module):], module])
        if module in path or module in done:
            return
        for end in range(1, module.count(".") + 1):
            package = ".".join(module.split(".")[:end])
            if package not in path:
                begin(package, path)
        for other in begins[module]:
            begin(other, [*path, module])
        done.add(module)

    begin(start, [])
    return found


def test_every_member_of_a_family_can_be_imported_first(graph: grimp.ImportGraph) -> None:
    """A package imports its members by name, at its end, and they import from the package what stands above that."""
    names = sorted(member for module in graph.modules for member in family_members(module))
    assert len(names) > 15
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", IMPORT_EACH_FIRST, *names], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "", f"cannot be imported first:\n{done.stdout}"


def test_circles_are_found() -> None:
    begins = {"a": [], "a.b": ["a.c"], "a.c": ["d"], "d": ["a.b"], "p": ["p.q"], "p.q": ["p"], "r": ["r.s"], "r.s": []}
    assert circles("a.b", begins) == [["a.b", "a.c", "d", "a.b"]]
    assert circles("p.q", begins)
    assert not circles("r.s", begins)
    assert not circles("r", begins)


def named_modules(source: str) -> set[str]:
    """Every dotted name that a file imports, by a statement or in the text of a command that it runs."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for module, names in RUN_FROM.findall(node.value):
                found |= {module, *(f"{module}.{name.split()[0]}" for name in names.split(",") if name.split())}
            found |= set(RUN_IMPORT.findall(node.value))
        elif isinstance(node, ast.List | ast.Tuple | ast.Call):
            words = [one.value if isinstance(one, ast.Constant) else None
                     for one in (node.args if isinstance(node, ast.Call) else node.elts)]
            found |= {str(word) for flag, word in pairwise(words) if flag == "-m"}
    return found


def test_named_modules_are_found_however_they_are_imported() -> None:
    source = """
import heartml.a
from heartml.b import c as d, e
run("python", "-m", "heartml.f", 1)
code = "from heartml.g import h, i as j; import heartml.k"
shell = f"python -m heartml.l {code}"
"""
    assert {"heartml.a", "heartml.b.c", "heartml.b.e", "heartml.f", "heartml.g.h", "heartml.g.i", "heartml.k",
            "heartml.l"} <= named_modules(source)
    assert "heartml.m" not in named_modules("setattr('heartml.m', 'a module')  # heartml.m")


def test_every_module_is_imported_by_some_test(graph: grimp.ImportGraph) -> None:
    named = {name for path in TESTS for name in named_modules(path.read_text(encoding="utf-8"))}
    named |= {name.rpartition(".")[0] if name.endswith(".__main__") else f"{name}.__main__" for name in set(named)}
    known = {".".join(name.split(".")[:end]) for name in named for end in range(1, name.count(".") + 2)}
    known |= {member for name in known & graph.modules for member in family_members(name)}    # by its contract test
    missing = graph.modules - known
    assert not missing, "no test imports " + ", ".join(sorted(missing))


def test_no_test_file_has_more_than_400_lines() -> None:
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in TESTS}
    long = {name: count for name, count in lines.items() if count > 400}
    assert not long, f"divide by what is tested: {long}"


def test_no_test_module_imports_from_another() -> None:
    borrowed = {path.relative_to(ROOT).as_posix(): sorted(found) for path in TESTS
                if (found := {name for name in named_modules(path.read_text())
                              if any(part.startswith("test_") for part in name.split(".")[:-1])})}
    assert not borrowed, f"what tests share lies in tests/support: {borrowed}"


def test_the_folders_of_the_tests_are_the_packages() -> None:
    packages = {path.parent.name for path in (ROOT / "heartml").glob("*/__init__.py")}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == packages | {"flows", "project", "support", "stubs"}


def test_every_slow_module_exists() -> None:
    names = re.search(r"^SLOW = \(([^)]*)\)", (ROOT / "tests" / "conftest.py").read_text(), re.MULTILINE)
    assert names
    slow = set(re.findall(r'"(\w+)"', names[1]))
    assert slow <= {path.stem.removeprefix("test_") for path in TESTS if path.stem.startswith("test_")}


@dataclass(frozen=True)
class StageCode:
    """What a stage runs, and what DVC is told of it; all as paths from the root.

    Attributes:
        needed: files of the modules that it imports, now or by a family's list of names, and templates' folders.
        packages: the `__init__.py` above them, which Python runs as well.
        deps: files and folders of code in its `deps`.
    """

    needed: frozenset[str]
    packages: frozenset[str]
    deps: frozenset[str]

    def covers(self, file: str) -> bool:
        return file in self.deps or any(file.startswith(f"{folder}/") for folder in self.deps)


def stage_module(command: str) -> str:
    found = re.match(r"python -m heartml (\w+)", command)
    assert found, f"a stage's cmd is one simple command, not {command!r}"
    return f"heartml.stages.{found[1]}"


def file_of(module: str) -> str:
    path = Path(*module.split("."))
    return (path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")).as_posix()


def family_members(module: str) -> set[str]:
    """What `family.members(__name__, [...])` in this module imports: by name, which no graph of imports shows."""
    source = (ROOT / file_of(module)).read_text()
    if "family.members(" not in source:
        return set()
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)
             and ast.unparse(node.func) == "family.members"]
    assert all(ast.unparse(call.args[0]) == "__name__" for call in calls), module
    return {f"{module}.{name.replace('-', '_')}" for call in calls for name in ast.literal_eval(call.args[1])}


def import_closure(graph: grimp.ImportGraph, module: str) -> set[str]:
    """`module` and all that it imports, the members of a family too."""
    found: set[str] = set()
    left = {module}
    while left:
        new = {name for one in left for name in (one, *graph.find_upstream_modules(one))} - found
        found |= new
        left = {member for name in new for member in family_members(name)} - found
    return found


def test_a_stage_runs_every_member_of_a_family_that_it_imports(graph: grimp.ImportGraph) -> None:
    from heartml.models import encoders, heads

    closure = import_closure(graph, "heartml.stages.ensemble")
    assert {f"heartml.models.encoders.{name}" for name in encoders.ENCODERS} <= closure
    assert {f"heartml.models.heads.{name}" for name in heads.HEADS} <= closure
    assert "heartml.models.heads.network_training" in closure, "imported by members alone"


def stage_code(graph: grimp.ImportGraph, entry: dict[str, Any]) -> StageCode:
    modules = import_closure(graph, stage_module(entry["cmd"]))
    parents = {".".join(name.split(".")[:end]) for name in modules for end in range(1, name.count(".") + 1)}
    files = {file_of(name) for name in modules}
    loaders = {name for file in files for name in PACKAGE_LOADER.findall((ROOT / file).read_text())}
    templates = {f"{name.replace('.', '/')}/templates" for name in loaders}
    return StageCode(frozenset((files | templates) - set(OWN)), frozenset(map(file_of, parents - modules)),
                     frozenset(dep for dep in entry["deps"] if dep.startswith("heartml/")))


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_knows_every_module_that_a_stage_imports(graph: grimp.ImportGraph, stage: str) -> None:
    code = stage_code(graph, STAGES[stage])
    missing = {file for file in code.needed if not code.covers(file)}
    assert not missing, f"{stage}: add to deps in dvc.yaml: {', '.join(sorted(missing))}"
    gone = [dep for dep in code.deps if not (ROOT / dep).exists()]
    assert not gone, f"{stage}: deps that do not exist: {gone}"
    unseen = [file for file in code.packages - set(OWN) if not code.covers(file) and len(
        ast.parse((ROOT / file).read_text()).body) > 1]
    assert not unseen, f"{stage}: packages of which deps do not know hold more than a docstring: {unseen}"


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_is_told_of_no_module_that_a_stage_does_not_import(graph: grimp.ImportGraph, stage: str) -> None:
    code = stage_code(graph, STAGES[stage])
    told = {file.relative_to(ROOT).as_posix() for dep in code.deps for file in ((ROOT / dep), *(ROOT / dep).rglob("*"))
            if file.is_file() and "__pycache__" not in file.parts}
    extra = {file for file in told - code.needed - code.packages
             if not any(file.startswith(f"{folder}/") for folder in (*WIDE, *code.needed))}
    assert not extra, f"{stage}: a change of these makes it run again for nothing; name files in deps: {sorted(extra)}"


def test_the_command_line_answers_without_heavy_libraries() -> None:
    heavy = ("torch", "pandas", "numpy", "sklearn", "mlflow", "prefect", "dvc", "optuna", "great_expectations")
    code = f"import heartml.cli, sys; sys.exit(' '.join(m for m in {heavy!r} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_only_services_talk_to_mlflow_and_only_flows_to_prefect() -> None:
    outside = {"mlflow": ("heartml/registry/", "heartml/inference/serving.py"), "prefect": ()}
    for library, allowed in outside.items():
        pattern = re.compile(rf"^\s*(import|from) {library}\b", re.MULTILINE)
        modules = (ROOT / "heartml").rglob("*.py")
        users = {p.relative_to(ROOT).as_posix() for p in modules if pattern.search(p.read_text())}
        strange = sorted(user for user in users if not user.startswith(allowed))
        assert not strange, f"{library} is imported by {', '.join(strange)}"


def test_the_lock_pins_every_package_with_hashes_and_names_no_host() -> None:
    for lock in ("requirements.lock", "tests/requirements.lock"):
        text = (ROOT / lock).read_text()
        requirements = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert requirements
        assert all(re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+", line) for line in requirements), lock
        assert "://" not in text
        assert text.count("--hash=sha256:") >= len(requirements)


def test_the_lock_holds_what_the_project_asks_for() -> None:
    import tomllib

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    for requirement in wanted:
        name, pin = re.match(r"([\w-]+)(?:==(\S+))?", requirement).groups()
        assert name in locked, f"{name} is in pyproject.toml, not in requirements.lock"
        assert pin in (None, locked[name]), f"{name}: {pin} asked for, {locked[name]} locked"
