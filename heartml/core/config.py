"""`params.yaml`, read once into frozen, typed sections. A function takes its own section, never all of them."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from heartml.core import paths
from heartml.core.system import untrusted
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import replacing

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Perturbation = Literal["white_snr_db", "room_snr_db", "speech_snr_db", "friction_snr_db", "lowpass_hz", "highpass_hz",
                       "gain_db", "clipped_share", "clock_share"]


class ParamsError(HeartMLError):
    """`params.yaml` cannot be used; the message names the key and what is allowed there."""


class Section(BaseModel):
    """A part of `params.yaml`: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SimulateParams(Section):
    children: Count
    seed: Annotated[int, Field(ge=0)]
    seconds: Positive


def _merged(values: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the keys of `own` in their place; a mapping replaces only the keys it has."""
    nested = {key: _merged(values[key], value) for key, value in own.items()
              if isinstance(value, dict) and isinstance(values.get(key), dict)}
    return {**values, **own, **nested}


class PerTask(Section):
    """A section whose keys may be replaced for some tasks, under `tasks.<task>.<key>`, nested keys one by one.

    `<task>` may hold wildcards, `"*-systolic_*"`; where several fit a task, the later one has the last word.
    """

    tasks: dict[str, dict[str, Any]] = {}

    def of(self, task: str) -> Self:
        """The section as it is for `task`."""
        values = self.model_dump(exclude={"tasks"})
        for pattern, own in self.tasks.items():
            if fnmatchcase(task, pattern):
                values = _merged(values, own)
        return type(self).model_validate(values)

    @model_validator(mode="after")
    def _every_task_is_valid(self) -> Self:
        for task in self.tasks:
            self.of(task)
        return self


class IngestParams(Section):
    min_seconds: Positive
    silence_peak: Share
    duplicate_correlation: Share


class ValidateParams(Section):
    short_seconds: Positive
    quiet_peak: Share
    clipped_share: Share
    dc_offset: Share
    bandwidth_hz: Positive
    contrast_db: Annotated[float, Field(ge=0)]
    near_duplicate_correlation: Share
    min_class_groups: Count


class SplitParams(PerTask):
    folds: Annotated[int, Field(ge=3)]     # one is answered for, and stacking is cross-fitted on the rest
    test_share: Annotated[float, Field(gt=0, lt=1)]
    published: Path | None


class AudioParams(Section):
    sample_rate_hz: Count
    highpass_hz: Positive
    resample_filter_width: Count


class LogspecParams(Section):
    bands: Annotated[int, Field(ge=2)]
    low_hz: Positive
    high_hz: Positive
    window_s: Positive
    hop_s: Positive

    @model_validator(mode="after")
    def _bands_are_in_order(self) -> Self:
        if self.low_hz >= self.high_hz:
            raise ValueError("low_hz does not lie below high_hz")
        return self


class RandomConvParams(Section):
    channels: Count
    seed: int


class AmplitudeParams(Section):
    window_s: Positive
    hop_s: Positive


class TrainingParams(Section):
    chunk_s: Positive
    inference_chunk_s: Positive | None
    noise_share: Share
    noise_snr_low_db: float
    noise_snr_high_db: float
    mixup: Annotated[float, Field(ge=0)]
    loss: Literal["cross_entropy", "focal"]
    focal_gamma: Annotated[float, Field(ge=0)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    class_weight_power: Share
    optimiser: Literal["adamw", "adam", "sgd"]
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["one_cycle", "cosine", "constant"]
    warmup_share: Annotated[float, Field(ge=0, lt=1)]
    gradient_clip: Positive | None
    accumulation: Count
    mixed_precision: Literal["auto", "never"]

    @model_validator(mode="after")
    def _ratios_are_in_order(self) -> Self:
        if self.noise_snr_low_db > self.noise_snr_high_db:
            raise ValueError("noise_snr_low_db lies above noise_snr_high_db")
        return self


class NetworkParams(Section):
    """What a head that takes frames is trained on, how long, and the keys of `search.training` that it replaces."""

    encoders: Annotated[tuple[str, ...], Field(min_length=1)]
    steps: Count
    batch: Annotated[int, Field(ge=2)]     # a batch norm of one recording is nothing
    training: dict[str, Any] = {}


class SequenceParams(NetworkParams):
    channels: Count


class ResnetParams(NetworkParams):
    backbone: str
    pooling: Literal["avg", "max", "attention"]
    weights: str | None
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None

    @model_validator(mode="after")
    def _weights_are_known_by_content(self) -> Self:
        if (self.weights is None) != (self.weights_sha256 is None):
            raise ValueError("weights and weights_sha256 (of that file) belong together")
        return self


class FcnnParams(NetworkParams):
    pass


class InitialTrialParams(Section):
    """A trial to begin with, one line of `key=value` in `params.yaml`; what is no field is a number of its head."""

    encoder: str
    level: Literal["recording", "unit"]
    pooling: str | None
    head: str
    hyperparameters: dict[str, float | int]

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        words = dict(_assignment(word) for word in value.split())
        named = {key: words.pop(key) for key in ("encoder", "level", "pooling", "head") if key in words}
        return {"pooling": None, **named, "hyperparameters": {key: _number(key, text) for key, text in words.items()}}


def _assignment(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not (key and equals and value):
        raise ValueError(f"{word!r} is no key=value")
    return key, value


def _number(key: str, text: str) -> float | int:
    try:
        return int(text) if text.removeprefix("-").isdecimal() else float(text)
    except ValueError:
        raise ValueError(f"{key}={text} is no number (known besides numbers: encoder, level, pooling, head)") from None


class SearchParams(PerTask):
    trials: Count
    network_trials: dict[str, Annotated[int, Field(ge=0)]]
    batch: Count
    workers: Annotated[int, Field(ge=0)]
    pruning_startup_trials: Count
    heads: Annotated[tuple[str, ...], Field(min_length=1)]
    poolings: dict[str, tuple[str, ...]]
    training: TrainingParams
    sequence: SequenceParams
    resnet: ResnetParams
    fcnn: FcnnParams
    starts: tuple[InitialTrialParams, ...]

    def network(self, head: str) -> NetworkParams:
        """The section of a head that takes frames."""
        return cast(NetworkParams, getattr(self, head))

    def training_of(self, head: str) -> TrainingParams:
        """`training` with the keys in their place that the head replaces."""
        return TrainingParams.model_validate({**self.training.model_dump(), **self.network(head).training})

    @model_validator(mode="after")
    def _every_network_can_be_trained(self) -> Self:
        for name, kind in type(self).model_fields.items():
            if isinstance(kind.annotation, type) and issubclass(kind.annotation, NetworkParams):
                training = self.training_of(name)
                if training.noise_share and set(self.network(name).encoders) != {"logspec"}:
                    raise ValueError(f"noise_share: {name} does not hear logspec alone, whose powers noise is added "
                                     f"to. Set {name}.training to {{noise_share: 0.0}}")
        return self


class StackingParams(Section):
    stack_c: Positive
    segments_c: Positive
    rule_temperature: Positive
    rule_ridge: Positive
    calibration_ridge: Positive


class ProtocolParams(Section):
    inner_folds: Annotated[int, Field(ge=2)]
    networks: Count
    epochs: Count


class DecisionParams(PerTask):
    refer_below: Share


class EnsembleParams(PerTask):
    rounds: Count
    max_members: Count


class EvaluateParams(Section):
    bootstrap: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    floors: tuple[Literal["majority", "source", "metadata", "nuisance"], ...]
    confounded_auc: Annotated[float, Field(ge=0.5, le=1)]


class RobustnessParams(Section):
    max_recordings: Count
    conditions: dict[Perturbation, tuple[float, ...]]


class PredictParams(Section):
    least_confidence: Share
    loudest_lead: Share


class ReportParams(Section):
    worst_errors: Annotated[int, Field(ge=0)]


class GateParams(Section):
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    bootstrap: Annotated[int, Field(ge=100)]
    min_groups: Count
    subgroup_margin: Share
    min_subgroup_groups: Count
    calibration_margin: Share
    calibration_limit: Share
    catch_up_recordings: Annotated[int, Field(ge=0)]


class SigningParams(Section):
    required: bool


class AuditParams(Section):
    tolerance: Positive


class MonitorParams(Section):
    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    effect: Share
    embedding_auc: Annotated[float, Field(ge=0.5, le=1)]
    min_groups: Annotated[int, Field(ge=5)]
    most_groups: Count
    permutations: Annotated[int, Field(ge=99)]


class FlowParams(Section):
    stages_at_once: Count
    stage_retry_delays_s: tuple[Annotated[float, Field(ge=0)], ...]
    network_retry_delays_s: tuple[Annotated[float, Field(ge=0)], ...]
    stage_timeout_s: Positive
    ingest_timeout_s: Positive


class Params(Section):
    """All of `params.yaml`."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    encoders: Annotated[tuple[str, ...], Field(min_length=1)]
    seed: int
    simulate: SimulateParams
    ingest: IngestParams
    validate_: Annotated[ValidateParams, Field(alias="validate")]
    split: SplitParams
    audio: AudioParams
    logspec: LogspecParams
    random_conv: RandomConvParams
    amplitude: AmplitudeParams
    search: SearchParams
    stacking: StackingParams
    protocol: ProtocolParams
    decision: DecisionParams
    ensemble: EnsembleParams
    evaluate: EvaluateParams
    robustness: RobustnessParams
    report: ReportParams
    predict: PredictParams
    gate: GateParams
    signing: SigningParams
    audit: AuditParams
    monitor: MonitorParams
    flow: FlowParams

    @model_validator(mode="after")
    def _frames_fit_the_rate(self) -> Self:
        rate_hz = self.audio.sample_rate_hz
        if 2 * self.logspec.high_hz > rate_hz:
            raise ValueError(f"logspec.high_hz: {self.logspec.high_hz:g} lies above half of audio.sample_rate_hz")
        for name, encoder in (("logspec", self.logspec), ("amplitude", self.amplitude)):
            if round(encoder.hop_s * rate_hz) < 1 or round(encoder.window_s * rate_hz) < 1:
                raise ValueError(f"{name}: hop_s or window_s is too short for audio.sample_rate_hz: less than a sample")
        return self


def load(path: Path = paths.PARAMS) -> Params:
    """Read the parameters.

    Raises:
        ParamsError: the file is missing, is no YAML, or a key is unknown, missing or out of range.
    """
    try:
        if not untrusted.is_file(path):
            raise ParamsError(f"{path}: not found. Run heartml in the root of the repository.")
        values = untrusted.yaml_of(untrusted.text(path, most_bytes=untrusted.MOST_YAML_BYTES), yaml.SafeLoader)
        if not isinstance(values, dict):
            raise ParamsError(f"{path}: no sections in it. Bring it back: `git checkout {path}`")
        return Params.model_validate(values)
    except untrusted.DocumentError as error:
        raise ParamsError(f"{path}: {error}") from None
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]]
        raise ParamsError(f"{path}: " + "; ".join(lines)[:1000]) from None


def set_tasks(tasks: tuple[str, ...], path: Path = paths.PARAMS) -> None:
    """Replace the value of `tasks` in `params.yaml`; every other character, comments too, stays as it is.

    Raises:
        ParamsError: the file would not be valid afterwards; it is left alone.
    """
    text = path.read_text(encoding="utf-8")
    document = yaml.compose(text, Loader=yaml.SafeLoader)
    value = next((v for k, v in document.value if k.value == "tasks"), None) if document else None
    if value is None:
        raise ParamsError(f"{path}: no key tasks")
    before, old, after = text[: value.start_mark.index], text[: value.end_mark.index], text[value.end_mark.index :]
    new = f"[{', '.join(tasks)}]"
    if old.endswith("\n"):      # a list written over several lines ends where the next key begins
        before, new = f"{before.rstrip()} ", f"{new}\n"
    with replacing(path) as temporary:
        temporary.write_text(before + new + after, encoding="utf-8")
        if load(temporary).tasks != tasks:
            raise ParamsError(f"{path}: write `tasks: [{', '.join(tasks)}]` there by hand")
