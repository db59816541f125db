"""What a training begins from, in short: a checkpoint is used only by the training that would have written it."""

import hashlib
import json
from typing import Any

import numpy as np
import tf_keras

from components.quantization import toolchain
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.splits import SplitSummary
from components.quantization.schemes import QuantizationScheme


def training_fingerprint(
    parameters: TrainingParameters,
    scheme: QuantizationScheme,
    models: tuple[tf_keras.Model, ...],
    splits: tuple[SplitSummary, ...],
    replicas: int,
) -> dict[str, str]:
    """Returns what all attempts of a training have in common, by what the log calls it.

    The code of functions of the user's, such as a loss, is not looked at, only its name.

    Args:
      parameters: The knobs.
      scheme: The scheme.
      models: Untrained and base models, compiled or not: their architecture and weights.
      splits: The data.
      replicas: Of the distribution.
    """
    return {
        "parameters": parameters.to_json(),
        "scheme": scheme.to_json(),
        "model": hashlib.sha256("".join(map(_model_sha256, models)).encode()).hexdigest(),
        "data": hashlib.sha256("".join(split.sha256 for split in splits).encode()).hexdigest(),
        "versions": toolchain.versions_json(),
        "number of replicas": str(replicas),
    }


def _model_sha256(model: tf_keras.Model) -> str:
    compiled = getattr(model, "_compile_config", None)
    config = [model.get_config(), compiled.config if compiled is not None else None]
    digest = hashlib.sha256(json.dumps(config, default=_described, skipkeys=True).encode())
    for weights in model.get_weights():
        digest.update(f"{weights.dtype}{weights.shape}".encode() + weights.tobytes())
    return digest.hexdigest()


def _described(value: Any) -> Any:
    """What JSON has no word for: objects of Keras by their configuration, others by name, never by address."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if hasattr(value, "get_config") and not isinstance(value, type):
        return [type(value).__name__, value.get_config()]
    return getattr(value, "__qualname__", type(value).__name__)
