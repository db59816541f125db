"""What a conversion refuses, before and after, each with one sentence that says what to do."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.quantization.conversion import finite_values, flatbuffer, trained_ranges
from components.quantization.conversion.dense_function import DenseFunction, loops
from components.quantization.schemes import QuantizationScheme

# The converter widens a range that was never trained or calibrated, a point, to about 1e-6.
_SMALLEST_RANGE = 2.5e-6


def require_scheme(scheme: QuantizationScheme, trained: bool) -> None:
    """Raises ValueError if a scheme is not for a model, with fake quantization or without."""
    if trained and not scheme.trained:
        raise ValueError(
            f"scheme {scheme.name!r} quantizes float models, got one with fake quantization; convert the float model"
        )
    mixed = len(scheme.all_weight_bits) > 1 or len(scheme.all_activation_bits) > 1
    if mixed and not trained:
        raise ValueError(
            f"scheme {scheme.name!r} overrides the width of some layers, which training decides, got a float model;"
            " convert a quantization-aware trained one"
        )


def require_no_fused_halves(scheme: QuantizationScheme, fused: bool) -> None:
    """Raises ValueError for an LSTM with float16 weights, for which TensorFlow's converter takes memory without end."""
    if fused and scheme.weight_bits == 16:
        raise ValueError(
            f"scheme {scheme.name!r}: TensorFlow's converter cannot convert an LSTM as one op to float16; unroll it"
            " (unroll=True), or convert with scheme 'dynamic_range'"
        )


def require_finite_weights(concrete: Any) -> None:
    """Raises ValueError for an infinite weight or range, with which TensorFlow's converter ends the process."""
    broken = trained_ranges.non_finite_layers(concrete)
    if broken:
        raise ValueError(
            f"weights or ranges are not finite in: {', '.join(broken)}; look for features that are not numbers, and"
            " train again"
        )


def require_trained_ranges(definition: Any) -> None:
    """Raises ValueError if fake quantization in a frozen graph has a range that was never trained."""
    unobserved = trained_ranges.unobserved_layers(definition)
    if unobserved:
        raise ValueError(
            f"no range was ever trained for: {', '.join(unobserved)}; fine-tune the quantized model for at least one"
            " step before converting it"
        )


def require_examples(scheme: QuantizationScheme, trained: bool) -> None:
    """Raises ValueError if a model cannot be converted without examples to calibrate with."""
    if scheme.activation_bits == 16:
        raise ValueError(
            f"scheme {scheme.name!r} has 16-bit activations, whose ranges are calibrated: pass a representative_dataset"
        )
    if scheme.integer_only and not trained:
        raise ValueError(
            "a float model has no ranges to quantize with: pass a representative_dataset, or a quantization-aware"
            " trained model"
        )


def require_calibratable(
    function: DenseFunction, definition: Any, examples: Iterable[Mapping[str, npt.NDArray[Any]]]
) -> None:
    """Raises ValueError for what TensorFlow's calibration would end the process with: loops, and infinite values.

    Args:
      function: The function.
      definition: Its graph, from `freeze`.
      examples: What it is calibrated with, by name of the input.
    """
    looping = loops(function.concrete)
    if looping:
        raise ValueError(
            f"the model loops in {', '.join(looping)}, where ranges cannot be calibrated; unroll recurrent layers"
            " (unroll=True)"
        )
    tensors = {name: tensor.name for name, tensor in function.input_tensors.items()}
    fed = ({tensors[name]: values for name, values in example.items()} for example in examples)
    broken = finite_values.non_finite_nodes(definition, fed)
    if broken:
        raise ValueError(
            f"representative_dataset: from its examples {', '.join(broken[:3])} compute what is infinite or no number,"
            " which has no range; keep such values out, by tf.maximum before a logarithm or a root, say"
        )


def require_edges_with_ranges(tflite: bytes, trained: bool) -> None:
    """Raises ValueError if an input or output has hardly any range.

    Args:
      tflite: A TFLite flatbuffer.
      trained: Whether its ranges came from training.
    """
    graph = flatbuffer.read_subgraphs(tflite)[0]
    edges = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
    bad = ", ".join(f"{edge.name} (scale {edge.scale[0]:g})" for edge in edges if edge.scale and not _has_range(edge))
    if bad and trained:
        raise ValueError(
            f"no range was ever trained for: {bad}; fine-tune the quantized model for at least one step before"
            " converting it"
        )
    if bad:
        raise ValueError(f"the representative dataset has hardly any range in: {bad}; scale the features")


def require_runnable(tflite: bytes) -> None:
    """Runs the model once: some of TFLite's kernels refuse types that the converter makes, a few only then.

    Raises:
      ValueError: If TFLite cannot run it.
    """
    try:
        interpreter = tf.lite.Interpreter(model_content=tflite, num_threads=1)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the converted model cannot be run by TFLite: {' '.join(str(error).split())[:500]}; replace that layer or"
            " choose another scheme"
        ) from error


def _has_range(tensor: flatbuffer.Tensor) -> bool:
    bits = np.iinfo(tensor.dtype.lower()).bits
    return math.isfinite(tensor.scale[0]) and tensor.scale[0] * 2**bits > _SMALLEST_RANGE
