"""Conversion of a Keras model or SavedModel to a TFLite model, proved to be integer-only where the scheme says so."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import tf_keras

from components.quantization.autograph import leave_libraries_alone
from components.quantization.conversion import cache, io_dtypes
from components.quantization.conversion.calibration import AUTO, MIN_MAX, load_method
from components.quantization.conversion.dense_function import DENSE_SIGNATURE, DenseFunction, dense_function
from components.quantization.conversion.profiles import ConversionProfile, load_profile
from components.quantization.conversion.report import Conversion
from components.quantization.conversion.representative_dataset import Batch
from components.quantization.conversion.run import ConversionRun
from components.quantization.input_shapes import InputShapes
from components.quantization.schemes import QuantizationScheme, load_scheme

__all__ = ["DENSE_SIGNATURE", "convert", "convert_with_report"]

_LOGGER = logging.getLogger(__name__)


def convert(
    model: tf_keras.Model | str | Path,
    scheme: str | QuantizationScheme = "full_int8",
    representative_dataset: Iterable[Batch] | None = None,
    profile: str | ConversionProfile = "edge_tpu",
    io_dtype: str | Mapping[str, str] | None = None,
    *,
    input_shapes: InputShapes = None,
) -> bytes:
    """Converts a model to a TFLite flatbuffer for batches of one.

    If the scheme is one of integers, the result is proved to compute in integers alone. A quantization-aware-trained
    model carries its ranges, which are kept as they are; what has none is calibrated with `representative_dataset`: all
    of a float model (post-training quantization), layers that training left out, and all 16-bit activations.

    The same model, arguments and versions give the same bytes.

    Args:
      model: A tf_keras model, or the path of a SavedModel with signature "serving_dense" (else "serving_default").
      scheme: A scheme or its name.
      representative_dataset: Batches of float32 inputs in the model's own units, each an array of shape
        (batch, ...) or, for several inputs, a dict from input name to such an array. Not read if training gave all
        ranges.
      profile: The target, by name, whose needs set the converter's options and are audited.
      io_dtype: Type of inputs and outputs, of all or by name: "int8" or "uint8", "int16" with 16-bit activations,
        "float32" with float ones; None for the first that the scheme has. "float32" of an integer model puts a
        QUANTIZE or DEQUANTIZE at that edge, outside of what is proved. Where an override gives single ones 16 bits,
        these are "int16".
      input_shapes: Shapes of inputs that have unknown dimensions, without the batch: by name, or that of the only
        input.

    Returns:
      The flatbuffer; signature "serving_default" names inputs and outputs as the model does, and so do their tensors.

    Raises:
      NotIntegerOnlyError: If a float tensor is computed though the scheme is one of integers, or the profile's rules
        are broken; lists every offender.
      ValueError: If an argument is wrong, an input has an unknown dimension, or ranges are missing.

    >>> import tf_keras
    >>> model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
    >>> convert(model, representative_dataset=[[[0.0, 0.5, 1.0]]])[4:8]
    b'TFL3'
    """
    return convert_with_report(
        model, scheme, representative_dataset, profile, io_dtype, input_shapes=input_shapes
    ).tflite


def convert_with_report(
    model: tf_keras.Model | str | Path | DenseFunction,
    scheme: str | QuantizationScheme = "full_int8",
    representative_dataset: Iterable[Batch] | None = None,
    profile: str | ConversionProfile = "edge_tpu",
    io_dtype: str | Mapping[str, str] | None = None,
    *,
    input_shapes: InputShapes = None,
    calibration: str = MIN_MAX,
    score: Callable[[bytes], float] | None = None,
    cache_dir: Path | None = None,
) -> Conversion:
    """Converts as `convert` does, and says how.

    Args:
      model: As in `convert`, or from `dense_function`.
      scheme: As in `convert`.
      representative_dataset: As in `convert`.
      profile: As in `convert`.
      io_dtype: As in `convert`.
      input_shapes: As in `convert`; a model from `dense_function` has them.
      calibration: How ranges are found from examples: one of `calibration.METHODS`, or "auto" for the one of them whose
        model has the best score. Ranges of 16 bits are always the extremes.
      score: What "auto" measures a model by; higher is better. It is not called for another method, or where training
        gave all ranges.
      cache_dir: Where conversions are kept by the sha256 of all that decides them, and found again; made if it is not
        there; None for nowhere.

    Raises:
      NotIntegerOnlyError: As `convert`.
      ValueError: As `convert`.
    """
    scheme, profile = load_scheme(scheme), load_profile(profile)
    profile.check(scheme)
    io_dtypes.require(io_dtype, scheme)
    _require_calibration(calibration, score)
    if cache_dir is not None:
        cache.require_directory(cache_dir)
    leave_libraries_alone()
    started = time.perf_counter()
    function = model if isinstance(model, DenseFunction) else dense_function(model, input_shapes)
    traced_s = time.perf_counter() - started
    dtypes = io_dtypes.by_name(io_dtype, scheme, (*function.inputs, *function.outputs))
    edges = {**function.inputs, **function.concrete.structured_outputs}
    io_dtypes.require_real(io_dtype, {name: edge.dtype.name for name, edge in edges.items()})
    conversion = ConversionRun(function, scheme, profile, dtypes, cache_dir)
    conversion.seconds["trace"] = traced_s
    # Whoever gives an iterator gets it read once.
    made = conversion.run(representative_dataset, calibration if scheme.activation_bits == 8 else MIN_MAX, score)
    shown = ", ".join(dict.fromkeys(made.report.io_dtypes.values()))
    _LOGGER.info("converted to %d bytes by scheme %s, %s inputs and outputs", len(made.tflite), scheme.name, shown)
    return made


def _require_calibration(calibration: str, score: object) -> None:
    if calibration != AUTO:
        load_method(calibration)
    elif score is None:
        raise ValueError(f"calibration: got {AUTO!r} without a score, expected a function that measures a model")
