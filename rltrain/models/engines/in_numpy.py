"""Perceptrons in NumPy, for acting: a few rows take an eighth of the time of a compiled call."""

from collections.abc import Callable
from typing import Any

import numpy as np

LAYER_NORM_EPSILON = 1e-5
ACTIVATIONS: dict[str, Callable[[np.ndarray], Any]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def forward(
    parameters: dict[str, np.ndarray], x: np.ndarray, activation: str, otherwise: Callable[[np.ndarray], Any]
) -> np.ndarray:
    """Return the outputs (B, F) of the perceptron with these parameters, for rows (B, inputs).

    `otherwise` is the activation where it has no form here.
    """
    last = sum(name.startswith("weights.") for name in parameters) - 1
    for i in range(last):
        x = x @ parameters[f"weights.{i}"].T + parameters[f"biases.{i}"]
        if f"scales.{i}" in parameters:
            x = _layer_norm(x) * parameters[f"scales.{i}"] + parameters[f"shifts.{i}"]
        x = np.asarray(ACTIVATIONS.get(activation, otherwise)(x))
    return x @ parameters[f"weights.{last}"].T + parameters[f"biases.{last}"]


def _layer_norm(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + LAYER_NORM_EPSILON)
