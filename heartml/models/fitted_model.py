"""The fitted model of one task: frames or waveforms in, probabilities `[n, k]`, decisions and confidences `[n]` out.

It is saved as one folder without pickle: `model.json` (task, encoder specs, members, weights, decision rule,
calibration, the confidence below which a human decides, what the model accepts), `model.safetensors` (arrays),
`<trial>-<n>.lightgbm.txt` (trees), and `weights/` where the model holds those of a pre-trained encoder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from heartml.audio.quality import Quality
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json, replacing, write_json
from heartml.core.tasks import Task, of_stored, resolve, stored_definition
from heartml.models import applicability, held_weights
from heartml.models.applicability import Applicability, Finding
from heartml.models.ensemble.calibration import Calibration
from heartml.models.ensemble.candidate import CandidateSpec, FeatureSet, Member
from heartml.models.ensemble.decision_rule import Rule
from heartml.models.ensemble.selection import FittedEnsemble, mean_log_p, predict_proba
from heartml.models.ensemble.stacking import (
    Stacker,
    StackingFeatures,
    StackingView,
    prediction_of,
    stacking_features,
)
from heartml.models.heads import HeadPrediction, HeadState, SegmentsHeartStates, learns_parent
from heartml.models.pooling import rows_of
from heartml.models.segmentation import Segmentation, decode
from heartml.models.shared_inputs import RatedWaveform, SharedInputs

FORMAT = 2
_CHECKS = "applicability."      # prefix of the arrays of `Model.applicability`
REFER = "refer"     # in the place of a decision that is left to a human


class ModelError(HeartMLError):
    """The folder holds no model that this version can use, or the input does not fit the model."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for `n` units made of `r` recordings; `k` classes.

    Attributes:
        unit_ids: `[n]`, in the order in which the units first appear.
        classes: names of the `k` classes in the task's order.
        probabilities: `[n, k]`, uncalibrated; the decision rule uses these.
        calibrated: `[n, k]`; shown as confidence, never used to decide.
        decisions: `[n]`, index into `classes`.
        recording_probabilities: `[r, k]`, predictions from each recording alone, in the order given.
        refer_below: a decision with a lower confidence is left to a human.
        findings: why a recording cannot be judged, for each recording `[r]`; empty where nothing was checked.
        unit: number of each recording's unit `[r]`; `None` where nothing was checked.
    """

    unit_ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    calibrated: NDArray[np.float64]
    decisions: NDArray[np.int64]
    recording_probabilities: NDArray[np.float64]
    refer_below: float = 0.0
    findings: tuple[tuple[Finding, ...], ...] = ()
    unit: NDArray[np.int64] | None = None

    @cached_property
    def reasons(self) -> list[tuple[Finding, ...]]:
        """Why each unit `[n]` is outside of what the model can judge; empty where it is inside, or was not checked."""
        if self.unit is None:
            return [() for _ in self.unit_ids]
        return [applicability.reasons([self.findings[row] for row in rows]) for rows in rows_of(self.unit)]

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Calibrated probability of each decision: `[n]`."""
        return self.calibrated[np.arange(len(self.decisions)), self.decisions]

    @property
    def top_classes(self) -> list[str]:
        """The class that the rule decided for, whatever its confidence: `[n]`."""
        return [self.classes[decision] for decision in self.decisions]

    @property
    def verdicts(self) -> list[str]:
        """The top class, or `REFER` where there is any of `refer_reasons`: `[n]`."""
        return [REFER if reasons else top_class
                for top_class, reasons in zip(self.top_classes, self.refer_reasons, strict=True)]

    @cached_property
    def refer_reasons(self) -> list[tuple[str, ...]]:
        """Why each decision is left to a human, in words; empty where it is not: `[n]`."""
        unsure = f"less sure than {self.refer_below:.0%}"
        return [(*(one.words for one in reasons), *([unsure] if confidence < self.refer_below else []))
                for reasons, confidence in zip(self.reasons, self.confidence, strict=True)]


@dataclass(frozen=True)
class Model:
    """A fitted ensemble of one task.

    Attributes:
        assignment_name: `circor-murmur`; the registered model's name.
        members: trial -> fitted member.
        ensemble: weights, stackers, decision rule and calibration.
        encoder_specs: encoder -> its `heartml.models.encoders.EncoderSpec` as JSON, with `frame_rate_hz` and `dim`.
        refer_below: see `Predictions`; 0 in models that were saved before it existed: they refer nothing.
        applicability: what the model accepts; `None` in models that were saved before it existed: they accept all.
        own_task: the task that a collection declares; `None` for a published task, which the name tells.
    """

    assignment_name: str
    members: Mapping[int, Member]
    ensemble: FittedEnsemble
    encoder_specs: Mapping[str, Mapping[str, Any]]
    refer_below: float = 0.0
    applicability: Applicability | None = None
    own_task: Task | None = None

    @property
    def task(self) -> Task:
        """The task: label, classes, unit, metric."""
        return self.own_task or resolve(self.assignment_name).task

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of the encoders whose frames `predict` needs, sorted."""
        return tuple(sorted(self.encoder_specs))

    @classmethod
    def assemble(
        cls, name: str, specs: Mapping[int, CandidateSpec], heads: Mapping[int, Sequence[HeadState]],
        ensemble: FittedEnsemble, encoder_specs: Mapping[str, Mapping[str, Any]], refer_below: float = 0.0,
        applicability: Applicability | None = None, task: Task | None = None,
    ) -> Self:
        """Make a model from saved heads, trial -> one or more; so a new model predicts exactly as a loaded one.

        Args:
            task: where it is not the one that `name` means in this folder.
        """
        task = task or resolve(name).task
        members = {trial: Member(spec, tuple(spec.head_module.load(state) for state in heads[trial]))
                   for trial, spec in specs.items()}
        return cls(name, members, ensemble, encoder_specs, refer_below, applicability,
                   task if stored_definition(task) else None)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote.

        Raises:
            ModelError: the folder holds no model, or one of another format.
            WeightsError: the weights of a pre-trained encoder are not here.
        """
        from safetensors.numpy import load_file

        if not (folder / "model.json").exists():
            raise ModelError(f"{folder}: no model here (no model.json). Run `heartml retrain`.")
        try:
            saved = read_json(folder / "model.json")
            if saved.get("format") != FORMAT:
                raise ModelError(f"{folder}: model format {saved.get('format')}, this version reads {FORMAT}. Retrain.")
            held_weights.load(folder, saved["encoders"])
            arrays = load_file(folder / "model.safetensors")
            specs = {entry["trial"]: CandidateSpec.from_json(entry) for entry in saved["members"]}
            heads = {entry["trial"]: [_head_state(folder, arrays, int(entry["trial"]), n, scalars)
                                      for n, scalars in enumerate(entry["heads"])] for entry in saved["members"]}
            checks = saved.get("applicability")
            own = {key.removeprefix(_CHECKS): array for key, array in arrays.items() if key.startswith(_CHECKS)}
            return cls.assemble(saved["assignment"], specs, heads, _ensemble_from(saved, arrays), saved["encoders"],
                                float(saved.get("refer_below", 0.0)),
                                Applicability.load(checks, own) if checks else None,
                                of_stored(saved, saved["assignment"]))
        except HeartMLError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the libraries raise for damaged or foreign files
            raise ModelError(f"{folder}: its files are damaged or no model of HeartML ({type(error).__name__}: "
                             f"{str(error)[:200]}). Retrain, or fetch it again.") from None

    def save(self, folder: Path) -> None:
        """Write the model into the existing, empty `folder`; the same model gives the same bytes."""
        from safetensors.numpy import save

        arrays: dict[str, NDArray[np.generic]] = {}
        members = []
        for trial, member in self.members.items():
            states = [head.state() for head in member.heads]
            for n, state in enumerate(states):
                arrays |= {f"{trial}-{n}.{key}": array for key, array in state.arrays.items()}
                for key, text in state.texts.items():
                    with replacing(folder / f"{trial}-{n}.{key}") as file:
                        file.write_text(text, encoding="utf-8")
            members.append({"trial": trial, **member.spec.to_json(), "heads": [dict(s.scalars) for s in states]})
        arrays |= _ensemble_arrays(self.ensemble)
        checks = self.applicability
        arrays |= {f"{_CHECKS}{key}": array for key, array in checks.arrays().items()} if checks else {}
        with replacing(folder / "model.safetensors") as file:
            file.write_bytes(save({key: np.ascontiguousarray(array) for key, array in arrays.items()}))
        write_json(folder / "model.json", {
            "format": FORMAT, "assignment": self.assignment_name, "task": self.task.name,
            "classes": self.task.classes, "unit": self.task.unit, "members": members,
            "encoders": held_weights.save(folder, self.encoder_specs), "refer_below": self.refer_below,
            **_ensemble_json(self.ensemble), **({"applicability": checks.to_json()} if checks else {}),
            **stored_definition(self.task),
        })

    def predict(
        self, frames: Mapping[str, Sequence[NDArray[np.float32]]], unit_of: Sequence[str],
        qualities: Sequence[Quality] | None = None,
    ) -> Predictions:
        """Predict units from frames.

        Args:
            frames: encoder -> frames of `r` recordings, arrays `[frames, dim]`, for each of `encoders`.
            unit_of: id of each recording's unit `[r]`.
            qualities: of the recordings' signals `[r]`; without them the signal's measures are not checked.

        Raises:
            ModelError: no recordings, frames and units do not match, or two recordings share a unit although the task's
                unit is the recording.
        """
        if not unit_of or any(len(frames[encoder]) != len(unit_of) for encoder in self.encoders):
            raise ModelError(f"{len(unit_of)} recordings: frames of each encoder and one unit for each are needed")
        return self.predict_shared(SharedInputs.from_frames(frames, self.encoder_specs, unit_of, qualities))

    def predict_audio(self, waveforms: Sequence[RatedWaveform], unit_of: Sequence[str]) -> Predictions:
        """Predict units from waveforms: `(samples in [-1, 1], sample_rate_hz)` and unit id of each recording `[r]`.

        Raises:
            ModelError: see `predict_shared`.
        """
        return self.predict_shared(SharedInputs(waveforms, unit_of))

    def predict_shared(self, shared: SharedInputs) -> Predictions:
        """Predict units from inputs that several models share; frames that another model needed are not made again.

        Raises:
            ModelError: no recordings, or two share a unit although the task's unit is the recording.
        """
        if not shared.unit_of:
            raise ModelError(f"{self.assignment_name}: there are no recordings to predict")
        if self.task.unit == "recording" and len(shared.unit_ids) < len(shared.unit_of):
            raise ModelError(f"{self.assignment_name} predicts recordings one by one: each needs a unit of its own")
        feature_set = shared.feature_set(self.encoder_specs)
        predictions = {trial: member.predict_proba(feature_set) for trial, member in self.members.items()}
        found = predict_proba(self.ensemble, self._stacking_features(predictions, feature_set))
        findings = self._findings(feature_set, shared)
        return Predictions(shared.unit_ids, self.task.classes, np.exp(found.log_p), found.calibrated, found.decisions,
                           np.exp(self._of_recordings(predictions, feature_set)), self.refer_below, findings,
                           feature_set.unit if findings else None)

    def _findings(self, feature_set: FeatureSet, shared: SharedInputs) -> tuple[tuple[Finding, ...], ...]:
        """Why each recording `[r]` cannot be judged; nothing at all from a model without checks."""
        if self.applicability is None:
            return ()
        encoder = applicability.ENCODER
        return self.applicability.judge(feature_set.frames[encoder], feature_set.rates_hz[encoder], shared.qualities)

    def _stacking_features(
        self, predictions: Mapping[int, HeadPrediction], feature_set: FeatureSet
    ) -> dict[StackingView, StackingFeatures]:
        return {view: stacking_features(view.kind, prediction_of(view, predictions), feature_set.unit)
                for view in self.ensemble.weights}

    def _of_recordings(self, predictions: Mapping[int, HeadPrediction], feature_set: FeatureSet) -> NDArray[np.float64]:
        """Log-probabilities of each recording `[r, k]`: the weighted mean of the members of level `recording`
        that have an opinion on a recording alone (`learns_parent`: one that has none).

        Where there is no such member, each recording is predicted as a unit of its own.
        """
        weights = {view: weight for view, weight in self.ensemble.weights.items() if self._takes_recordings(view)}
        if weights:
            return mean_log_p({view: prediction_of(view, predictions).log_p for view in weights}, weights)
        each = feature_set.one_unit_each()
        of_each = {trial: member.predict_proba(each) for trial, member in self.members.items()}
        return self.ensemble.log_p(self._stacking_features(of_each, each))

    def heart_states(self, frames: Mapping[str, NDArray[np.float32]], seconds: float) -> Segmentation | None:
        """Heart states of one recording, by the first network that was fitted to them; `None` where there is none.

        Args:
            frames: encoder -> `[frames, dim]`; they lie in the middle of the recording.
            seconds: length of the recording.
        """
        for member in self.members.values():
            head, own = member.heads[0], member.spec.encoder
            posteriors = head.frame_posteriors(frames[own]) if isinstance(head, SegmentsHeartStates) else None
            if posteriors is not None:
                rate_hz = float(self.encoder_specs[own]["frame_rate_hz"])
                return decode(posteriors, rate_hz / 2, (seconds - (len(frames[own]) - 1) / rate_hz) / 2)
        return None

    def heart_states_of(self, shared: SharedInputs, seconds: Sequence[float]) -> list[Segmentation | None]:
        """Heart states of every recording of `shared`; `seconds` are their lengths `[r]`."""
        frames = shared.feature_set(self.encoder_specs).frames
        return [self.heart_states({name: of[n] for name, of in frames.items()}, s) for n, s in enumerate(seconds)]

    def _takes_recordings(self, view: StackingView) -> bool:
        spec = self.members[view.trials[0]].spec
        return spec.level == "recording" and not learns_parent(spec.head_module)


def _head_state(
    folder: Path, arrays: Mapping[str, NDArray[np.generic]], trial: int, n: int, scalars: Mapping[str, object]
) -> HeadState:
    prefix = f"{trial}-{n}."
    own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
    texts = {path.name.removeprefix(prefix): path.read_text(encoding="utf-8") for path in folder.glob(f"{prefix}*.txt")}
    return HeadState(own, scalars, texts)


def _ensemble_json(ensemble: FittedEnsemble) -> dict[str, Any]:
    views = [{"trials": view.trials, "kind": view.kind, "weight": weight,
              **({} if (stacker := ensemble.stackers[view].kind) == "logistic" else {"stacker": stacker})}
             for view, weight in ensemble.weights.items()]
    return {"readings": views, "rule": {"biases": ensemble.rule.biases},
            "calibration": ensemble.calibration.to_json()}


def _ensemble_arrays(ensemble: FittedEnsemble) -> dict[str, NDArray[np.generic]]:
    return {f"reader-{view}.{key}": array
            for view, stacker in ensemble.stackers.items() for key, array in stacker.arrays().items()}


def _ensemble_from(saved: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> FittedEnsemble:
    weights = {StackingView(tuple(entry["trials"]), entry["kind"]): float(entry["weight"])
               for entry in saved["readings"]}
    stackers = {}
    for view in weights:
        prefix = f"reader-{view}."
        own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        stackers[view] = Stacker.from_arrays(own)
    return FittedEnsemble(weights, stackers, Rule(np.array(saved["rule"]["biases"])),
                          Calibration.from_json(saved["calibration"]))
