"""What a section of a pre-trained encoder says of its weights, and the parts that all such encoders share."""

from pathlib import Path

import pytest
import torch
from torchaudio.transforms import MelSpectrogram

from heartml.core.config import ParamsError, validate_section
from heartml.core.system.hashing import sha256_file
from heartml.models.encoders import mel
from heartml.models.encoders.byol_a import ByolAParams
from heartml.models.encoders.efficientat import EfficientatParams
from heartml.models.encoders.pretrained import at_least, library, stacked
from heartml.models.encoders.pretrained_params import PretrainedParams
from heartml.models.encoders.weight_files import WeightsError

HASH = "ab" * 32


@pytest.mark.parametrize(("kind", "section", "stated", "held"), [
    (EfficientatParams, {}, {}, True),
    (EfficientatParams, {"hold": False}, {}, False),
    (EfficientatParams, {}, {"redistribute": False}, False),
    (EfficientatParams, {"redistribute": False}, {"redistribute": True}, False),
    (ByolAParams, {}, {}, False),
    (ByolAParams, {"hold": True}, {"redistribute": False}, False),
    (ByolAParams, {}, {"redistribute": True}, True),
])
def test_a_model_holds_weights_only_where_setting_and_licence_allow_it(
    kind: type[PretrainedParams], section: dict, stated: dict, held: bool
) -> None:
    assert kind.model_validate({"weights": "w", "sha256": HASH, **section}).resolved(stated).held is held


def test_what_was_said_when_weights_were_added_goes_before_what_the_kind_says() -> None:
    plain = EfficientatParams(weights="w", sha256=HASH)
    assert plain.resolved({}).licence == "MIT"
    assert plain.resolved({"licence": "CC BY 4.0"}).licence == "CC BY 4.0"
    own = EfficientatParams(weights="w", sha256=HASH, licence="ours", citation="us")
    assert (own.resolved({"licence": "CC BY 4.0"}).licence, own.resolved({}).citation) == ("ours", "us")


@pytest.mark.parametrize(("change", "words"), [
    ({"sha256": "AB"}, r"ear\.sha256"), ({"layers": []}, r"ear\.layers"), ({"layers": ["first"]}, r"ear\.layers"),
    ({"layer": ["last"]}, r"ear\.layer: Extra"), ({"level": 0}, r"ear\.level"),
])
def test_a_wrong_value_is_named_with_its_key(change: dict, words: str) -> None:
    with pytest.raises(ParamsError, match=words):
        validate_section(EfficientatParams, {"weights": "w", "sha256": HASH, **change}, "encoder_parameters.ear")


def test_the_file_at_hand_has_to_be_the_named_one(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    file.write_bytes(b"weights")
    (tmp_path / "w.dvc").write_text("meta: {licence: ours}\nouts:\n- {path: w.pt}\n")
    named = EfficientatParams(weights=str(file), sha256=sha256_file(file))
    assert named.at_hand().licence == "ours"
    file.write_bytes(b"other weights")
    with pytest.raises(WeightsError, match=f"not {named.sha256}"):
        named.at_hand()


@pytest.mark.parametrize("slaney", [True, False])
def test_the_mel_spectrogram_is_torchaudio_s(slaney: bool) -> None:
    scale = {"norm": "slaney", "mel_scale": "slaney"} if slaney else {}
    peer = MelSpectrogram(16000, 400, hop_length=160, f_min=50.0, f_max=8000.0, n_mels=40, power=2, **scale)
    wave = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    own = mel.mel(16000, 400, 160, 40, (50.0, 8000.0), slaney)
    torch.testing.assert_close(own.power(wave), peer(wave), rtol=1e-4, atol=1e-5)
    assert own.power(at_least(wave[:, :3], own.least_samples)).shape == (2, 40, 2)


def test_a_library_that_is_not_installed_is_named_with_its_extra() -> None:
    with pytest.raises(WeightsError, match=r"needs the package no_such_library, .*`pip install '\.\[encoders\]'`"):
        library("no_such_library")


def test_bands_are_stacked_one_after_the_other() -> None:
    maps = torch.arange(24.0).reshape(1, 2, 3, 4)        # two channels, three bands, four frames
    assert stacked(maps)[0, 1].tolist() == [1, 13, 5, 17, 9, 21]     # both channels of band 0, of band 1, of band 2
    assert at_least(torch.ones(1, 2), 4).tolist() == [[1, 1, 0, 0]]
    assert at_least(torch.ones(1, 5), 4).shape == (1, 5)
