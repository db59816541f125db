"""Examples in one form, and what the models of one family predict for them, by the same names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from components.quantization.agreement import agreeing
from components.quantization.attribution.metrics import Labelled, Outputs
from components.quantization.conversion.flatbuffer import Tensor
from components.quantization.conversion.representative_dataset import named_arrays
from components.quantization.interpreter import dequantize
from components.quantization.kernels import KernelInterpreter, Kernels


def labelled(model: tf_keras.Model, examples: Iterable[Any]) -> list[Labelled]:
    """Returns batches as arrays, with the rows that they are of all.

    Args:
      model: Has the inputs.
      examples: As for `attribute`.

    Raises:
      ValueError: If there is none, some have labels and others not, or one does not fit the model.
    """
    signature = {
        name: tf.TensorSpec([1, *tensor.shape[1:]], tensor.dtype)
        for name, tensor in zip(model.input_names, model.inputs, strict=True)
    }
    found: list[Labelled] = []
    start = 0
    for batch in examples:
        features, labels, weights, *_ = (*batch, None, None) if isinstance(batch, tuple) else (batch, None, None)
        arrays = named_arrays(tf.nest.map_structure(np.asarray, features), signature, "examples")
        stop = start + len(next(iter(arrays.values())))
        labels = None if labels is None else tf.nest.map_structure(np.asarray, labels)
        weights = None if weights is None else tf.nest.map_structure(np.asarray, weights)
        if stop > start:
            found.append(Labelled(features=arrays, labels=labels, weights=weights, rows=slice(start, stop)))
        start = stop
    if not found:
        raise ValueError("examples: got none, expected at least one; some hundred are usual")
    if len({batch.labels is None for batch in found}) > 1:
        raise ValueError("examples: got batches with labels and batches without, expected the same of all")
    return found


def predictions(model: tf_keras.Model, batches: Sequence[Labelled]) -> Outputs:
    """Returns what a Keras model predicts, by name of output, each of shape (examples, ...)."""
    rows: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in model.output_names}
    for batch in batches:
        inputs = [tf.constant(batch.features[name]) for name in model.input_names]
        outputs = tf.nest.flatten(model(inputs if len(inputs) > 1 else inputs[0], training=False))
        for name, values in zip(model.output_names, outputs, strict=True):
            rows[name].append(values.numpy())
    return {name: np.concatenate(values) for name, values in rows.items()}


def dequantized(codes: npt.NDArray[Any], tensor: Tensor) -> npt.NDArray[np.float32]:
    """The real values of integers in float32, as TFLite's DEQUANTIZE kernel."""
    return dequantize(codes, tensor.scale[0], tensor.zero_point[0]) if tensor.scale else codes.astype(np.float32)


def agreements(floats: Outputs, outputs: Outputs) -> dict[str, float]:
    """Returns the share, 0..1, of predictions with the same class, by output with several values."""
    return {
        name: agreeing(values, outputs[name])
        for name, values in floats.items()
        if values.ndim > 1 and values.shape[-1] > 1
    }


def interpreter_of(
    tflite: bytes, kernels: Kernels, model: tf_keras.Model, keep_tensors: bool = False
) -> KernelInterpreter:
    """An interpreter whose inputs and outputs are named as the model's.

    Raises:
      ValueError: If they are others. A single one may have another name.
    """
    interpreter = KernelInterpreter(tflite, kernels, keep_tensors)
    interpreter.inputs = _renamed("inputs", interpreter.inputs, dict(zip(model.input_names, model.inputs, strict=True)))
    interpreter.outputs = _renamed(
        "outputs", interpreter.outputs, dict(zip(model.output_names, model.outputs, strict=True))
    )
    return interpreter


def _renamed(what: str, found: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    if len(found) == len(wanted) == 1:
        paired = {name: next(iter(found.values())) for name in wanted}
    else:
        paired = {name: found[name] for name in wanted if name in found}
    fits = [wanted[name].shape[1:].is_compatible_with(tensor.shape[1:]) for name, tensor in paired.items()]
    if len(found) == len(paired) == len(wanted) and all(fits):
        return paired
    theirs = ", ".join(f"{name} {tensor.shape[1:]}" for name, tensor in found.items())
    ours = ", ".join(f"{name} {tuple(tensor.shape[1:])}" for name, tensor in wanted.items())
    raise ValueError(
        f"the TFLite model has the {what} {theirs}, the Keras model {ours}; give the .tflite that was converted from"
        " this model"
    )


def require_same_names(float_model: tf_keras.Model, qat_model: tf_keras.Model) -> None:
    """Raises ValueError if the inputs or outputs of two models have other names."""
    for what in ("inputs", "outputs"):
        names, others = (getattr(model, f"{what.removesuffix('s')}_names") for model in (float_model, qat_model))
        if set(names) != set(others):
            raise ValueError(
                f"attribution: the float model has the {what} {sorted(names)}, the quantization-aware model"
                f" {sorted(others)}; give two models of one training"
            )
