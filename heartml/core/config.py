"""`params.yaml`, read once into frozen, typed sections. A function takes its own section, never all of them.

What each key means is written beside it in `params.yaml`.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from heartml.core import paths
from heartml.core.system import untrusted
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import replacing
from heartml.core.task_definition import HEART, Organ

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Band = tuple[Positive, Positive]
Perturbation = Literal["white_snr_db", "room_snr_db", "speech_snr_db", "friction_snr_db", "lowpass_hz", "highpass_hz",
                       "gain_db", "clipped_share", "clock_share"]


class ParamsError(HeartMLError):
    """`params.yaml` cannot be used; the message names the key and what is allowed there."""


class Section(BaseModel):
    """A part of `params.yaml`: frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnySection = TypeVar("AnySection", bound=Section)


class SimulateParams(Section):
    children: Count
    seed: Annotated[int, Field(ge=0)]
    seconds: Positive


def _merged(values: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the keys of `own` replaced; a mapping replaces only the keys that it has."""
    nested = {key: _merged(values[key], value) for key, value in own.items()
              if isinstance(value, dict) and isinstance(values.get(key), dict)}
    return {**values, **own, **nested}


class PerTask(Section):
    """A section whose keys may be replaced for some tasks, under `tasks.<task>.<key>`, nested keys one by one.

    `<task>` may have wildcards, `"*-systolic_*"`. Where several patterns match a task, the later one wins.
    """

    tasks: dict[str, dict[str, Any]] = {}

    def for_task(self, task: str) -> Self:
        """The section with the values for `task`, its full name."""
        values = self.model_dump(exclude={"tasks"})
        for pattern, own in self.tasks.items():
            if fnmatchcase(task, pattern):
                values = _merged(values, own)
        return type(self).model_validate(values)

    @model_validator(mode="after")
    def _every_task_is_valid(self) -> Self:
        for task in self.tasks:
            self.for_task(task)
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
    folds: Annotated[int, Field(ge=3)]     # one is predicted, and stacking is fitted out-of-fold on at least two others
    test_share: Annotated[float, Field(gt=0, lt=1)]
    published: Path | None


class AudioParams(Section):
    sample_rate_hz: Count
    highpass_hz: Positive
    resample_filter_width: Count


class OrganParams(Section):
    """What differs between organs; the sections replace keys of the sections of the same names, for its tasks."""

    SECTIONS: ClassVar[tuple[str, ...]] = ("audio", "encoder_parameters", "robustness", "validate_")

    band_hz: Band
    muffled_hz: Band
    thin_hz: Band
    audio: dict[str, Any] = {}
    encoder_parameters: dict[str, dict[str, Any]] = {}
    robustness: dict[str, Any] = {}
    validate_: Annotated[dict[str, Any], Field(alias="validate")] = {}

    @model_validator(mode="after")
    def _bands_are_in_order(self) -> Self:
        for key in ("band_hz", "muffled_hz", "thin_hz"):
            low_hz, high_hz = getattr(self, key)
            if low_hz >= high_hz:
                raise ValueError(f"{key}: the first does not lie below the second")
        return self


# Of a params.yaml without `organs`, as of versions registered before there were others.
ONLY_HEARTS: Mapping[Organ, OrganParams] = {
    HEART: OrganParams(band_hz=(25, 800), muffled_hz=(110, 280), thin_hz=(100, 250))}


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


class InitialTrialParams(Section):
    """A trial that the search tries first, one line of `key=value` in `params.yaml`.

    Keys other than encoder, level, pooling and head are hyperparameters of the head.
    """

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
    most_recordings: dict[str, Count] = {}      # not in the params.yaml of versions registered before it
    poolings: dict[str, tuple[str, ...]]
    training: TrainingParams
    network_parameters: dict[str, dict[str, Any]]     # checked by the heads themselves, see heartml/models/heads
    initial_trials: tuple[InitialTrialParams, ...]


class StackingTreesParams(Section):
    from_units: Count
    trees: Count
    leaves: Annotated[int, Field(ge=2)]
    rate: Positive
    columns: Annotated[float, Field(gt=0, le=1)]
    least_cases: Count


class StackingParams(Section):
    stack_c: Positive
    segments_c: Positive
    rule_temperature: Positive
    rule_ridge: Positive
    calibration_ridge: Positive
    trees: StackingTreesParams | None = None     # not in the params.yaml of versions registered before it


class ProtocolParams(Section):
    inner_folds: Annotated[int, Field(ge=2)]
    networks: Count
    epochs: Count


class DecisionParams(PerTask):
    refer_below: Share


class ApplicabilityParams(Section):
    referred_share: Annotated[float, Field(gt=0, lt=0.5)]
    made_up_sounds: Count
    simulated_children: Count
    trees: Count


class EnsembleParams(PerTask):
    rounds: Count
    max_members: Count


class EvaluateParams(Section):
    bootstrap: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    baselines: tuple[Literal["majority", "source", "metadata", "nuisance"], ...]
    confounded_auc: Annotated[float, Field(ge=0.5, le=1)]


class MaskedParams(Section):
    steps: Count
    share: Annotated[float, Field(gt=0, lt=1)]
    momentum: Share
    predictor_depth: Count


class ContrastiveParams(Section):
    steps: Count
    batch: Annotated[int, Field(ge=2)]     # a view is told from those of other recordings
    window_s: Positive
    crop_s: Positive
    temperature: Positive
    projection: Count


class VitParams(Section):
    input_size: tuple[Count, Count]
    patch_size: tuple[Count, Count]
    width: Annotated[int, Field(ge=4, multiple_of=4)]     # positions are sines and cosines of rows and of columns
    depth: Count
    heads: Count
    batch: Annotated[int, Field(ge=2)]
    rate: Positive
    weight_decay: Annotated[float, Field(ge=0)]
    general_share: Annotated[float, Field(ge=0, lt=1)]
    general_hours: Positive
    snapshots: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    mixed_precision: Literal["auto", "never"]
    masked: MaskedParams
    contrastive: ContrastiveParams
    supervised_steps: Count

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if any(whole < part for whole, part in zip(self.input_size, self.patch_size, strict=True)):
            raise ValueError("input_size: no patch of patch_size fits into it")
        if self.width % self.heads:
            raise ValueError(f"heads: {self.width} channels cannot be divided among {self.heads}")
        if self.contrastive.crop_s > self.contrastive.window_s:
            raise ValueError("contrastive.crop_s lies above window_s")
        return self


class PretrainParams(Section):
    enabled: tuple[Literal["heart"], ...]
    leave_out: Literal["scored", "held_out"]
    simulated_children: Annotated[int, Field(ge=0)]
    simulated_share: Share
    channels: Count
    dropout: Annotated[float, Field(ge=0, lt=1)]
    steps: Count
    batch: Annotated[int, Field(ge=2)]     # batch norm needs two recordings
    rate: Positive
    frame_weight: Annotated[float, Field(ge=0)]
    other_weight: Annotated[float, Field(ge=0)]
    checkpoint_s: Positive
    seed: Annotated[int, Field(ge=0)]
    vit: VitParams | None = None           # not in the params.yaml of versions registered before it


class RobustnessParams(Section):
    max_recordings: Count
    conditions: dict[Perturbation, tuple[float, ...]]


class PredictParams(Section):
    least_confidence: Share
    loudest_lead: Share
    cautioned_model: Literal["warn", "refuse"] = "warn"     # not in the params.yaml of versions registered before it
    accepted_sources: tuple[str, ...] = ()                  # nor is this


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
    # The next four are not in the params.yaml of versions registered before them.
    policy: Literal["better", "not_worse"] = "better"
    metric_margin: Share = 0.05
    log_loss_margin: Annotated[float, Field(ge=0)] = 0.05
    first_model: Literal["certain", "value"] = "certain"


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
    organs: Mapping[Organ, OrganParams] = ONLY_HEARTS
    encoder_parameters: dict[str, dict[str, Any]]     # checked by the encoders themselves, see heartml/models/encoders
    pretrain: PretrainParams | None = None     # not in the params.yaml of versions registered before it
    search: SearchParams
    stacking: StackingParams
    protocol: ProtocolParams
    decision: DecisionParams
    applicability: ApplicabilityParams | None = None     # not in the params.yaml of versions registered before it
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

    def organ(self, organ: Organ) -> OrganParams:
        """What differs for the tasks of an organ.

        Raises:
            ParamsError: there is no section for it.
        """
        if organ not in self.organs:
            raise ParamsError(f"{paths.PARAMS}: no section organs.{organ}, which a task about the {organ} needs; "
                              "docs/settings.md has one to copy")
        return self.organs[organ]

    def for_organ(self, organ: Organ) -> Self:
        """The parameters for a task of this organ, with what its section replaces.

        Raises:
            ParamsError: there is no section for it.
        """
        return self.model_copy(update=self._replaced(self.organ(organ)))

    def _replaced(self, organ: OrganParams) -> dict[str, Any]:
        """Field -> the section with what the organ replaces in it; sections that it leaves alone are not there."""
        found: dict[str, Any] = {}
        for field, own in ((field, getattr(organ, field)) for field in OrganParams.SECTIONS):
            current = getattr(self, field)
            if own and isinstance(current, Section):
                found[field] = type(current).model_validate(_merged(current.model_dump(), own))
            elif own:
                found[field] = _merged(current, own)
        return found

    @model_validator(mode="after")
    def _every_organ_is_valid(self) -> Self:
        for name, organ in self.organs.items():
            self._replaced(organ)
            for encoder, own in organ.encoder_parameters.items():
                if encoder not in self.encoder_parameters and "kind" not in own:
                    raise ValueError(f"organs.{name}.encoder_parameters: `encoder_parameters` has no {encoder}")
        return self


def load(path: Path = paths.PARAMS) -> Params:
    """Read the parameters.

    Raises:
        ParamsError: the file is missing or is not YAML, or a key is unknown, missing or out of range.
    """
    try:
        if not untrusted.is_file(path):
            raise ParamsError(f"{path}: not found. Run heartml in the root of the repository.")
        return _parsed(untrusted.read_text(path, max_bytes=untrusted.MAX_YAML_BYTES))
    except untrusted.DocumentError as error:
        raise ParamsError(f"{path}: {error}") from None
    except ValidationError as error:
        raise ParamsError(f"{path}: {_describe(error)}") from None


@lru_cache(maxsize=4)      # a command asks several times
def _parsed(text: str) -> Params:
    values = untrusted.parse_yaml(text, yaml.SafeLoader)
    if not isinstance(values, dict):
        raise untrusted.DocumentError(f"no sections in it. Bring it back: `git checkout {paths.PARAMS}`")
    return Params.model_validate(migrate_keys(values))


def validate_section(kind: type[AnySection], values: Mapping[str, Any], where: str) -> AnySection:
    """Check the parameters of one member of a family, for instance of one encoder.

    Args:
        kind: the section's class.
        values: what is in `params.yaml`.
        where: the section's place there, `encoder_parameters.logspec`; error messages begin with it.

    Raises:
        ParamsError: a key is unknown, missing or out of range.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ParamsError(f"{paths.PARAMS}: {_describe(error, where)}") from None


def _describe(error: ValidationError, where: str = "") -> str:
    """The first five faults: `search.trials: Input should be greater than or equal to 1; ...`."""
    faults = [(".".join([*([where] if where else []), *map(str, e["loc"])]), e["msg"]) for e in error.errors()[:5]]
    return "; ".join(f"{place}: {message}" for place, message in faults)[:1000]


def migrate_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a `params.yaml` with keys of version 0.1 renamed or moved to their present place.

    Parameters that were registered with a model, or a user's own, may still have the old keys.
    """
    whole = _move_into(values, "encoder_parameters", ("logspec", "random_conv", "amplitude"))
    search = _migrate_search(whole.get("search"))
    if isinstance(search, dict) and isinstance(search.get("tasks"), dict):
        search["tasks"] = {task: _migrate_search(own) for task, own in search["tasks"].items()}
    evaluate = _rename(whole.get("evaluate"), "floors", "baselines")
    return {**whole, **({"search": search} if search else {}), **({"evaluate": evaluate} if evaluate else {})}


def _migrate_search(section: Any) -> Any:
    if not isinstance(section, dict):
        return section
    moved = _move_into(section, "network_parameters", ("sequence", "resnet", "fcnn"))
    return _rename(moved, "starts", "initial_trials")


def _move_into(section: Mapping[str, Any], key: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The section with its keys `names` moved below `key`."""
    moved = {name: section[name] for name in names if name in section}
    rest = {name: value for name, value in section.items() if name not in moved}
    return {**rest, key: {**moved, **rest.get(key, {})}} if moved else rest


def _rename(section: Any, old: str, new: str) -> Any:
    if not isinstance(section, dict) or old not in section or new in section:
        return section
    return {new if key == old else key: value for key, value in section.items()}


def set_tasks(tasks: tuple[str, ...], path: Path = paths.PARAMS) -> None:
    """Replace the value of `tasks` in `params.yaml`. Every other character stays, comments too.

    Raises:
        ParamsError: the file would not be valid afterwards; it is not changed.
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
