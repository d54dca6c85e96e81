"""An ONNX model whose network weights are stored in eight bits: a model in, a smaller one out.

Each output channel of a weight has a scale of its own (Jacob et al., Quantization and training of neural networks,
2018). The weights are turned back into numbers when the model is read, so activations lose nothing, and no operator is
needed that an old runtime lacks. Numbers that are not weights of a convolution or a layer stay as they are.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

_LEAST = 1000      # entries; what is smaller is not worth a scale


def with_eight_bits(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with eight-bit weights of convolutions and layers."""
    small = onnx.ModelProto()
    small.CopyFrom(model)
    graph = small.graph
    wanted = {node.input[1] for node in graph.node if node.op_type in ("Conv", "Gemm") and len(node.input) > 1}
    constants = {node.output[0]: node for node in graph.node if node.op_type == "Constant"}
    halved = {node.output[0]: node for node in graph.node if node.op_type == "Cast" and node.input[0] in constants}
    for name in sorted(wanted & (set(constants) | set(halved))):
        made = halved.get(name)      # stored in half precision, and turned back
        constant = constants[made.input[0] if made else name]
        [value] = [one for one in constant.attribute if one.name == "value"]
        weights = numpy_helper.to_array(value.t).astype(np.float32)
        if weights.size < _LEAST:
            continue
        flat = np.abs(weights.reshape(len(weights), -1)).max(axis=1)
        scale = np.maximum(flat / 127, 1e-12).astype(np.float32)
        steps = np.round(weights / scale.reshape(-1, *[1] * (weights.ndim - 1))).astype(np.int8)
        place = list(graph.node).index(constant)
        graph.node.remove(constant)
        if made:
            graph.node.remove(made)
        new = [
            helper.make_node("Constant", [], [f"{name}.int8"], value=numpy_helper.from_array(steps)),
            helper.make_node("Constant", [], [f"{name}.scale"], value=numpy_helper.from_array(scale)),
            helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], axis=0),
        ]
        for offset, node in enumerate(new):
            graph.node.insert(place + offset, node)
    return small
