"""Registered encoders: models of MLflow's registry whose name begins with `heartml-encoder-`.

They are kept apart from the classifiers: nothing serves an encoder, so it has no journal. A version holds the weights
of one pre-training and the verdict of its gate. The alias `champion` is the last version that passed.
"""

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from heartml.registry.mlflow_store import store_lock
from heartml.registry.versions import CHAMPION, ENCODER_PREFIX, PROMOTED, REFUSED, Version, find_by_key, list_versions

if TYPE_CHECKING:
    from mlflow import MlflowClient

WEIGHTS = "encoder"      # folder of a run with the files of an encoder


def registered_name(encoder: str) -> str:
    """The name in the registry.

    >>> registered_name("heart")
    'heartml-encoder-heart'
    """
    return f"{ENCODER_PREFIX}{encoder}"


def register(
    client: "MlflowClient", encoder: str, *, run_id: str, key: str, verdict: Mapping[str, str], passed: bool
) -> Version:
    """Add a version with its verdict; of those with one key the first is kept.

    Args:
        run_id: of the run that keeps the files, in its folder `WEIGHTS`.
        key: hash of the weights.
        verdict: name of a criterion -> its words.
        passed: whether the version becomes the champion.
    """
    from mlflow.exceptions import MlflowException

    name = registered_name(encoder)
    with store_lock("registry"):
        known = find_by_key(client, name, key)
        if known:
            return known
        with contextlib.suppress(MlflowException):   # the model exists already
            client.create_registered_model(name, description="Encoder of heart sounds. Not a medical device.")
        tags = {"heartml.key": key, "heartml.verdict": PROMOTED if passed else REFUSED,
                **{f"heartml.gate.{criterion}": words[:5000] for criterion, words in verdict.items()}}
        source = f"{client.get_run(run_id).info.artifact_uri}/{WEIGHTS}"
        made = client.create_model_version(name, source=source, run_id=run_id, tags=tags)
        if passed:
            client.set_registered_model_alias(name, CHAMPION, str(made.version))
    return next(v for v in list_versions(client, name) if v.number == str(made.version))
