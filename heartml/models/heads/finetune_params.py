"""Parameters of the head `finetune`, and named recipes that stand for several of them.

A user writes `finetune: {encoders: [...], recipe: m2d_circor}` under `search.network_parameters`. What else is written
there replaces the recipe's own value, key by key, also under `training`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from heartml.core.config import Count, Positive, Share
from heartml.models.heads.network_params import NetworkParams

_WHOLE: dict[str, Any] = {      # what the recipes have in common: no change of the sound, no noise, one pass a batch
    "frozen_layers": 0, "layer_decay": 1.0, "lora_rank": 0, "lora_alpha": 16, "mask_bands": 0, "mask_frames": 0,
    "from_scratch": False, "check_memory": True, "validation_share": 0.15,
}
_CIRCOR_TRAINING: dict[str, Any] = {
    "chunk_s": 5.0, "inference_chunk_s": 5.0, "noise_share": 0.0, "mixup": 0.0, "loss": "cross_entropy",
    "label_smoothing": 0.0, "class_weight_power": 1.0, "optimiser": "sgd", "sgd_momentum": 0.9, "weight_decay": 0.0,
    "schedule": "cosine", "warmup_share": 0.1, "gradient_clip": None, "accumulation": 1, "mixed_precision": "auto",
}
_CIRCOR: dict[str, Any] = {**_WHOLE, "epochs": 50, "least_rate": 1e-7, "choose_by": "accuracy",
                           "training": _CIRCOR_TRAINING}
RECIPES: dict[str, dict[str, Any]] = {
    # Niizumi et al., 2024 (arXiv 2404.17107): what the study does with M2D, and with AST beside it
    "m2d_circor": {**_CIRCOR, "rate": 2.5e-4, "batch": 32, "frozen_layers": 1},
    "ast_circor": {**_CIRCOR, "rate": 3e-5, "batch": 64, "mask_bands": 40, "mask_frames": 100},
    # ours, for the transformer of `heartml pretrain`, on a CPU (docs/experiments.md)
    "small_vit": {
        **_WHOLE, "epochs": 24, "least_rate": 1e-6, "choose_by": "last", "rate": 1e-3, "batch": 16,
        "layer_decay": 0.85, "mask_bands": 6, "mask_frames": 30,
        "training": {**_CIRCOR_TRAINING, "chunk_s": 3.0, "inference_chunk_s": 3.0, "optimiser": "adamw",
                     "weight_decay": 0.05, "label_smoothing": 0.05, "class_weight_power": 0.5, "gradient_clip": 5.0},
    },
}


class FinetuneParams(NetworkParams):
    """How an encoder and its head are trained together.

    Attributes:
        recipe: a name in `RECIPES`; `None`: everything is written out.
        epochs, steps: passes over the training cases, or steps of the optimiser; one of them.
        rate: learning rate of the head. `None`: the search draws it.
        least_rate: where the schedule ends.
        frozen_layers: how many layers stay as they are, counted from the input: 1 is what embeds patches.
        layer_decay: a layer learns this much slower than the next one (Clark et al., 2020); 1: all alike.
        lora_rank: rank of adapters beside frozen weights (Hu et al., 2021); 0: none, the weights themselves learn.
        lora_alpha: their scale is `lora_alpha / lora_rank`.
        mask_bands, mask_frames: widest mask in frequency and in time (SpecAugment); 0: none.
        choose_by: which epoch is kept: the best on validation cases by `accuracy` or `log_loss`, or the `last`.
        validation_share: of the groups, which are then not trained on; not used by `last`.
        from_scratch: random weights of the same shape, the control for pre-training.
        check_memory: whether a training is refused that needs more memory than is free.
    """

    recipe: str | None = None
    epochs: Count | None = None
    steps: Count | None = None
    rate: Positive | None = None
    least_rate: Annotated[float, Field(ge=0)]
    frozen_layers: Annotated[int, Field(ge=0)]
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    lora_rank: Annotated[int, Field(ge=0)]
    lora_alpha: Count
    mask_bands: Annotated[int, Field(ge=0)]
    mask_frames: Annotated[int, Field(ge=0)]
    choose_by: Literal["accuracy", "log_loss", "last"]
    validation_share: Share
    from_scratch: bool
    check_memory: bool

    @model_validator(mode="before")
    @classmethod
    def _recipe_first(cls, value: Any) -> Any:
        name = value.get("recipe") if isinstance(value, Mapping) else None
        if name is None:
            return value
        if not isinstance(name, str) or name not in RECIPES:
            raise ValueError(f"recipe: {name!r} is none of {', '.join(RECIPES)}")
        if not isinstance(value.get("training", {}), Mapping):
            raise ValueError("training: write keys and values below it, or leave it out")
        known = RECIPES[name]
        if "steps" in value:
            known = {key: own for key, own in known.items() if key != "epochs"}
        return {**known, **value, "training": {**known["training"], **value.get("training", {})}}

    @model_validator(mode="after")
    def _how_long_is_said_once(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("epochs or steps: write one of them")
        if self.from_scratch and self.lora_rank:
            raise ValueError("from_scratch: adapters beside random weights learn little; set lora_rank to 0")
        if self.rate is not None and self.least_rate > self.rate:
            raise ValueError(f"least_rate: {self.least_rate:g} is above the rate {self.rate:g}, which the "
                             "schedule begins with")
        if self.choose_by != "last" and not 0 < self.validation_share < 1:
            raise ValueError("validation_share: between 0 and 1 where an epoch is chosen by it")
        return self

    def check(self) -> None:
        """See `NetworkParams.check`: adapters need a library that is optional."""
        if self.lora_rank:
            from heartml.models.heads.finetune_network import check_adapters

            check_adapters()
