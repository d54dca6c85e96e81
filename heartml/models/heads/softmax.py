"""Multinomial logistic regression as a thing of its own: the logistic head, the SVM's scores and the stacker use it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from heartml.models.heads.linear import Floats, Scale, spread


@dataclass(frozen=True)
class Softmax:
    """Standardised columns, one linear score a class that training saw.

    Attributes:
        coefficients: `[present classes, features]`; intercepts: `[present classes]`; present: class of each row.
    """

    scale: Scale
    coefficients: Floats
    intercepts: Floats
    present: NDArray[np.int64]
    classes: int

    @classmethod
    def fit(cls, vectors: Floats, labels: NDArray[np.int64], classes: int, weights: Floats, c: float) -> Self:
        """Weighted maximum likelihood with an L2 penalty of `1 / c` (lbfgs, so the same bytes every time)."""
        from sklearn.linear_model import LogisticRegression

        scale = Scale.of(vectors)
        model = LogisticRegression(C=c, max_iter=2000)
        model.fit(scale(vectors), labels, sample_weight=weights)
        coefficients, intercepts = np.asarray(model.coef_, float), np.asarray(model.intercept_, float)
        if len(coefficients) == 1:     # two classes: scikit-learn gives the second one's score alone
            coefficients = np.vstack([np.zeros_like(coefficients), coefficients])
            intercepts = np.append(0.0, intercepts)
        return cls(scale, coefficients, intercepts, np.asarray(model.classes_, np.int64), classes)

    def predict_log_proba(self, vectors: Floats) -> Floats:
        """`[cases, features] -> [cases, classes]`."""
        return spread(self.scale(vectors) @ self.coefficients.T + self.intercepts, self.present, self.classes)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """For `State.arrays`; `from_arrays` is the way back."""
        return {**self.scale.arrays(), "coefficients": self.coefficients, "intercepts": self.intercepts,
                "present": self.present, "classes": np.array(self.classes)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """What `arrays` described."""
        floats = {k: np.asarray(v, np.float64) for k, v in arrays.items()}
        return cls(Scale(floats["mean"], floats["deviation"]), floats["coefficients"], floats["intercepts"],
                   np.asarray(arrays["present"], np.int64), int(arrays["classes"].item()))   # saved as [1]
