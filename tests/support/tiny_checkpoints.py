"""Tiny random checkpoints in the formats of the publishers, made with networks of other libraries.

Each function writes a file and returns it with the network that it was taken from, so that a test can compare.
"""

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from heartml.core.config import Params
from heartml.models.encoders import weight_files
from heartml.models.encoders.heart import HeartTrunk
from heartml.models.encoders.logspec import LogspecParams
from heartml.training.pretraining import outputs

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


def heart(file: Path, heard: pd.DataFrame | None = None, channels: int = 8, bands: int = 12) -> tuple[Path, HeartTrunk]:
    """A network of our own, and what it is said to have heard: recording_id, group_id, dataset."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        trunk = HeartTrunk(bands, channels)
        randomise(trunk)
    spectrogram = LogspecParams(bands=bands, low_hz=25, high_hz=800, window_s=0.05, hop_s=0.02)
    outputs.write(file.parent, trunk, spectrogram, pd.DataFrame(columns=["recording_id", "group_id", "dataset"])
                  if heard is None else heard, {}, {})
    (file.parent / outputs.WEIGHTS).rename(file)
    return file, trunk.eval()


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
             "m2d": m2d(folder)[0], "heart": heart(folder / "heart.safetensors")[0]}
    more: dict[str, dict[str, Any]] = {}
    if installed("transformers"):
        files["transformers"] = transformers(folder / "ast", "ast")[0]
    if installed("onnx") and installed("onnxruntime"):
        files["onnx"] = onnx(folder / "net.onnx", 1600)
        more["onnx"] = {"sample_rate_hz": 8000, "window_s": 0.2}
    return {kind: {"weights": str(file), "sha256": weight_files.hash_of(file), **more.get(kind, {})}
            for kind, file in files.items()}


def installed(library: str) -> bool:
    """Whether an optional library is here; what needs one is left out where it is not."""
    return importlib.util.find_spec(library) is not None


def transformers(folder: Path, kind: str) -> tuple[Path, Any]:
    """A tiny random network of the library, saved as users have it, and the network."""
    import transformers as library

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network, extractor = _NETWORKS[kind](library)
    network.eval().save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder, network


def _sizes(prefix: str) -> dict[str, int]:
    return {f"{prefix}hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}


_WAVE = {**_sizes(""), "conv_dim": (16,) * 7, "num_conv_pos_embedding_groups": 2, "num_conv_pos_embeddings": 16}
_WHISPER = {"d_model": 24, "encoder_layers": 2, "encoder_attention_heads": 3, "encoder_ffn_dim": 48,
            "decoder_layers": 1, "decoder_attention_heads": 3, "decoder_ffn_dim": 48, "vocab_size": 100,
            "max_source_positions": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
            "decoder_start_token_id": 3}
_QWEN = {"d_model": 24, "encoder_layers": 2, "encoder_attention_heads": 3, "encoder_ffn_dim": 48, "num_mel_bins": 80,
         "max_source_positions": 100}
_CLAP = {"patch_embeds_hidden_size": 8, "hidden_size": 64, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2],
         "num_hidden_layers": 4, "enable_fusion": False}
_NETWORKS: dict[str, Any] = {
    "ast": lambda t: (t.ASTModel(t.ASTConfig(**_sizes(""), max_length=128)), t.ASTFeatureExtractor(max_length=128)),
    "wav2vec2": lambda t: (t.Wav2Vec2Model(t.Wav2Vec2Config(**_WAVE)), t.Wav2Vec2FeatureExtractor()),
    "hubert": lambda t: (t.HubertModel(t.HubertConfig(**_WAVE)), t.Wav2Vec2FeatureExtractor()),
    "wavlm": lambda t: (t.WavLMModel(t.WavLMConfig(**_WAVE)), t.Wav2Vec2FeatureExtractor()),
    "whisper": lambda t: (t.WhisperModel(t.WhisperConfig(**_WHISPER)), t.WhisperFeatureExtractor(chunk_length=2)),
    "clap": lambda t: (t.ClapAudioModel(t.ClapAudioConfig(**_CLAP)), t.ClapFeatureExtractor(truncation="rand_trunc")),
    "qwen2_audio": lambda t: (t.Qwen2AudioEncoder(t.Qwen2AudioEncoderConfig(**_QWEN)),
                              t.WhisperFeatureExtractor(chunk_length=2)),
}


def onnx(file: Path, taken: int, form: str = "frames") -> Path:
    """An ONNX file that takes `[1, taken]` (`maps`: `[1, 1, taken, n]`) and gives four channels of eight parts of it.

    Args:
        form: of its output: `vector` `[1, d]`, `frames` `[1, 8, 4]`, `maps` `[1, 4, bands, frames]`.
    """
    import onnx as library
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(5)
    if form == "maps":
        kernel = numpy_helper.from_array(rng.normal(size=(4, 1, 4, 2)).astype(np.float32), "w")
        nodes, kernels = [helper.make_node("Conv", ["x", "w"], ["y"], strides=[4, 2])], [kernel]
        shape: list[Any] = [1, 1, taken, "n"]
    else:
        weight = numpy_helper.from_array(rng.normal(size=(taken // 8, 4)).astype(np.float32), "w")
        first = numpy_helper.from_array(np.array([1, 8, taken // 8]), "first")
        nodes, kernels = [helper.make_node("Reshape", ["x", "first"], ["parts"]),
                          helper.make_node("MatMul", ["parts", "w"], ["y"])], [weight, first]
        shape = [1, taken]
        if form == "vector":
            kernels.append(numpy_helper.from_array(np.array([1, 32]), "flat"))
            nodes = [*nodes[:1], helper.make_node("MatMul", ["parts", "w"], ["z"]),
                     helper.make_node("Reshape", ["z", "flat"], ["y"])]
    graph = helper.make_graph(nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], kernels)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    library.save(made, file)
    return file


def with_sections(params: Params, found: dict[str, dict[str, Any]]) -> Params:
    """The parameters with these sections in addition."""
    return params.model_copy(update={"encoder_parameters": {**params.encoder_parameters, **found}})
