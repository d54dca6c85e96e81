"""The fitted ensemble: from frames, or straight from audio, to probabilities, a decision and a calibrated confidence.

One folder, no pickle: `model.json` (task, what made the frames, members, weights, decision rule, calibration, the
confidence below which a human decides), `model.safetensors` (arrays) and `<trial>-<n>.lightgbm.txt` (trees).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json, replacing, write_json
from heartml.core.tasks import Task, resolve
from heartml.models.ensemble.calibration import Calibration
from heartml.models.ensemble.candidate import CandidateSpec, FeatureSet, Member
from heartml.models.ensemble.decision_rule import Rule
from heartml.models.ensemble.selection import FittedEnsemble, mean_log_p, predict_proba
from heartml.models.ensemble.stacking import Stacker, StackingView, prediction_of, stacking_features
from heartml.models.heads import HeadPrediction, HeadState, SegmentsHeartStates
from heartml.models.segmentation import Segmentation, decode
from heartml.models.shared_inputs import RatedWaveform, SharedInputs

FORMAT = 2
REFER = "refer"     # the decision to leave the decision to a human


class ModelError(HeartMLError):
    """The folder holds no model that this version can use, or the input does not fit it."""


@dataclass(frozen=True)
class Predictions:
    """What the ensemble says about `n` units made of `r` recordings, `k` classes.

    Attributes:
        unit_ids: `[n]`, in the order in which the units first appear.
        classes: names of the `k` classes, the task's order.
        probabilities: `[n, k]`, uncalibrated; what the decision rule looks at.
        calibrated: `[n, k]`, what to show as confidence; never what decides.
        decisions: `[n]` integers, index into `classes`.
        recording_probabilities: `[r, k]`, what each recording alone says, in the order given.
        refer_below: decisions that are less sure than this are left to a human.
    """

    unit_ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    calibrated: NDArray[np.float64]
    decisions: NDArray[np.int64]
    recording_probabilities: NDArray[np.float64]
    refer_below: float = 0.0

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Calibrated probability of each decision: `[n]`."""
        return self.calibrated[np.arange(len(self.decisions)), self.decisions]

    @property
    def top_classes(self) -> list[str]:
        """The class decided for, however unsure: `[n]`."""
        return [self.classes[decision] for decision in self.decisions]

    @property
    def verdicts(self) -> list[str]:
        """The same with `REFER` in the place of decisions that are not sure enough: `[n]`."""
        return [REFER if unsure else said
                for said, unsure in zip(self.top_classes, self.confidence < self.refer_below, strict=True)]


@dataclass(frozen=True)
class Model:
    """A fitted ensemble of one task.

    Attributes:
        assignment_name: `circor-murmur`; the registered model's name.
        members: trial -> fitted member.
        encoder_specs: encoder -> what made its frames (`heartml.models.encoders.Spec` as JSON, `frame_rate_hz`, `dim`).
        refer_below: see `Predictions`; 0 for models that were saved before there was one: they refer nothing.
    """

    assignment_name: str
    members: Mapping[int, Member]
    combination: FittedEnsemble
    encoder_specs: Mapping[str, Mapping[str, Any]]
    refer_below: float = 0.0

    @property
    def task(self) -> Task:
        """What is predicted."""
        return resolve(self.assignment_name).task

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of the encoders whose frames `predict` needs."""
        return tuple(sorted(self.encoder_specs))

    @classmethod
    def assemble(
        cls, name: str, specs: Mapping[int, CandidateSpec], heads: Mapping[int, Sequence[HeadState]],
                 combination: FittedEnsemble,
        encoder_specs: Mapping[str, Mapping[str, Any]], refer_below: float = 0.0,
    ) -> Self:
        """A model from saved heads: what is used after loading is what is used before saving."""
        members = {t: Member(s, tuple(s.family.load(state) for state in heads[t])) for t, s in specs.items()}
        return cls(name, members, combination, encoder_specs, refer_below)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote.

        Raises:
            ModelError: the folder holds no model, or one of another format.
        """
        from safetensors.numpy import load_file

        if not (folder / "model.json").exists():
            raise ModelError(f"{folder}: no model here (no model.json). Run `heartml retrain`.")
        try:
            told = read_json(folder / "model.json")
            if told.get("format") != FORMAT:
                raise ModelError(f"{folder}: model format {told.get('format')}, this version reads {FORMAT}. Retrain.")
            arrays = load_file(folder / "model.safetensors")
            specs = {entry["trial"]: CandidateSpec.from_json(entry) for entry in told["members"]}
            heads = {entry["trial"]: [_head(folder, arrays, int(entry["trial"]), n, numbers)
                                      for n, numbers in enumerate(entry["heads"])] for entry in told["members"]}
            return cls.assemble(told["assignment"], specs, heads, _combination(told, arrays), told["encoders"],
                                float(told.get("refer_below", 0.0)))
        except HeartMLError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the libraries say of damaged or foreign files
            raise ModelError(f"{folder}: its files are damaged or no model of HeartML ({type(error).__name__}: "
                             f"{str(error)[:200]}). Retrain, or fetch it again.") from None

    def save(self, folder: Path) -> None:
        """Write into the existing, empty `folder`; the same model gives the same bytes."""
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
        arrays |= _combination_arrays(self.combination)
        with replacing(folder / "model.safetensors") as file:
            file.write_bytes(save({key: np.ascontiguousarray(array) for key, array in arrays.items()}))
        write_json(folder / "model.json", {
            "format": FORMAT, "assignment": self.assignment_name, "task": self.task.name,
            "classes": self.task.classes, "unit": self.task.unit, "encoders": self.encoder_specs, "members": members,
            "refer_below": self.refer_below, **_combination_numbers(self.combination),
        })

    def predict(self, frames: Mapping[str, Sequence[NDArray[np.float32]]], unit_of: Sequence[str]) -> Predictions:
        """Frames of every recording under each of `encoders`, and the unit that each recording belongs to.

        Raises:
            ModelError: no recordings, frames and units do not match, or two recordings share a unit although the task's
                unit is the recording.
        """
        if not unit_of or any(len(frames[encoder]) != len(unit_of) for encoder in self.encoders):
            raise ModelError(f"{len(unit_of)} recordings: frames of each encoder and one unit for each are needed")
        return self.predict_shared(SharedInputs.of_frames(frames, self.encoder_specs, unit_of))

    def predict_audio(self, waveforms: Sequence[RatedWaveform], unit_of: Sequence[str]) -> Predictions:
        """`(samples in [-1, 1], sample_rate_hz)` of every recording, and its unit; everything else is in the model."""
        return self.predict_shared(SharedInputs(waveforms, unit_of))

    def predict_shared(self, shared: SharedInputs) -> Predictions:
        """The same for recordings that other models hear as well: what these have made of them is not made again.

        Raises:
            ModelError: no recordings, or two share a unit although the task's unit is the recording.
        """
        if not shared.unit_of:
            raise ModelError(f"{self.assignment_name}: no recordings to judge")
        if self.task.unit == "recording" and len(shared.unit_ids) < len(shared.unit_of):
            raise ModelError(f"{self.assignment_name} judges recordings one by one: each needs a unit of its own")
        feature_set = shared.feature_set(self.encoder_specs)
        predictions = {trial: member.predict_proba(feature_set) for trial, member in self.members.items()}
        seen = {r: stacking_features(r.kind, prediction_of(r, predictions),
                                     feature_set.unit) for r in self.combination.weights}
        said = predict_proba(self.combination, seen)
        return Predictions(shared.unit_ids, self.task.classes, np.exp(said.log_p), said.calibrated, said.decisions,
                           np.exp(self._alone(predictions, feature_set)), self.refer_below)

    def _alone(self, predictions: Mapping[int, HeadPrediction], feature_set: FeatureSet) -> NDArray[np.float64]:
        """Log-probabilities of each recording `[r, k]`: the members that hear recordings, by their weights.

        Where no member does, each recording is taken for a unit of its own.
        """
        weights = {r: w for r, w in self.combination.weights.items() if self._hears(r)}
        if weights:
            return mean_log_p({r: prediction_of(r, predictions).log_p for r in weights}, weights)
        each = feature_set.one_unit_each()
        apart = {trial: member.predict_proba(each) for trial, member in self.members.items()}
        views = self.combination.weights
        return self.combination.log_p({r: stacking_features(r.kind, prediction_of(r, apart), each.unit) for r in views})

    def heart_states(self, frames: Mapping[str, NDArray[np.float32]], seconds: float) -> Segmentation | None:
        """Heart states of one recording, by the first network that learnt them; `None` where none did.

        Args:
            frames: encoder -> `[frames, dim]`; they lie in the middle of the recording's `seconds`.
        """
        for member in self.members.values():
            head, own = member.heads[0], member.spec.encoder
            said = head.frame_posteriors(frames[own]) if isinstance(head, SegmentsHeartStates) else None
            if said is not None:
                rate_hz = float(self.encoder_specs[own]["frame_rate_hz"])
                return decode(said, rate_hz / 2, (seconds - (len(frames[own]) - 1) / rate_hz) / 2)
        return None

    def heart_states_of(self, shared: SharedInputs, seconds: Sequence[float]) -> list[Segmentation | None]:
        """Heart states of every recording of `seconds` that is heard."""
        frames = shared.feature_set(self.encoder_specs).frames
        return [self.heart_states({name: of[n] for name, of in frames.items()}, s) for n, s in enumerate(seconds)]

    def _hears(self, view: StackingView) -> bool:
        return self.members[view.trials[0]].spec.level == "recording"


def _head(
    folder: Path, arrays: Mapping[str, NDArray[np.generic]], trial: int, n: int, numbers: Mapping[str, object]
) -> HeadState:
    prefix = f"{trial}-{n}."
    own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
    texts = {path.name.removeprefix(prefix): path.read_text(encoding="utf-8") for path in folder.glob(f"{prefix}*.txt")}
    return HeadState(own, numbers, texts)


def _combination_numbers(combination: FittedEnsemble) -> dict[str, Any]:
    views = [{"trials": r.trials, "kind": r.kind, "weight": w} for r, w in combination.weights.items()]
    calibration = combination.calibration
    return {"readings": views, "rule": {"biases": combination.rule.biases},
            "calibration": {"scale": calibration.scale, "biases": calibration.biases}}


def _combination_arrays(combination: FittedEnsemble) -> dict[str, NDArray[np.generic]]:
    return {f"reader-{view}.{key}": array
            for view, stacker in combination.stackers.items() for key, array in stacker.arrays().items()}


def _combination(told: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> FittedEnsemble:
    weights = {StackingView(tuple(entry["trials"]),
                            entry["kind"]): float(entry["weight"]) for entry in told["readings"]}
    stackers = {}
    for view in weights:
        prefix = f"reader-{view}."
        own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        stackers[view] = Stacker.from_arrays(own)
    calibration = Calibration(float(told["calibration"]["scale"]), np.array(told["calibration"]["biases"]))
    return FittedEnsemble(weights, stackers, Rule(np.array(told["rule"]["biases"])), calibration)
