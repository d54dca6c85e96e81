"""The system `finetune` of a protocol: a pre-trained encoder and a head learn together, by a named recipe.

In: the name of an encoder in `params.yaml`. Out: the same encoder with frames that are its input, and the spec of the
network. A published study's recipe is the default, so that whoever has its file of weights needs one command.
"""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from heartml.core.config import Params, SearchParams
from heartml.core.frame_store import Frames
from heartml.core.system.parallel import available_workers
from heartml.evaluation.protocols.cohort import ProtocolError
from heartml.evaluation.protocols.fits import CHUNK_S, FINETUNE
from heartml.models import encoders, heard, trunks
from heartml.models.encoders import EncoderSpec
from heartml.models.encoders.pretrained_params import INPUT
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.training import search_space

RECIPE = "m2d_circor"


@dataclass(frozen=True)
class Tuned:
    """What is fine-tuned, and how."""

    encoder: EncoderSpec
    network: CandidateSpec


def of(name: str | None, recipe: str | None, search: SearchParams, params: Params) -> Tuned:
    """The encoder `name` and its network, with predictions averaged over chunks as in the paper's rule.

    Args:
        recipe: of `heartml.models.heads.finetune_params`; `None`: what params.yaml has for the head `finetune`.

    Raises:
        ProtocolError: there is no such encoder to fine-tune, or nothing says a learning rate.
        EncoderError, ParamsError, WeightsError: the encoder or the recipe cannot be used.
    """
    if name is None:
        raise ProtocolError(f"the system {FINETUNE} needs an encoder: --encoder NAME, one of encoder_parameters")
    found = encoders.spec(name, params)
    if found.pretrained is None or found.kind not in trunks.TRUNKS:
        raise ProtocolError(f"--encoder {name}: an encoder of kind {found.kind} cannot be fine-tuned; those of kind "
                            f"{', '.join(trunks.TRUNKS)} can")
    section = found.pretrained.model_copy(update={"layers": INPUT})
    spec = replace(found, sections={**found.sections, found.kind: section})
    encoders.load(spec)      # not every network of a kind has an input
    own: dict[str, Any] = search.network_parameters.get(FINETUNE, {}) if recipe is None else {"recipe": recipe}
    parameters = {**search.network_parameters, FINETUNE: {**own, "encoders": [name]}}
    fixed = search_space.fixed_hyperparameters(search.model_copy(update={"network_parameters": parameters}), FINETUNE)
    if "rate" not in fixed:
        raise ProtocolError(f"search.network_parameters.{FINETUNE}: a `rate` is needed, which a protocol does not draw")
    return Tuned(spec, CandidateSpec(name, FINETUNE, "recording", None, {**fixed, "inference_chunk_s": CHUNK_S}))


def check(tuned: Tuned, frames: Frames, recordings: pd.DataFrame, trainings: int) -> str:
    """Check that the encoder heard none of these recordings and that the trainings fit into memory; one line on that.

    Raises:
        HeardError, MemoryRefused: they do not.
    """
    from heartml.models.heads import finetune

    heard.refuse("circor-m2d", {tuned.encoder.name: tuned.encoder.to_json()}, recordings)
    at_once = max(1, min(trainings, available_workers(0)))
    return finetune.told_in_advance(frames.encoder, 3, tuned.network.hyperparameters, at_once)
