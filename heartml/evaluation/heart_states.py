"""Heart states of the held-out recordings: what the model's network heard, held against the publisher's annotation.

Out, in `artifacts/<task>/heart_states/`: `states.parquet` (`schema.ANNOTATIONS`, as heard) and `measures.json`: for the
network and for loudness alone `segmentation.summary`; empty where no network learnt heart states.
"""

from typing import Any

import pandas as pd

from heartml.core import paths, schema
from heartml.core.frame_store import Frames
from heartml.core.system.files import replacing_folder, write_json, write_parquet
from heartml.models.fitted_model import Model
from heartml.models.segmentation import Segmentation, by_loudness, measure, of_annotation, summary


def write(name: str, held_out: pd.DataFrame) -> dict[str, Any]:
    """Hear and measure every held-out recording of a task; what stands in `measures.json`.

    Args:
        held_out: recording_id and seconds, one row a recording.
    """
    model = Model.load(paths.model(name))
    opened = {encoder: Frames.open(paths.features(name, encoder)) for encoder in model.encoders}
    truth = _annotated(set(held_out["recording_id"]))
    tables, network, loudness = [], [], []
    for recording_id, seconds in zip(held_out["recording_id"], held_out["seconds"], strict=True):
        frames = {encoder: of[recording_id] for encoder, of in opened.items()}
        heard = model.heart_states(frames, seconds)
        if heard is None:
            break
        tables.append(as_table(recording_id, heard))
        if recording_id in truth:
            network.append(measure(heard, truth[recording_id]))
        if recording_id in truth and "logspec" in frames:
            of_bands, rate_hz = frames["logspec"], opened["logspec"].frame_rate_hz
            first_s = (seconds - (len(of_bands) - 1) / rate_hz) / 2
            loudness.append(measure(by_loudness(of_bands, rate_hz, first_s), truth[recording_id]))
    by = {"network": network, "by_loudness": loudness}
    found = {listener: summary(measures) for listener, measures in by.items() if measures}
    save(name, tables, found)
    return found


def save(name: str, tables: list[pd.DataFrame], found: dict[str, Any]) -> None:
    """Write the folder; `tables` of `as_table`."""
    empty = pd.DataFrame(columns=list(schema.ANNOTATIONS))
    states = schema.conform(pd.concat(tables) if tables else empty, schema.ANNOTATIONS, "heart states")
    with replacing_folder(paths.heart_states(name)) as folder:
        write_parquet(folder / "states.parquet", states)
        write_json(folder / "measures.json", found)


def as_table(recording_id: str, heard: Segmentation) -> pd.DataFrame:
    """A segmentation as rows of `schema.ANNOTATIONS`."""
    ends_s = [*heard.starts_s[1:], heard.end_s]
    states = [schema.STATES[state] for state in heard.states]
    return pd.DataFrame({"recording_id": recording_id, "start_s": heard.starts_s, "end_s": ends_s, "state": states})


def _annotated(recording_ids: set[str]) -> dict[str, Segmentation]:
    """recording_id -> its annotated stretches; points in time are none."""
    table = pd.read_parquet(paths.ANNOTATIONS).sort_values("start_s")
    own = table[table["recording_id"].isin(recording_ids) & (table["end_s"] > table["start_s"])]
    return {str(recording_id): of_annotation(list(rows["start_s"]), list(rows["end_s"]), list(rows["state"]))
            for recording_id, rows in own.groupby("recording_id")}
