"""A page that runs an exported model in a browser: static files, nothing loaded from elsewhere, nothing sent anywhere.

In: the folder of an export. Out: a folder that any web server can serve. It holds the page's own files (`static/`), the
export, onnxruntime's browser build, simulated examples, and `files.json`, by which the page keeps itself for use
without a network. The browser build comes from npm as `static/package-lock.json` pins it, once, into the cache.
"""

import json
import shutil
import subprocess
from pathlib import Path

from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import replacing_folder, temporary_folder, write_json
from heartml.core.system.hashing import sha256, sha256_file
from heartml.data.simulation import children, corpus, visits
from heartml.inference import exported

STATIC = Path(__file__).parent / "static"
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_PACKAGE = "onnxruntime-web"
_ONLY_FOR_MAKING = ("package.json", "package-lock.json")
_WORKER = "service-worker.js"
_EXAMPLES_SEED = 7_000_001          # no corpus has it by default, so no model has heard these children
_EXAMPLE_SECONDS = 8.0
_EXAMPLES_OF = ("Present", "Absent", "Unknown")


class PageError(HeartMLError):
    """The page cannot be made: npm is missing or cannot fetch the browser build."""


def write(export: Path, to: Path, runtime: Path | None = None) -> Path:
    """Write the page of the export in `export` into the folder `to`; one that is there is replaced.

    Args:
        runtime: a folder with the files `RUNTIME`; `None`: npm fetches them once.

    Raises:
        ExportError: `export` holds no export.
        PageError: see there.
    """
    statement = exported.read_statement(export)
    brought = runtime or fetch_runtime()
    missing = [name for name in RUNTIME if not (brought / name).is_file()]
    if missing:
        raise PageError(f"{brought}: {missing[0]} is missing; it is in the folder dist of npm's {_PACKAGE}")
    with replacing_folder(to) as temporary:
        for path in STATIC.rglob("*"):
            if path.is_file() and path.name not in _ONLY_FOR_MAKING:
                place = temporary / path.relative_to(STATIC)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
        for name in (*statement["files"], exported.STATEMENT, exported.SIGNATURE):
            if (export / name).is_file():
                shutil.copyfile(export / name, temporary / name)
        (temporary / "ort").mkdir()
        for name in RUNTIME:
            shutil.copyfile(brought / name, temporary / "ort" / name)
        _write_examples(temporary / "examples", known=not statement.get("own_classes", False))
        _write_icons(temporary)
        _write_list(temporary)
    return to


def names_in(folder: Path) -> list[str]:
    """What an earlier page wrote into a folder, as its `files.json` says; nothing where there is none."""
    listed = folder / "files.json"
    try:
        found = [str(name) for name in json.loads(listed.read_text(encoding="utf-8"))["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    own = {path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*")}
    page = own | {name for name in found if name.startswith(("examples/", "ort/", "icon"))}
    return sorted(page | {*exported.NAMES, "files.json"}) if "index.html" in found else []


def version() -> str:
    """A text that changes with any of the page's own files."""
    files = sorted(path for path in STATIC.rglob("*") if path.is_file())
    return sha256("\n".join(f"{path.relative_to(STATIC)} {sha256_file(path)}" for path in files).encode())[:12]


def fetch_runtime() -> Path:
    """The folder with onnxruntime's browser build, fetched by npm unless it is in the cache.

    Raises:
        PageError: npm is missing, or cannot fetch it.
    """
    lock = STATIC / "package-lock.json"
    folder = paths.cache() / "npm" / sha256_file(lock)[:16]
    if all((folder / name).is_file() for name in RUNTIME):
        return folder
    if shutil.which("npm") is None:
        raise PageError(f"the page needs {_PACKAGE}, which npm brings, and npm is not installed; or name a folder with "
                        "--runtime")
    with temporary_folder() as place:
        for name in _ONLY_FOR_MAKING:
            shutil.copyfile(STATIC / name, place / name)
        done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
                              cwd=place, capture_output=True, text=True, check=False)
        if done.returncode:
            words = " ".join((done.stderr or done.stdout).split())[:300]
            raise PageError(f"npm cannot fetch {_PACKAGE}: {words}")
        with replacing_folder(folder) as temporary:
            for name in RUNTIME:
                shutil.copyfile(place / "node_modules" / _PACKAGE / "dist" / name, temporary / name)
    return folder


def _write_examples(folder: Path, *, known: bool) -> None:
    """Write recordings of a few simulated children, and `examples.json`, which names them.

    Args:
        known: whether their murmur says something of the model's task. A user's own task has other classes.
    """
    folder.mkdir()
    found: dict[str, dict[str, object]] = {}
    number = 0
    while len(found) < len(_EXAMPLES_OF) and number < 400:
        visit = visits.draw_visits(_EXAMPLES_SEED, children.draw_child(_EXAMPLES_SEED, number))[0]
        number += 1
        if visit.label in found or visit.label not in _EXAMPLES_OF:
            continue
        names = []
        for recording in visits.record(visit, _EXAMPLE_SECONDS):
            names.append(f"{recording.name}.wav")
            (folder / names[-1]).write_bytes(corpus.wav_bytes(recording.pcm))
        found[visit.label] = {"patient": str(visit.patient_id), "label": visit.label if known else None,
                              "files": names}
    (folder / "examples.json").write_text(json.dumps([found[name] for name in _EXAMPLES_OF if name in found]),
                                          encoding="utf-8")


def _write_icons(folder: Path) -> None:
    """Write `icon.svg` as pictures, which telephones ask for."""
    from PIL import Image, ImageDraw

    line = [(8, 36), (20, 36), (24, 22), (30, 48), (36, 14), (41, 36), (56, 36)]      # of 64 by 64, as in icon.svg
    for size in (180, 192, 512):
        large = Image.new("RGB", (4 * size, 4 * size), "#a3203d")
        points = [(x * size / 16, y * size / 16) for x, y in line]
        ImageDraw.Draw(large).line(points, "white", width=size // 4, joint="curve")
        large.resize((size, size), Image.Resampling.LANCZOS).save(folder / f"icon-{size}.png")


def _write_list(folder: Path) -> None:
    """Write `files.json`, every file that the page keeps, and the version of all of them into the service worker."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if name not in (exported.SMALL, _WORKER)]
    hashes = "\n".join(f"{name} {sha256_file(folder / name)}" for name in [*names, _WORKER])
    write_json(folder / "files.json", {"files": names})
    script = (folder / _WORKER).read_text(encoding="utf-8")
    whole = script.replace('"development"', f'"{sha256(hashes.encode())[:16]}"')
    (folder / _WORKER).write_text(whole, encoding="utf-8")
