"""The page in a real browser: a dropped file, a microphone, no network, a phone; the numbers are those of `predict`."""

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import soundfile
from support import many_heads, tiny_models
from support.browsers import launched, needs_browser

from heartml import export
from heartml.audio import sound_files
from heartml.core import paths
from heartml.core.tasks import TASKS
from heartml.export import page
from heartml.inference.exported import ExportedModel
from heartml.inference.model_lookup import LocatedModel

STATIC = page.STATIC
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="left out: npm is not installed, which brings the "
                               "browser's runtime")
pytestmark = [needs_browser, needs_npm]


@dataclass(frozen=True)
class Site:
    """A page that is served, its export, and files to drop."""

    address: str
    folder: Path
    export: Path
    sounds: Path


class _Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map: ClassVar = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript",
                                ".wasm": "application/wasm", ".webmanifest": "application/manifest+json"}

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        shutil.copy(Path(__file__).parents[2] / "params.yaml", root)
        many_heads.save(paths.model("simulated-murmur"), many_heads.fit(farthest=1e6, refer_below=0.0))
        export.write(LocatedModel(paths.model("simulated-murmur"), "a small model", None, None), Path("export"), 2)
        patch.setenv("HEARTML_CACHE_DIR", str(tmp_path_factory.getbasetemp().parent / "npm-cache"))
        page.write(Path("export"), Path("page"))
        sounds = root / "sounds"
        sounds.mkdir()
        for name, seed, rate, subtype in (("2530_AV", 3, 4000, "PCM_16"), ("2530_MV", 5, 44100, "PCM_24"),
                                          ("floats", 4, 8000, "FLOAT"), ("telephone", 6, 8000, "ALAW"),
                                          ("american", 8, 8000, "ULAW"), ("packed", 4, 8000, "MS_ADPCM")):
            one = many_heads.sound(seed, 3.0, rate)
            soundfile.write(sounds / f"{name}.wav", one.pcm, rate, subtype=subtype)
        soundfile.write(sounds / "lossless.flac", many_heads.sound(7, 3.0, 4000).pcm, 4000)
        microphone = np.tile(tiny_models.draw_sound("murmur", 1, 8.0).pcm, 12)
        soundfile.write(sounds / "microphone.wav", microphone, 48000)
        (sounds / "broken.wav").write_bytes(b"RIFF    WAVEfmt ")
        (sounds / "cut.wav").write_bytes((sounds / "2530_AV.wav").read_bytes()[:5000])
        ears = [many_heads.sound(seed, 3.0).pcm for seed in (3, 5)]
        size = min(map(len, ears))
        soundfile.write(sounds / "stereo.wav", np.stack([one[:size] for one in ears], axis=1), 4000)
        soundfile.write(sounds / "left.wav", ears[0][:size], 4000)
        (sounds / "behind.wav").write_bytes((sounds / "2530_AV.wav").read_bytes() + bytes(4000))
        spiked = many_heads.sound(3, 3.0).floats.copy()
        spiked[7] = 1e30
        soundfile.write(sounds / "spike.wav", spiked, 4000, subtype="FLOAT")
        soundfile.write(sounds / "moment.wav", many_heads.sound(1, 1.0).pcm[:800], 4000)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=root / "page"))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Site(f"http://127.0.0.1:{server.server_port}/", root / "page", root / "export", sounds)
        server.shutdown()


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[object]:
    with launched("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
                  f"--use-file-for-fake-audio-capture={site.sounds / 'microphone.wav'}") as found:
        yield found


def opened(context, address: str):
    """A tab with the page, ready; every fault of the page fails the test that looks at `faults`."""
    tab = context.new_page()
    tab.faults, tab.asked = [], []
    tab.on("pageerror", lambda error: tab.faults.append(str(error)))
    tab.on("console", lambda said: tab.faults.append(said.text) if said.type == "error" else None)
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.goto(address)
    tab.locator("body[data-ready=true]").wait_for(timeout=120_000)
    return tab


def drop(tab, *files: Path) -> None:
    """Choose files, and wait until each has its picture, or until the page says why not."""
    before = tab.locator("li.recording").count()
    tab.set_input_files("#files", list(map(str, files)))
    tab.locator("li.recording").nth(before + len(files) - 1).wait_for(timeout=60_000)


def shares(tab) -> dict[str, float]:
    """Calibrated probabilities as the bars have them."""
    names = tab.locator(".bars th").all_inner_texts()
    return dict(zip(names, tab.eval_on_selector_all(".bars progress", "all => all.map(one => one.value)"), strict=True))


ENGLISH = {"Present": "Murmur", "Unknown": "Unclear murmur", "Absent": "No murmur"}


def test_a_file_has_the_numbers_of_the_exported_model(site: Site, browser) -> None:
    context, model = browser.new_context(locale="en-GB"), ExportedModel.load(site.export)
    tab = opened(context, site.address)
    for name in ("2530_AV.wav", "2530_MV.wav", "floats.wav", "lossless.flac", "telephone.wav", "american.wav"):
        one = sound_files.read(site.sounds / name)
        own = model.recording(one.floats, one.sample_rate_hz)
        drop(tab, site.sounds / name)
        found = shares(tab)
        assert {ENGLISH[key]: pytest.approx(value, abs=1e-4) for key, value in own.calibrated.items()} == found, name
        assert ENGLISH[own.top_class] in tab.locator(".decision").inner_text()
        tab.get_by_role("button", name="New patient").click()
    assert tab.faults == []
    assert all(url.startswith((site.address, "blob:", "data:")) for url in tab.asked)
    context.close()


def test_several_recordings_are_one_patient_and_pictures_are_drawn(site: Site, browser) -> None:
    model = ExportedModel.load(site.export)
    read = [sound_files.read(site.sounds / f"2530_{place}.wav") for place in ("AV", "MV")]
    own = model.unit([model.recording(one.floats, one.sample_rate_hz).features for one in read])
    context = browser.new_context(locale="en-GB")
    tab = opened(context, site.address)
    drop(tab, site.sounds / "2530_AV.wav", site.sounds / "2530_MV.wav")
    assert {ENGLISH[key]: pytest.approx(value, abs=1e-4) for key, value in own.calibrated.items()} == shares(tab)
    assert tab.locator("li.recording select").evaluate_all("all => all.map(one => one.value)") == ["AV", "MV"]
    coloured = "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    assert min(tab.locator("canvas").evaluate_all(f"all => all.map({coloured})")) > 20
    tab.get_by_role("button", name="Remove 2530_AV.wav").click()
    tab.locator("li.recording").nth(1).wait_for(state="detached")
    assert tab.evaluate("document.activeElement.ariaLabel") == "Remove 2530_MV.wav"
    tab.get_by_role("button", name="New patient").click()
    assert tab.locator("#answer").is_hidden() and tab.faults == []
    context.close()


def test_a_file_that_gives_no_samples_is_named_with_the_reason(site: Site, browser) -> None:
    context = browser.new_context(locale="en-GB")
    tab = opened(context, site.address)
    for name, words in (("broken.wav", "not a sound file"), ("cut.wav", "promises more than the file holds"),
                        ("stereo.wav", "channels differ"), ("moment.wav", "shorter than 0.5 s"),
                        ("behind.wav", "less than the file holds"), ("spike.wav", "thousands of times"),
                        ("packed.wav", "coded (ADPCM), which browsers do not read")):
        tab.set_input_files("#files", str(site.sounds / name))
        tab.locator("#status.error", has_text=name).wait_for(timeout=30_000)
        assert words in tab.locator("#status").inner_text()
    assert tab.locator("li.recording").count() == 0
    drop(tab, site.sounds / "2530_AV.wav")
    assert tab.locator("#problems li").count() == 7          # they stay beside what was heard
    tab.set_input_files("#files", str(site.sounds / "2530_AV.wav"))
    tab.locator("#problems li", has_text="is here already").wait_for(timeout=30_000)
    assert tab.locator("li.recording").count() == 1
    tab.get_by_role("button", name="New patient").click()
    assert tab.locator("#problems li").count() == 0
    context.close()


def test_of_two_channels_somebody_chooses_the_one_that_is_judged(site: Site, browser) -> None:
    one = sound_files.read(site.sounds / "left.wav")
    own = ExportedModel.load(site.export).recording(one.floats, one.sample_rate_hz)
    context = browser.new_context(locale="en-GB")
    tab = opened(context, site.address)
    tab.set_input_files("#files", str(site.sounds / "stereo.wav"))
    tab.get_by_role("button", name="Right channel of stereo.wav").wait_for(timeout=30_000)
    tab.get_by_role("button", name="Left channel of stereo.wav").click()
    tab.locator("li.recording", has_text="stereo.wav, Left channel").wait_for(timeout=30_000)
    assert {ENGLISH[key]: pytest.approx(value, abs=1e-4) for key, value in own.calibrated.items()} == shares(tab)
    assert tab.locator("#problems li").count() == 0 and tab.faults == []
    context.close()


def test_nothing_of_one_patient_comes_to_the_next(site: Site, browser) -> None:
    context = browser.new_context(locale="en-GB")
    tab = opened(context, site.address)
    for number in (0, 1):          # the second is chosen while the first is still heard
        tab.locator("#examples button").nth(number).click()
    named = tab.locator("#examples button").nth(1).inner_text().split()[0]
    tab.locator("li.recording", has_text=named).nth(2).wait_for(timeout=60_000)
    tab.wait_for_timeout(1500)
    assert all(name.startswith(named) for name in tab.locator("li.recording h3").all_inner_texts())
    tab.set_input_files("#files", [str(site.sounds / "2530_AV.wav"), str(site.sounds / "2530_MV.wav")])
    tab.get_by_role("button", name="New patient").click()
    tab.wait_for_timeout(1500)
    assert tab.locator("li.recording").count() == 0 and tab.faults == []
    drop(tab, site.sounds / "2530_AV.wav", next((site.folder / "examples").glob("*_MV.wav")))
    assert "several patients (2530, " in tab.locator("#verdict").inner_text()
    context.close()


def test_a_phone_without_a_network_records_in_german(site: Site, browser) -> None:
    """360 pixels wide, dark, offline after the first visit; the microphone is fed from a file."""
    context = browser.new_context(viewport={"width": 360, "height": 760}, color_scheme="dark", locale="de-DE",
                                  permissions=["microphone"])
    tab = opened(context, site.address)
    kept = "caches.keys().then(async names => names.length ? (await (await caches.open(names[0])).keys()).length : 0)"
    for _ in range(100):
        if tab.evaluate("navigator.serviceWorker.controller !== null") and tab.evaluate(kept) > 20:
            break
        tab.wait_for_timeout(200)
    context.set_offline(True)
    tab.reload()
    tab.locator("body[data-ready=true]").wait_for(timeout=120_000)
    tab.get_by_role("button", name="Aufnehmen").click()
    tab.get_by_role("button", name="Beenden").wait_for()
    tab.wait_for_timeout(2500)
    assert tab.locator("#level").evaluate("meter => [meter.value > 0.2, meter.ariaLabel]") == [
        True, "Lautstärke des Mikrofons"]
    tab.get_by_role("button", name="Beenden").click()
    assert tab.locator("#level").is_hidden()
    tab.locator("li.recording").wait_for(timeout=60_000)
    assert "Kein Medizinprodukt" in tab.locator(".notice").inner_text()
    assert tab.locator(".notice").bounding_box()["y"] >= 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.evaluate("document.documentElement.lang") == "de"
    assert tab.faults == []
    context.close()


def test_examples_play_and_the_keyboard_reaches_everything(site: Site, browser) -> None:
    context = browser.new_context(locale="en-GB")
    tab = opened(context, site.address)
    tab.locator("#examples button").first.focus()
    tab.keyboard.press("Enter")
    tab.locator("li.recording").nth(1).wait_for(timeout=60_000)
    button = tab.locator("li.recording button").first
    button.focus()
    tab.keyboard.press("Enter")
    tab.get_by_role("button", name="Pause").wait_for(timeout=10_000)
    tab.keyboard.press("Enter")
    slider = tab.locator("li.recording input[type=range]").first
    slider.focus()
    before = float(slider.input_value())
    tab.keyboard.press("ArrowRight")
    assert float(slider.input_value()) > before
    unnamed = "all => all.filter(e => !(e.innerText || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)"
    assert tab.locator("button, select, input").evaluate_all(unnamed) == []
    assert tab.locator("canvas").first.get_attribute("aria-label").startswith("Waveform above")
    context.close()


def test_classes_of_somebodys_own_keep_their_names(site: Site, browser) -> None:
    """`Present` is a murmur for a published task alone, and the examples' murmurs say nothing of another one."""
    context = browser.new_context(locale="en-GB", service_workers="block")
    facts = json.loads((site.folder / "export.json").read_text())
    context.route("**/export.json", lambda route: route.fulfill(json={**facts, "own_classes": True}))
    tab = opened(context, site.address)
    drop(tab, site.sounds / "2530_AV.wav")
    assert list(shares(tab)) == facts["classes"]
    assert set(facts["classes"]) == set(ENGLISH)
    assert tab.faults == []
    context.close()


def test_examples_of_another_task_tell_no_murmur(tmp_path: Path) -> None:
    page._write_examples(tmp_path / "examples", known=False)
    found = json.loads((tmp_path / "examples" / "examples.json").read_text())
    assert [one["label"] for one in found] == [None, None, None]


def test_a_translation_has_every_text_and_every_value_in_it() -> None:
    texts = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (STATIC / "texts").glob("*.json")}
    assert set(texts) == {"en", "de"}
    for key, words in texts["en"].items():
        for other in texts.values():
            assert sorted(part.split("}")[0] for part in other[key].split("{")[1:]) == sorted(
                part.split("}")[0] for part in words.split("{")[1:]), key
    assert set(texts["en"]) == set(texts["de"])


def test_every_class_of_a_published_task_has_a_name_and_none_means_two_things() -> None:
    texts = json.loads((STATIC / "texts/en.json").read_text(encoding="utf-8"))
    names = {(task.name, label): texts.get(f"class.{task.name}.{label}", texts.get(f"class.{label}"))
             for task in TASKS.values() for label in task.classes}
    assert [key for key, words in names.items() if words is None] == []
    assert names["mitral_stenosis", "Present"] == "Mitral stenosis" and names["murmur", "Present"] == "Murmur"
    assert not {f"class.{label}" for label in ("Present", "Absent", "Unknown")} & set(texts)


def test_a_page_may_be_replaced_and_nothing_else(site: Site, tmp_path: Path) -> None:
    written = {path.relative_to(site.folder).as_posix() for path in site.folder.rglob("*") if path.is_file()}
    assert written <= set(page.names_in(site.folder))
    (tmp_path / "files.json").write_text('{"files": ["shop.html"]}')
    assert page.names_in(tmp_path) == page.names_in(site.sounds) == []


def test_a_runtime_that_lacks_a_file_is_named(site: Site, tmp_path: Path) -> None:
    with pytest.raises(page.PageError, match=r"ort\.wasm\.min\.mjs is missing"):
        page.write(site.export, tmp_path / "page", tmp_path)
