"""Pre-trained encoders in seconds of audio per second of one core, each beside the library's own way in the same run.

python benchmarks/encoders.py [--seconds 10] [--count 4] [--only NAME] [--json FILE]

Networks have the published shapes and random weights, because weights do not change what a network costs: mn04 of
EfficientAT, M2D's ViT-B, BYOL-A with 512 channels, and with the extra `encoders` AST and wav2vec2 base.
Input are waveforms in memory at the network's rate. The peers are the same networks as torchvision, timm, torch and
transformers run them, behind torchaudio's spectrogram. Before anything is timed, both must give the same values.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from heartml.models.encoders.byol_a import ByolA
from heartml.models.encoders.efficientat import Efficientat
from heartml.models.encoders.m2d import M2d

# input, kernel, expanded, output, excited, hard-swish, stride: MobileNetV3, large (Howard et al., 2019, table 1)
_MOBILE = [(16, 3, 16, 16, 0, 0, 1), (16, 3, 64, 24, 0, 0, 2), (24, 3, 72, 24, 0, 0, 1), (24, 5, 72, 40, 1, 0, 2),
           (40, 5, 120, 40, 1, 0, 1), (40, 5, 120, 40, 1, 0, 1), (40, 3, 240, 80, 0, 1, 2), (80, 3, 200, 80, 0, 1, 1),
           (80, 3, 184, 80, 0, 1, 1), (80, 3, 184, 80, 0, 1, 1), (80, 3, 480, 112, 1, 1, 1),
           (112, 3, 672, 112, 1, 1, 1), (112, 5, 672, 160, 1, 1, 2),
           (160, 5, 960, 160, 1, 1, 1), (160, 5, 960, 160, 1, 1, 1)]
_EPS = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Pair:
    """One network, ours and the peer's way: waveform `[1, time]` in, frames `[frames, dim]` out."""

    name: str
    peer: str
    rate_hz: int
    ours: Callable[[Tensor], Tensor]
    theirs: Callable[[Tensor], Tensor]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--only", choices=list(_MAKERS), help="one of them")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as made, threadpool_limits(1), torch.inference_mode():
        os.environ["HEARTML_CACHE_DIR"] = str(Path(made) / "cache")
        names = [options.only] if options.only else [name for name in _MAKERS if name not in _OF_EXTRA or
                                                     find_spec("transformers")]
        rows = [measure(_MAKERS[name](Path(made)), options.seconds, options.count) for name in names]
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(pair: Pair, seconds: float, count: int) -> dict[str, Any]:
    """Seconds of audio per CPU-second of both ways, after both gave the same; the best of three rounds."""
    rng = np.random.default_rng(0)
    waves = [torch.tensor(rng.normal(size=(1, round(seconds * pair.rate_hz))) * 0.1, dtype=torch.float32)
             for _ in range(count)]
    ours, theirs = pair.ours(waves[0]), pair.theirs(waves[0])
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)
    speed = {way: seconds * count / min(timed(run, waves) for _ in range(3))
             for way, run in (("ours", pair.ours), ("theirs", pair.theirs))}
    return {"network": pair.name, "peer": pair.peer, **speed, "faster": speed["ours"] / speed["theirs"]}


def timed(run: Callable[[Tensor], Tensor], waves: list[Tensor]) -> float:
    """CPU-seconds of one round."""
    started = time.process_time()
    for wave in waves:
        run(wave)
    return time.process_time() - started


def mobile(folder: Path) -> Pair:
    """EfficientAT mn04, and torchvision's network."""
    from torchaudio.compliance.kaldi import get_mel_banks
    from torchvision.models import mobilenetv3
    from torchvision.ops import SqueezeExcitation

    config = partial(mobilenetv3.InvertedResidualConfig, dilation=1, width_mult=0.4)
    blocks = [config(i, k, e, o, bool(s), "HS" if h else "RE", stride) for i, k, e, o, s, h, stride in _MOBILE]
    net = mobilenetv3.MobileNetV3(blocks, 8, norm_layer=partial(nn.BatchNorm2d, eps=1e-3)).eval()
    net.features[0][0] = nn.Conv2d(1, net.features[0][0].out_channels, 3, 2, 1, bias=False)
    for module in net.modules():
        if isinstance(module, SqueezeExcitation):
            module.scale_activation = nn.Sigmoid()
    names = {key: key.replace(".fc1.", ".conc_se_layers.0.fc1.").replace(".fc2.", ".conc_se_layers.0.fc2.")
             for key in net.state_dict() if key.startswith("features.")}
    tensors = {to: net.state_dict()[key] for key, to in names.items()}
    torch.save({to: t.flatten(1) if ".conc_se" in to and "weight" in to else t for to, t in tensors.items()},
               folder / "mn04.pt")
    bank = torch.nn.functional.pad(get_mel_banks(128, 1024, 32000, 0.0, 15000.0, 100.0, -500.0, 1.0)[0], (0, 1))
    window, emphasis = torch.hann_window(800, periodic=False), torch.tensor([[[-0.97, 1.0]]])

    def theirs(wave: Tensor) -> Tensor:
        wave = torch.nn.functional.conv1d(wave[:, None], emphasis)[:, 0]
        power = torch.view_as_real(torch.stft(wave, 1024, 320, 800, window, return_complex=True)).pow(2).sum(-1)
        picture = ((torch.matmul(bank, power) + 1e-5).log() + 4.5) / 5
        return net.features(picture[:, None])[0].permute(2, 1, 0).flatten(1)

    encoder = Efficientat.from_pretrained(folder / "mn04.pt")
    return Pair("efficientat, mn04", "torchvision's MobileNetV3", 32000, lambda wave: encoder.encode(wave)[0], theirs)


def transformer(folder: Path) -> Pair:
    """M2D's ViT-B, and timm's network, chunk by chunk."""
    from timm.models.vision_transformer import VisionTransformer

    net = VisionTransformer((80, 608), 16, 1, 0, "", 768, 12, 12).eval()
    file = folder / "m2d_vit_base-80x608p16x16p16k-random" / "checkpoint.pth"
    file.parent.mkdir()
    torch.save({"model": net.state_dict()}, file)
    encoder = M2d.from_pretrained(file)
    spectrogram = _mel(400, 160, 80, (50.0, 8000.0), norm="slaney", mel_scale="slaney")

    def theirs(wave: Tensor) -> Tensor:
        picture = ((spectrogram(wave) + _EPS).log() + 7.1) / 4.2
        found = []
        for chunk in picture.split(608, dim=2):
            padded = torch.nn.functional.pad(chunk, (0, -chunk.shape[2] % 16))[:, None]
            tokens = net.patch_embed.proj(padded)
            columns = tokens.shape[3]
            places = net.pos_embed[:, 1:].reshape(1, 5, 38, 768)[:, :, :columns].flatten(1, 2)
            x = torch.cat([net.cls_token + net.pos_embed[:, :1], tokens.flatten(2).transpose(1, 2) + places], dim=1)
            found.append(net.norm(net.blocks(x))[0, 1:].reshape(5, columns, 768).transpose(0, 1).flatten(1))
        return torch.cat(found)

    return Pair("m2d, ViT-B", "timm's ViT-B", 16000, lambda wave: encoder.encode(wave)[0], theirs)


def byol(folder: Path) -> Pair:
    """BYOL-A with 512 channels, and its layers in torch."""
    layers: list[nn.Module] = []
    for channels in (1, 64, 64):
        layers += [nn.Conv2d(channels, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.ModuleDict({"features": nn.Sequential(*layers), "fc": nn.Sequential(
        nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.3), nn.Linear(512, 512), nn.ReLU())}).eval()
    torch.save(net.state_dict(), folder / "byol.pth")
    encoder = ByolA.from_pretrained(folder / "byol.pth")
    spectrogram = _mel(1024, 160, 64, (60.0, 7800.0))

    def theirs(wave: Tensor) -> Tensor:
        logs = ((spectrogram(wave) + _EPS).log() + 5.4919) / 5.0389
        return net["fc"](net["features"](logs[:, None]).permute(0, 3, 2, 1).flatten(2))[0]

    return Pair("byol_a, d 512", "its layers in torch", 16000, lambda wave: encoder.encode(wave)[0], theirs)


def _mel(size: int, hop: int, mels: int, band_hz: tuple[float, float], **scale: str) -> Callable[[Tensor], Tensor]:
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(16000, size, hop_length=hop, f_min=band_hz[0], f_max=band_hz[1], n_mels=mels, **scale)


def ast(folder: Path) -> Pair:
    """AST, base, and the library's own code; windows of 10.24 s."""
    import transformers

    return _library(folder / "ast", "transformers, AST base", transformers.ASTModel(transformers.ASTConfig()),
                    transformers.ASTFeatureExtractor(), lambda found: found[2:].reshape(12, 101, 768).transpose(0, 1))


def wav2vec(folder: Path) -> Pair:
    """wav2vec2, base, and the library's own code."""
    import transformers

    return _library(folder / "wav2vec2", "transformers, wav2vec2 base",
                    transformers.Wav2Vec2Model(transformers.Wav2Vec2Config()), transformers.Wav2Vec2FeatureExtractor(),
                    lambda found: found[:, None])


def _library(folder: Path, name: str, net: Any, extractor: Any, bands: Callable[[Tensor], Tensor]) -> Pair:
    from heartml.models.encoders.transformers import Transformers

    net.eval().save_pretrained(folder)
    extractor.save_pretrained(folder)
    encoder = Transformers.from_pretrained(folder)

    def theirs(wave: Tensor) -> Tensor:
        taken = extractor(wave[0].numpy(), sampling_rate=16000, return_tensors="pt")
        frames = bands(net(**taken).last_hidden_state[0]).flatten(1)
        return frames[: encoder.frames_in(wave.shape[1])]

    return Pair(name, "the library's own code", 16000, lambda wave: encoder.encode(wave)[0], theirs)


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table(title="seconds of audio per CPU-second, one core", title_justify="left")
    for name in ("network", "HeartML", "peer", "peer is", "HeartML faster by"):
        table.add_column(name, justify="right" if name in ("HeartML", "peer", "HeartML faster by") else "left")
    for row in rows:
        table.add_row(row["network"], f"{row['ours']:.1f}", f"{row['theirs']:.1f}", row["peer"], f"{row['faster']:.2f}")
    Console().print(table)


_OF_EXTRA = ("ast", "wav2vec2")
_MAKERS: dict[str, Callable[[Path], Pair]] = {
    "efficientat": mobile, "m2d": transformer, "byol_a": byol, "ast": ast, "wav2vec2": wav2vec}

if __name__ == "__main__":
    main()
