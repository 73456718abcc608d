"""Linear classifiers on frozen features: multinomial logistic regression, fitted to the end, without chance in it."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["fit_classes"]

Array = np.ndarray[Any, Any]


def fit_classes(
    features: Array, labels: Array, classes: int, *, decay: float, common_scale: bool = False
) -> tuple[Array, Array]:
    """Return matrix f32 [k, classes] and bias f32 [classes] for features [n, k].

    Minimizes mean cross entropy plus `decay` times half the squared norm, with L-BFGS (Liu and Nocedal 1989), on
    features that are centred and divided by their own deviations. `common_scale` divides all by one deviation, so that
    features which hardly ever vary stay small. Centre and scale are folded into what is returned.
    """
    from scipy.optimize import minimize

    mean, deviation = features.mean(0), features.std(0) + 1e-6
    if common_scale:
        deviation = np.full_like(deviation, np.sqrt((deviation**2).mean()))
    x = ((features - mean) / deviation).astype(np.float64)
    wanted = np.eye(classes)[labels]
    shape = (x.shape[1] + 1, classes)

    def loss(flat: Array) -> tuple[float, Array]:
        parameters = flat.reshape(shape)
        logits = x @ parameters[:-1] + parameters[-1]
        logits -= logits.max(1, keepdims=True)
        normalizer = np.log(np.exp(logits).sum(1, keepdims=True))
        error = np.exp(logits - normalizer) - wanted
        value = -((logits - normalizer) * wanted).sum() / len(x) + decay * (parameters[:-1] ** 2).sum() / 2
        gradient = np.vstack([x.T @ error / len(x) + decay * parameters[:-1], error.mean(0)])
        return float(value), gradient.ravel()

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    parameters = np.asarray(found.x).reshape(shape)
    matrix = parameters[:-1] / deviation[:, None]
    return matrix.astype(np.float32), (parameters[-1] - mean @ matrix).astype(np.float32)
