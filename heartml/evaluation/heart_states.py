"""Heart states of the held-out recordings, as the model's network finds them, compared with the publisher's annotation.

Out, in `artifacts/<task>/heart_states/`: `states.parquet` (`schema.ANNOTATIONS`, the states that were found) and
`measures.json`: `segmentation.summary` for the network and for a baseline that uses loudness alone. Both are empty
where no network was trained to find heart states.
"""

from typing import Any

import pandas as pd

from heartml.core import paths, schema
from heartml.core.system.files import replacing_folder, write_json, write_parquet
from heartml.models.encoders import EncoderSpec
from heartml.models.fitted_model import Model
from heartml.models.frame_cache import open_frames
from heartml.models.segmentation import Segmentation, by_loudness, from_annotation, measure, summary


def segment_held_out(name: str, held_out: pd.DataFrame) -> dict[str, Any]:
    """Find the heart states of every held-out recording of a task, measure them, and write the folder.

    Args:
        held_out: recording_id and seconds, one row a recording.

    Returns:
        What is in `measures.json`: `network` and `by_loudness`, each with its summary.
    """
    model = Model.load(paths.model(name))
    recording_ids = list(held_out["recording_id"])
    opened = {encoder: open_frames(name, EncoderSpec.from_json(spec), recording_ids)
              for encoder, spec in model.encoder_specs.items()}
    truth = _annotated(set(held_out["recording_id"]))
    tables, network, loudness = [], [], []
    for row, (recording_id, seconds) in enumerate(zip(recording_ids, held_out["seconds"], strict=True)):
        frames = {encoder: of[row] for encoder, of in opened.items()}
        found = model.heart_states(frames, seconds)
        if found is None:
            break
        tables.append(states_table(recording_id, found))
        if recording_id in truth:
            network.append(measure(found, truth[recording_id]))
        if recording_id in truth and "logspec" in frames:
            of_bands, rate_hz = frames["logspec"], float(model.encoder_specs["logspec"]["frame_rate_hz"])
            first_s = (seconds - (len(of_bands) - 1) / rate_hz) / 2
            loudness.append(measure(by_loudness(of_bands, rate_hz, first_s), truth[recording_id]))
    by_method = {"network": network, "by_loudness": loudness}
    summaries = {method: summary(measures) for method, measures in by_method.items() if measures}
    save(name, tables, summaries)
    return summaries


def save(name: str, tables: list[pd.DataFrame], summaries: dict[str, Any]) -> None:
    """Write the folder: one table of `states_table` for each recording, and the summaries for `measures.json`."""
    empty = pd.DataFrame(columns=list(schema.ANNOTATIONS))
    states = schema.conform(pd.concat(tables) if tables else empty, schema.ANNOTATIONS, "heart states")
    with replacing_folder(paths.heart_states(name)) as folder:
        write_parquet(folder / "states.parquet", states)
        write_json(folder / "measures.json", summaries)


def states_table(recording_id: str, found: Segmentation) -> pd.DataFrame:
    """A segmentation as rows of `schema.ANNOTATIONS`, one row a state, times in seconds."""
    ends_s = [*found.starts_s[1:], found.end_s]
    states = [schema.STATES[state] for state in found.states]
    return pd.DataFrame({"recording_id": recording_id, "start_s": found.starts_s, "end_s": ends_s, "state": states})


def _annotated(recording_ids: set[str]) -> dict[str, Segmentation]:
    """recording_id -> its annotated stretches; annotations of a single point in time are left out."""
    table = schema.of_heart(pd.read_parquet(paths.ANNOTATIONS)).sort_values("start_s")
    own = table[table["recording_id"].isin(recording_ids) & (table["end_s"] > table["start_s"])]
    return {str(recording_id): from_annotation(list(rows["start_s"]), list(rows["end_s"]), list(rows["state"]))
            for recording_id, rows in own.groupby("recording_id")}
