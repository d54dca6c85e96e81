"""Tiny random checkpoints in the formats of the publishers, made with networks of other libraries.

Each function writes a file and returns it with the network that it was taken from, so that a test can compare.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from heartml.core.config import Params
from heartml.models.encoders import weight_files

M2D_FOLDER = "m2d_vit_tiny-32x64p16x16p16k-random"
# input, kernel, expanded, output, excited, hard-swish, stride: the table of MobileNetV3, large, with widths of our own
_BLOCKS = [(8, 3, 8, 8, 0, 0, 1), (8, 3, 16, 8, 0, 0, 2), (8, 3, 16, 8, 0, 0, 1), (8, 5, 16, 8, 1, 0, 2),
           (8, 5, 16, 8, 1, 0, 1), (8, 5, 16, 8, 1, 0, 1), (8, 3, 16, 8, 0, 1, 2), (8, 3, 16, 8, 0, 1, 1),
           (8, 3, 16, 8, 0, 1, 1), (8, 3, 16, 8, 0, 1, 1), (8, 3, 24, 16, 1, 1, 1), (16, 3, 24, 16, 1, 1, 1),
           (16, 5, 24, 16, 1, 1, 2), (16, 5, 24, 16, 1, 1, 1), (16, 5, 24, 16, 1, 1, 1)]


def efficientat(file: Path) -> tuple[Path, nn.Module]:
    """A MobileNetV3 of torchvision for one channel, under the names of EfficientAT; its features are the reference."""
    from torchvision.models import mobilenetv3
    from torchvision.ops import SqueezeExcitation

    config = partial(mobilenetv3.InvertedResidualConfig, dilation=1, width_mult=1.0)
    blocks = [config(i, k, e, o, bool(s), "HS" if h else "RE", stride) for i, k, e, o, s, h, stride in _BLOCKS]
    norm = partial(nn.BatchNorm2d, eps=1e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = mobilenetv3.MobileNetV3(blocks, 8, num_classes=3, norm_layer=norm)
        net.features[0][0] = nn.Conv2d(1, 8, 3, 2, 1, bias=False)
        for module in net.modules():
            if isinstance(module, SqueezeExcitation):
                module.scale_activation = nn.Sigmoid()
        randomise(net)
    names = {name: _efficientat_name(name) for name in net.state_dict() if name.startswith("features.")}
    tensors = {to: net.state_dict()[name] for name, to in names.items()}
    torch.save({to: t.flatten(1) if ".conc_se" in to and "weight" in to else t for to, t in tensors.items()}, file)
    return file, net.features.eval()


def _efficientat_name(name: str) -> str:
    return name.replace(".fc1.", ".conc_se_layers.0.fc1.").replace(".fc2.", ".conc_se_layers.0.fc2.")


def byol_a(file: Path, dim: int = 16) -> tuple[Path, nn.Module]:
    """The layers of `AudioNTT2020`: the convolutions, then the layers of a frame."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layers: list[nn.Module] = []
        for channels in (1, 64, 64):
            layers += [nn.Conv2d(channels, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
        net = nn.ModuleDict({"features": nn.Sequential(*layers), "fc": nn.Sequential(
            nn.Linear(512, dim), nn.ReLU(), nn.Dropout(), nn.Linear(dim, dim), nn.ReLU())})
        randomise(net)
    torch.save(net.state_dict(), file)
    return file, net.eval()


def m2d(folder: Path, prefix: str = "", head: bool = False, name: str = M2D_FOLDER) -> tuple[Path, nn.Module]:
    """A vision transformer of timm, in a folder whose name says its shape; perhaps under a prefix, or with a head."""
    from timm.models.vision_transformer import VisionTransformer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        net = VisionTransformer((32, 64), 16, 1, 0, "", 24, 2, 3)
        randomise(net)
    tensors = {f"{prefix}{key}": tensor for key, tensor in net.state_dict().items()}
    if head:
        tensors |= {"module.head.norm.running_mean": torch.zeros(48), "module.head.mlp.mlp.0.weight": torch.ones(3, 48)}
    file = folder / name / "checkpoint-0.pth"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": tensors, "args": None}, file)
    return file, net.eval()


def randomise(net: nn.Module) -> None:
    """Give norms and biases values of their own too, so that none can be left out unnoticed."""
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name or "weight" in name else
                         torch.randn_like(tensor) * 0.1)


def sections(folder: Path) -> dict[str, dict[str, Any]]:
    """A section of `encoder_parameters` for a checkpoint of each pre-trained kind; files are written to `folder`."""
    files = {"efficientat": efficientat(folder / "mn.pt")[0], "byol_a": byol_a(folder / "byol.pth")[0],
             "m2d": m2d(folder)[0]}
    return {kind: {"weights": str(file), "sha256": weight_files.hash_of(file)} for kind, file in files.items()}


def with_sections(params: Params, found: dict[str, dict[str, Any]]) -> Params:
    """The parameters with these sections in addition."""
    return params.model_copy(update={"encoder_parameters": {**params.encoder_parameters, **found}})
