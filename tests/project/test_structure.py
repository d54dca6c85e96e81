"""The house keeps its shape: lint, types, imports one way, and DVC told of every module that a stage runs."""

import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
import yaml

ROOT = Path(__file__).parents[2]
OWN = ("heartml/__main__.py", "heartml/__init__.py")   # they only say which stage runs


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


def stage_module(command: str) -> str:
    found = re.match(r"python -m heartml (\w+)", command)
    assert found, f"a stage's cmd is one simple command, not {command!r}"
    return f"heartml.stages.{found[1]}"


def files_behind(graph: grimp.ImportGraph, module: str) -> set[str]:
    modules = {module} | graph.find_upstream_modules(module)
    files = set()
    for name in modules:
        path = Path(*name.split("."))
        files.add((path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")).as_posix())
    return files - set(OWN)


@pytest.mark.parametrize("stage", yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
def test_dvc_knows_every_module_that_a_stage_imports(graph: grimp.ImportGraph, stage: str) -> None:
    entry = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    named = {dep for dep in entry["deps"] if dep.startswith("heartml/")}
    covered = {file for file in files_behind(graph, stage_module(entry["cmd"]))
               if file in named or any(file.startswith(f"{folder}/") for folder in named)}
    missing = files_behind(graph, stage_module(entry["cmd"])) - covered
    assert not missing, f"{stage}: add to deps in dvc.yaml: {', '.join(sorted(missing))}"
    gone = [dep for dep in named if not (ROOT / dep).exists()]
    assert not gone, f"{stage}: deps that do not exist: {gone}"


def test_the_command_line_answers_without_heavy_libraries() -> None:
    heavy = ("torch", "pandas", "numpy", "sklearn", "mlflow", "prefect", "dvc", "optuna", "great_expectations")
    code = f"import heartml.cli, sys; sys.exit(' '.join(m for m in {heavy!r} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_only_services_talk_to_mlflow_and_only_flows_to_prefect() -> None:
    services = {f"heartml/{service}.py" for service in ("tracking", "registry", "champions", "model_files", "serving")}
    outside = {"mlflow": services, "prefect": set()}
    for library, allowed in outside.items():
        pattern = re.compile(rf"^\s*(import|from) {library}\b", re.MULTILINE)
        modules = (ROOT / "heartml").rglob("*.py")
        users = {p.relative_to(ROOT).as_posix() for p in modules if pattern.search(p.read_text())}
        assert users <= allowed, f"{library} is imported by {users - allowed}"


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
