"""The table of `heartml predict`: names and numbers are whole on a terminal of any width, whatever the classes are."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from heartml.inference import output
from heartml.inference.inputs import InputFile
from heartml.inference.model_lookup import LocatedModel
from heartml.inference.predict import PredictResult, ScoredRecording, UnitPrediction
from heartml.models.segmentation import Segmentation

DISEASES = ("Aortic regurgitation", "Aortic stenosis", "Mitral regurgitation", "Mitral stenosis", "Normal")
GRADES = tuple(f"Systolic click at the apex grade {grade}" for grade in (1, 2, 3))
MANY = tuple(f"Class number {number} with a name" for number in range(12))


def result(classes: tuple[str, ...]) -> PredictResult:
    def unit(number: int) -> UnitPrediction:
        name = f"patient_{number}_MV.wav"
        recording = ScoredRecording(InputFile(Path(name)), 9.0, None, (), {}, recording_id=str(number),
                                    short_warnings=("clipped",))
        numbers = {one: 0.1 * number + 0.001 * place for place, one in enumerate(classes)}
        return UnitPrediction(name, "refer" if number else classes[0], classes[0], 0.81, numbers, numbers, (recording,),
                              None)

    return PredictResult(LocatedModel(Path(), "a model", None, None), "own-task", "recording", classes,
                         tuple(unit(number) for number in range(3)), ())


@pytest.mark.parametrize(("rates", "words"), [
    ([], ""), ([None], ""), ([103.6], "104"), ([123.6, None, 124.4], "124"), ([106.9, 98.2, 101.0], "98 to 107")])
def test_the_heart_rate_is_a_number_or_from_the_least_to_the_most(rates: list[float | None], words: str) -> None:
    hearts = [Segmentation(np.zeros(0), (), 9.0) if rate is None else SimpleNamespace(heart_rate_per_min=rate)
              for rate in rates]
    recordings = tuple(SimpleNamespace(heart=heart, findings=()) for heart in hearts)
    assert output._heart_rate(SimpleNamespace(recordings=recordings)) == words      # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [("Present", "Unknown", "Absent"), DISEASES, GRADES, MANY], ids=len)
@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_name_and_no_number_is_cut(
    classes: tuple[str, ...], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = io.StringIO()
    monkeypatch.setattr(output, "console_for_tables", lambda: Console(file=drawn, width=width))
    output.show(result(classes))
    shown = drawn.getvalue()
    assert "…" not in shown
    for number in range(3):
        assert f"patient_{number}_MV.wav" in shown
        assert all(f"{0.1 * number + 0.001 * place:.3f}" in shown for place in range(len(classes)))
    assert shown.count("81%") == 3 and shown.count("clipped") >= 3 and "signal" in shown
    words = {word for line in shown.splitlines() for word in line.replace(",", " ").replace("(", " ").split()}
    assert {word for name in classes for word in name.split()} <= words, "every class is named"
