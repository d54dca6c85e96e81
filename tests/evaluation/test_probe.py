"""The probe of encoders: no choice sees the fold that is predicted, and nothing is done twice."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from support import probe_project, tiny_checkpoints
from support.probe_project import TASK, UNITS, fold_table, names

from heartml.cli import cli
from heartml.core import paths
from heartml.core.config import Params
from heartml.evaluation import probe
from heartml.evaluation.probe import ProbeError, controls, linear, record, summary, vectors
from heartml.models import encoders, heard
from heartml.models.encoders import weight_files
from heartml.models.heard import HeardError
from heartml.reporting import probe_page
from heartml.training import training_set
from heartml.training.training_set import TrainingSet


def a_training_set() -> TrainingSet:
    table = fold_table(names())
    return training_set.build(TASK, table[table["part"] != "test"], pd.DataFrame({"recording_id": names()}))


def informative(found: TrainingSet, seed: int, strength: float) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(len(found.recording_ids), 6))
    noise[:, 0] += strength * found.labels[found.unit]
    return noise


def test_what_tells_the_classes_apart_is_found_and_noise_is_not() -> None:
    found = a_training_set()
    probed = linear.out_of_fold({"good": informative(found, 0, 6.0), "noise": informative(found, 1, 0.0)}, found)
    accuracy = {name: float((probed.decisions(p) == found.labels).mean()) for name, p in probed.probabilities.items()}
    assert accuracy["good"] > 0.9
    assert accuracy["noise"] < 0.75
    np.testing.assert_array_equal(probed.chosen(found.parts), probed.probabilities["good"])
    for p in probed.probabilities.values():
        np.testing.assert_allclose(p.sum(1), 1)


def test_no_choice_sees_the_fold_that_is_predicted() -> None:
    found = a_training_set()
    own = {"one": informative(found, 2, 1.0), "two": informative(found, 3, 1.0)}
    before = linear.out_of_fold(own, found)
    here = found.parts == 2
    swapped = TrainingSet(**{**vars(found), "labels": np.where(here, 1 - found.labels, found.labels)})
    swapped = TrainingSet(**{**vars(swapped), "recording_labels": swapped.labels[swapped.unit]})
    after = linear.out_of_fold(own, swapped)
    for name in own:
        np.testing.assert_array_equal(before.probabilities[name][here], after.probabilities[name][here])
        assert before.inner_losses[name][2] == after.inner_losses[name][2]
        assert before.inner_losses[name][1] != after.inner_losses[name][1]


def test_ranks_are_means_over_tasks() -> None:
    found = summary.ranks({"a": ["x", "y", "z"], "b": ["y", "x"]})
    assert [(row["encoder"], row["mean_rank"]) for row in found] == [("x", 1.5), ("y", 1.5), ("z", 3.0)]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    return probe_project.make(tmp_path, monkeypatch)


def test_a_random_control_has_the_shape_and_nothing_of_what_was_learnt(params: Params) -> None:
    spec = encoders.spec("ears", params)
    control = controls.random_weights(spec, 1)
    assert control is not None and control.name == "ears_random" and control.kind == "heart"
    own, other = (encoders.load(one) for one in (spec, control))
    assert (own.dim, own.frame_rate_hz) == (other.dim, other.frame_rate_hz)
    wave = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    first, second = (encoders.frames_of(load, one, wave, 4000) for load, one in ((own, spec), (other, control)))
    assert first.shape == second.shape and not np.allclose(first, second, atol=0.1)
    section = control.to_json()["sections"]["heart"]
    assert heard.of(section) == heard.Heard(), "nothing was heard by weights that are drawn"
    assert controls.random_weights(spec, 1) == control
    assert controls.random_weights(spec, 2) != control
    assert controls.random_weights(encoders.spec("logspec", params), 1) is None


def test_of_a_random_transformer_positions_and_scale_stay(params: Params, tmp_path: Path) -> None:
    """They are not learnt; a deviation of zero would make every frame infinite."""
    file, _ = tiny_checkpoints.m2d(tmp_path, name="m2d_vit_tiny-32x64p16x16p4k-x")
    tensors = {**weight_files.tensors_of(file), "norm_stats": torch.tensor([-6.0, 2.0])}
    torch.save(tensors, file)
    section = {"weights": str(file), "sha256": weight_files.hash_of(file)}
    control = controls.random_weights(encoders.spec_of_weights("m2d", section, params), 1)
    assert control is not None and control.pretrained is not None
    drawn = weight_files.tensors_of(control.pretrained.path)
    same = {name for name in tensors if torch.equal(tensors[name], drawn[name])}
    assert same == {"norm_stats", "pos_embed"}
    encoder = encoders.load(control)
    assert np.isfinite(encoders.frames_of(encoder, control, np.ones(8000, np.float32), 4000)).all()


def test_encoders_of_one_shape_share_their_control(params: Params, tmp_path: Path) -> None:
    more = {}
    for number, letter in enumerate("ef", 1):
        file = tiny_checkpoints.heart(tmp_path / f"{number}.safetensors", pd.DataFrame(
            {"recording_id": [letter * 64], "group_id": [f"other-{letter}"], "dataset": ["other"]}))[0]
        more[f"ears_{number}"] = {"kind": "heart", "weights": str(file), "sha256": weight_files.hash_of(file)}
    other = tiny_checkpoints.heart(tmp_path / "4.safetensors", channels=4)[0]
    more["narrow"] = {"kind": "heart", "weights": str(other), "sha256": weight_files.hash_of(other)}
    plan = probe.plan([TASK], [*more], tiny_checkpoints.with_sections(params, more), poolings=["mean"])
    assert plan.control_of == {"ears_1": "ears_1_random", "ears_2": "ears_1_random", "narrow": "narrow_random"}
    assert set(plan.specs) == {"logspec", *more, "ears_1_random", "narrow_random"}


def test_the_command_compares_stores_and_does_nothing_twice(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["probe", TASK, "--encoders", "ears", "--pooling", "mean, states", "--no-mlflow", "--json", "out.json",
                 "--html", "out.html"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads(Path("out.json").read_text())
    rows = {row["encoder"]: row for row in found["tasks"][TASK]["encoders"]}
    assert set(rows) == {"logspec", "ears", "ears_random"}
    assert rows["logspec"]["scores"]["chosen"]["macro_auc"]["value"] > 0.9, "a tone can be read from a spectrogram"
    assert rows["logspec"]["against_logspec"] is None and rows["logspec"]["against_random"] is None
    assert set(rows["ears"]["against_random"]) == {"macro_auc", "log_loss"}
    assert rows["ears"]["features"] == {"mean": 12, "states": 3 * 8 + 4 * 8}
    assert rows["ears"]["cost"]["megabytes_an_hour"] == pytest.approx(25 * 12 * 2 * 3600 / 1e6, rel=0.1)
    assert "ears_random" in done.output and TASK in done.output
    page = Path("out.html").read_text()
    assert "worth against cost" in page and "http" not in page.replace("http-equiv", "")
    assert page == probe_page.render(found)
    stored = sorted((paths.STATE / "probe").iterdir())
    assert len(stored) == 3
    monkeypatch.setattr(vectors, "pooled", lambda *_: pytest.fail("computed again"))
    assert CliRunner().invoke(cli, arguments, catch_exceptions=False).output == done.output


def test_of_several_encoders_each_is_compared_with_the_one_that_is_named_first(params: Params) -> None:
    done = CliRunner().invoke(cli, ["probe", TASK, "--encoders", "random_conv ears", "--pooling", "mean", "--no-mlflow",
                                    "--json", "out.json"], catch_exceptions=False)
    found = json.loads(Path("out.json").read_text())
    rows = {row["encoder"]: row for row in found["tasks"][TASK]["encoders"]}
    assert found["first"] == "random_conv" and "AUC - random_conv" in done.output
    assert rows["random_conv"]["against_first"] is None
    auc = {name: row["scores"]["chosen"]["macro_auc"]["value"] for name, row in rows.items()}
    for name in ("ears", "logspec", "ears_random"):
        assert rows[name]["against_first"]["macro_auc"]["value"] == pytest.approx(auc[name] - auc["random_conv"])
    assert rows["random_conv"]["against_logspec"]["macro_auc"]["value"] == pytest.approx(
        -rows["logspec"]["against_first"]["macro_auc"]["value"])


def test_a_run_has_the_scores_the_costs_and_the_differences(params: Params) -> None:
    plan = probe.plan([TASK], ["ears"], params, poolings=["mean"])
    found = probe.run(plan, [probe.probe_encoder(plan, *job) for job in plan.jobs])
    kept = record.run_record("ears", found)
    scores = {row["encoder"]: row for row in found["tasks"][TASK]["encoders"]}["ears"]
    assert kept.metrics[f"{TASK}/macro_auc"] == scores["scores"]["chosen"]["macro_auc"]["value"]
    assert {f"{TASK}/mean/uar", f"{TASK}/seconds_an_hour", f"{TASK}/against_logspec/macro_auc_low", "mean_rank"} <= set(
        kept.metrics)


def test_the_flow_does_what_the_command_does(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import probe as flow

    monkeypatch.setattr(flow, "probe_encoder", flow.probe_encoder.fn)
    monkeypatch.setattr(flow, "create_table_artifact", lambda *_, **__: None)
    plan = probe.plan([TASK], ["ears"], params, poolings=["mean"])
    expected = probe.run(plan, [probe.probe_encoder(plan, *job) for job in plan.jobs])
    assert flow._probe([TASK], ["ears"], ["mean"], False) == expected


def test_an_encoder_that_heard_a_group_is_refused_or_its_groups_are_left_out(params: Params) -> None:
    table = fold_table(names())
    table.loc[3, "group_id"] = "other-1"
    table.to_parquet(paths.folds(TASK))
    with pytest.raises(HeardError, match="trained on 1 of its 42 groups"):
        probe.plan([TASK], ["ears"], params)
    plan = probe.plan([TASK], ["ears"], params, leave_out_heard=True)
    assert "other-1" not in set(plan.tables[TASK]["group_id"]) and len(plan.tables[TASK]) == UNITS - 1


def test_what_cannot_be_probed_is_named(params: Params) -> None:
    with pytest.raises(ProbeError, match="other-murmur: no folds yet"):
        probe.plan(["other-murmur"], ["ears"], params)
    with pytest.raises(ProbeError, match="--pooling median: there are average, mean"):
        probe.plan([TASK], ["ears"], params, poolings=["median"])
    table = fold_table(names())
    table.loc[table["part"] == "1", "label"] = "Normal"
    with pytest.raises(ProbeError, match="fold 1 has fewer than two classes"):
        probe._usable(TASK, table)
    with pytest.raises(ProbeError, match="heard every group of its folds"):
        probe._usable(TASK, table.head(0))
    with pytest.raises(ProbeError, match="2 folds are left, and 4 are needed"):
        probe._usable(TASK, table[table["part"].isin(["0", "2"])])


def test_each_layer_is_pooled_alone_too(params: Params) -> None:
    spec = encoders.spec("ears", tiny_checkpoints.with_sections(params, {
        "ears": {**params.encoder_parameters["ears"], "layers": [1, "last"]}}))
    assert list(vectors.variants(spec)) == ["", "1/", "last/"]
    found = vectors.pooled(spec, names()[:2], ["mean"])
    shapes = {name: own.shape for name, own in found.items()}
    assert shapes == {"mean": (2, 20), "1/mean": (2, 12), "last/mean": (2, 12)}
    np.testing.assert_allclose(found["mean"][:, :8], found["1/mean"][:, :8], atol=1e-3)
