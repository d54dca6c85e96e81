"""A registered model stands alone: it loads without pickle and without this repository, its packages are named."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import grimp
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.finished_project import TASK
from support.published_project import publish_model
from support.workspaces import ROOT

from heartml.core import paths
from heartml.models import encoders
from heartml.registry import tracking
from heartml.release import publish


def notebook_code() -> list[str]:
    """The code of the notebook of `examples/`, cell by cell."""
    notebook = json.loads((ROOT / "examples/predict.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_registered_model_loads_without_pickle_and_without_this_repository(project: Path, tmp_path: Path) -> None:
    publish_model()
    code = (
        "import mlflow, json\n"
        f"model = mlflow.pyfunc.load_model('models:/{TASK}@champion')\n"
        "import heartml\n"
        "said = model.predict(model.input_example)\n"
        "print(json.dumps({'said': list(said['decision']), 'columns': list(said), 'code': heartml.__file__,"
        " 'signed': model.metadata.signature is not None}))\n"
        f"import os; os.chdir({str(project)!r})\n"
        f"for cell in {notebook_code()!r}: exec(cell)\n"
        "print(json.dumps(list(answers['decision'])))\n"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_TRACKING_URI": tracking.tracking_uri(),
        "HEARTML_TRUSTED_KEYS": str(project / paths.OWN_KEY.with_suffix(".pub"))}
    done = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, env=env, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    found, answers = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    assert len(answers) == 4, "the notebook of examples/ runs, and predicts for four recordings"
    assert set(answers) <= {"Present", "Unknown", "Absent", "refer"}
    assert found["signed"]
    assert "mlartifacts" in found["code"], "the code that was stored with the model answers"
    assert len(found["said"]) == 2
    assert {"decision", "confidence"} <= set(found["columns"])
    stored = [p for p in (project / ".heartml/mlartifacts/models").rglob("*") if p.is_file()]
    assert not [p for p in stored if p.suffix in (".pkl", ".pickle", ".joblib", ".skops", ".pt")]


def needs(name: str, found: set[str]) -> set[str]:
    """A package, and all that comes with it."""
    name = canonicalize_name(name)
    if name not in found:
        found.add(name)
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                needs(requirement.name, found)
    return found


def test_a_server_of_the_model_has_every_package_that_the_model_imports() -> None:
    graph = grimp.build_graph("heartml", include_external_packages=True, cache_dir=None)
    served = {"heartml.inference.serving", *graph.find_descendants("heartml.models")}     # a family is imported by name
    own = set().union(*map(graph.find_upstream_modules, served)) - set(sys.stdlib_module_names)
    of_kinds = {library for kind in encoders.PRETRAINED for library in encoders.libraries(kind)}   # added where used
    of_heads = {"peft", "transformers", "psutil"}     # of `finetune` with adapters, of `describe`, and of trainings
    imported = {name for name in own if name.partition(".")[0] != "heartml"} - (
        (of_kinds | of_heads) - set(publish._SERVING))
    assert {"torch", "lightgbm", "timm"} <= imported
    there: set[str] = set()
    for name in publish._SERVING:
        needs(name, there)
    packages = metadata.packages_distributions()
    assert not [name for name in imported if not {canonicalize_name(p) for p in packages[name]} & there]
