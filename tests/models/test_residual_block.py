"""The block that the sequence head and the heart encoder share."""

import torch
from torch import nn

from heartml.models.encoders.heart import HeartTrunk
from heartml.models.heads.sequence import SequenceNetwork
from heartml.models.residual_block import ResidualBlock


def test_it_adds_to_its_input_and_looks_a_dilation_to_either_side() -> None:
    block = ResidualBlock(32, 4, 0.5).eval()
    x = torch.zeros(1, 32, 21)
    x[..., 10] = 1
    changed = (block(x) - x - (block(x * 0) - x * 0)).abs().sum(1)[0] > 1e-6
    assert set(changed.nonzero().flatten().tolist()) == {6, 10, 14}
    nn.init.zeros_(block.second.weight)
    nn.init.zeros_(block.second.bias)
    assert torch.equal(block(x), x)


def test_stored_weights_of_both_have_its_keys() -> None:
    keys = {"first.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var",
            "norm.num_batches_tracked", "second.weight", "second.bias"}
    for network in (HeartTrunk(3, 4), SequenceNetwork(3, 2, 4, 0.0)):
        found = {name.removeprefix("blocks.5.") for name in network.state_dict() if name.startswith("blocks.5.")}
        assert found == keys
