"""The benchmark's linear probe: vectors `[n, f]` and labels `[n]` in, probabilities of the test part out. Pure.

One linear layer on the vectors as they are. Weights start normal with a deviation of .01, biases at zero. Adam with a
rate of 1e-4, times .97 after each epoch; the sum of squares of weights and biases counts 1e-5; gradients are clipped at
a norm of 1. The epoch with the best AUROC on the validation part is kept.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from heartml.metrics import METRICS

RATE, DECAY, L2, CLIP, DEVIATION = 1e-4, 0.97, 1e-5, 1.0, 0.01

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Recipe:
    """What differs between tasks: cases in a batch, epochs, and epochs between two looks at the validation part."""

    batch: int
    epochs: int
    validated_every: int = 1


def probe(
    features: Floats, labels: Ints, train: Rows, validation: Rows, test: Rows, classes: int, recipe: Recipe, seed: int
) -> Floats:
    """Fit on `train` `[n]`, choose the epoch on `validation`, and predict `test`: probabilities `[test, classes]`."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)
    layer = torch.nn.Linear(x.shape[1], classes)
    with torch.no_grad():
        layer.weight.normal_(0, DEVIATION, generator=generator)
        layer.bias.zero_()
    optimiser = torch.optim.Adam(layer.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, DECAY)
    rows, best, kept = torch.from_numpy(np.flatnonzero(train)), -1.0, _predict(layer, x[torch.from_numpy(test)])
    for epoch in range(1, recipe.epochs + 1):
        for batch in rows[torch.randperm(len(rows), generator=generator)].split(recipe.batch):  # type: ignore[no-untyped-call]
            loss = torch.nn.functional.cross_entropy(layer(x[batch]), y[batch])
            loss = loss + L2 * sum((weights**2).sum() for weights in layer.parameters())
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(layer.parameters(), CLIP)
            optimiser.step()
        schedule.step()
        if epoch % recipe.validated_every == 0:
            auc = _auc(labels[validation], _predict(layer, x[torch.from_numpy(validation)]))
            if auc > best:
                best, kept = auc, _predict(layer, x[torch.from_numpy(test)])
    return kept


def _predict(layer: torch.nn.Linear, x: torch.Tensor) -> Floats:
    with torch.inference_mode():
        return np.asarray(torch.softmax(layer(x), 1).numpy(), np.float64)


def _auc(labels: Ints, probabilities: Floats) -> float:
    """Macro AUROC; zero where the validation part has one class alone, so that the first epochs are kept."""
    classes = tuple(map(str, range(probabilities.shape[1])))
    found = float(METRICS["macro_auc"].function(labels, probabilities, probabilities.argmax(1), classes)) \
        if len(labels) else float("nan")
    return 0.0 if np.isnan(found) else found
