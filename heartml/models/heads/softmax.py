"""Multinomial logistic regression: `[cases, features] -> [cases, classes]`.

The logistic head, the stacker and the SVM (to turn its scores into probabilities) use it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from heartml.models.heads.linear import Floats, Scale, with_absent_classes


@dataclass(frozen=True)
class Softmax:
    """Standardised columns, and one linear score for each class that occurs in training.

    Attributes:
        coefficients: `[present classes, features]`.
        intercepts: `[present classes]`.
        present: class of each row of `coefficients`.
        classes: number of all classes.
    """

    scale: Scale
    coefficients: Floats
    intercepts: Floats
    present: NDArray[np.int64]
    classes: int

    @classmethod
    def fit(cls, vectors: Floats, labels: NDArray[np.int64], classes: int, weights: Floats, c: float) -> Self:
        """Fit by weighted maximum likelihood with an L2 penalty of `1 / c` (lbfgs: the same bytes every time)."""
        from sklearn.linear_model import LogisticRegression

        scale = Scale.fit(vectors)
        model = LogisticRegression(C=c, max_iter=2000)
        model.fit(scale(vectors), labels, sample_weight=weights)
        coefficients, intercepts = np.asarray(model.coef_, float), np.asarray(model.intercept_, float)
        if len(coefficients) == 1:     # two classes: scikit-learn gives the second one's score alone
            coefficients = np.vstack([np.zeros_like(coefficients), coefficients])
            intercepts = np.append(0.0, intercepts)
        return cls(scale, coefficients, intercepts, np.asarray(model.classes_, np.int64), classes)

    def predict_log_proba(self, vectors: Floats) -> Floats:
        """Vectors `[cases, features]` -> log-probabilities `[cases, classes]`."""
        scores = self.scale(vectors) @ self.coefficients.T + self.intercepts
        return with_absent_classes(scores, self.present, self.classes)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The fitted arrays, for saving; `from_arrays` reads them."""
        return {**self.scale.arrays(), "coefficients": self.coefficients, "intercepts": self.intercepts,
                "present": self.present, "classes": np.array(self.classes)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """The softmax that `arrays` was called on."""
        floats = {k: np.asarray(v, np.float64) for k, v in arrays.items()}
        return cls(Scale(floats["mean"], floats["deviation"]), floats["coefficients"], floats["intercepts"],
                   np.asarray(arrays["present"], np.int64), int(arrays["classes"].item()))   # read back as [1]
