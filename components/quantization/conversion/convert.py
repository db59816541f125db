"""Conversion of a Keras model or SavedModel to a TFLite model, proved to be integer-only where the scheme says so."""

import dataclasses
import logging
import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.lite.python.convert import ConverterError

from components.quantization.autograph import leave_libraries_alone
from components.quantization.conversion import (
    audit,
    default_io_dtype,
    finite_values,
    flatbuffer,
    int4_packing,
    int16_layers,
    int16_ranges,
    require_io_dtype,
    trained_ranges,
)
from components.quantization.conversion.dense_function import DENSE_SIGNATURE, DenseFunction, dense_function, loops
from components.quantization.conversion.profiles import ConversionProfile, load_profile
from components.quantization.conversion.representative_dataset import Batch, feeds
from components.quantization.schemes import QuantizationScheme, load_scheme

__all__ = ["DENSE_SIGNATURE", "convert"]

_LOGGER = logging.getLogger(__name__)

# The converter widens a range that was never trained or calibrated, a point, to about 1e-6.
_SMALLEST_RANGE = 2.5e-6
_INTEGER_OPS = {
    8: tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
    16: tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
}


def convert(
    model: tf_keras.Model | str | Path,
    scheme: str | QuantizationScheme = "full_int8",
    representative_dataset: Iterable[Batch] | None = None,
    profile: str | ConversionProfile = "edge_tpu",
    io_dtype: str | None = None,
) -> bytes:
    """Converts a model to a TFLite flatbuffer for batches of one.

    If the scheme is one of integers, the result is proved to compute in integers alone. A quantization-aware-trained
    model carries its ranges, which are kept as they are; what has none is calibrated with `representative_dataset`: all
    of a float model (post-training quantization), layers that training left out, and all 16-bit activations.

    Args:
      model: A tf_keras model, or the path of a SavedModel with signature "serving_dense" (else "serving_default").
      scheme: A scheme or its name.
      representative_dataset: Batches of float32 inputs in the model's own units, each an array of shape
        (batch, ...) or, for several inputs, a dict from input name to such an array.
      profile: The target, by name, whose needs set the converter's options and are audited.
      io_dtype: Type of inputs and outputs: "int8" or "uint8", "int16" with 16-bit activations, "float32" with float
        ones; None for the first that the scheme has. Where an override gives single ones 16 bits, these are "int16".

    Returns:
      The flatbuffer; signature "serving_default" names inputs and outputs as the model does.

    Raises:
      NotIntegerOnlyError: If a float tensor is computed though the scheme is one of integers, or the profile's rules
        are broken; lists every offender.
      ValueError: If an argument is wrong, an input has an unknown dimension, or ranges are missing.

    >>> import tf_keras
    >>> model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
    >>> convert(model, representative_dataset=[[[0.0, 0.5, 1.0]]])[4:8]
    b'TFL3'
    """
    scheme, profile = load_scheme(scheme), load_profile(profile)
    profile.check(scheme)
    io_dtype = default_io_dtype(scheme) if io_dtype is None else io_dtype
    require_io_dtype(io_dtype, scheme)
    leave_libraries_alone()
    conversion = _Conversion(dense_function(model), scheme, profile, io_dtype)
    # Whoever gives an iterator gets it read once.
    tflite = conversion.run(None if representative_dataset is None else list(representative_dataset))
    _LOGGER.info("converted to %d bytes by scheme %s, %s inputs and outputs", len(tflite), scheme.name, io_dtype)
    return tflite


class _Conversion:
    """One conversion: what all its steps need to know."""

    def __init__(
        self, function: DenseFunction, scheme: QuantizationScheme, profile: ConversionProfile, io_dtype: str
    ) -> None:
        self._function = function
        self._scheme = scheme
        self._profile = profile
        self._io_dtype = io_dtype
        self._trained = trained_ranges.has_fake_quantization(function.concrete)

    def run(self, dataset: Iterable[Batch] | None) -> bytes:
        self._check_scheme()
        self._check_numbers()
        self._check_ranges_are_there(dataset)
        with tempfile.TemporaryDirectory(prefix="tfx-qat-") as directory:
            module = tf.Module()
            module.source = self._function.trackable
            tf.saved_model.save(module, directory, signatures={"serving_default": self._function.concrete})
            if self._scheme.activation_bits == 16:
                trained_ranges.remove_fake_quantization(Path(directory))
            else:
                int16_ranges.narrow(Path(directory))
            tflite = self._converted(directory, dataset)
        tflite = self._widened(self._packed(tflite))
        self._check(tflite, dataset)
        return tflite

    def _check_scheme(self) -> None:
        scheme = self._scheme
        if self._trained and not scheme.trained:
            raise ValueError(
                f"scheme {scheme.name!r} quantizes float models, got one with fake quantization; convert the float"
                " model"
            )
        mixed = len(scheme.all_weight_bits) > 1 or len(scheme.all_activation_bits) > 1
        if mixed and not self._trained:
            raise ValueError(
                f"scheme {scheme.name!r} overrides the width of some layers, which training decides, got a float"
                " model; convert a quantization-aware trained one"
            )

    def _check_numbers(self) -> None:
        """TensorFlow's converter ends the process when it meets an infinite range."""
        broken = trained_ranges.non_finite_layers(self._function.concrete)
        if broken:
            raise ValueError(
                f"weights or ranges are not finite in: {', '.join(broken)}; look for features that are not numbers,"
                " and train again"
            )

    def _check_ranges_are_there(self, dataset: Iterable[Batch] | None) -> None:
        scheme = self._scheme
        if self._trained:
            unobserved = trained_ranges.unobserved_layers(self._function.concrete)
            if unobserved:
                raise ValueError(
                    f"no range was ever trained for: {', '.join(unobserved)}; fine-tune the quantized model for at"
                    " least one step before converting it"
                )
        if dataset is not None:
            return
        if scheme.activation_bits == 16:
            raise ValueError(
                f"scheme {scheme.name!r} has 16-bit activations, whose ranges are calibrated: pass a"
                " representative_dataset"
            )
        if scheme.integer_only and not self._trained:
            raise ValueError(
                "a float model has no ranges to quantize with: pass a representative_dataset, or a quantization-aware"
                " trained model"
            )

    def _converted(self, saved_model: str, dataset: Iterable[Batch] | None) -> bytes:
        """Converts with trained ranges alone if that will do, else with calibration of those that are missing."""
        if not self._scheme.integer_only or (self._trained and self._scheme.activation_bits == 8):
            tflite = self._run_converter(saved_model, None)
            if dataset is None or not self._scheme.integer_only or audit.audit(tflite).integer_only:
                return tflite
            _LOGGER.info("some tensors have no trained range: calibrating them")
        looping = loops(self._function.concrete)
        if looping:  # TensorFlow's calibration crashes
            raise ValueError(
                f"the model loops in {', '.join(looping)}, where ranges cannot be calibrated; unroll recurrent layers"
                " (unroll=True)"
            )
        self._check_values(dataset)
        return self._run_converter(saved_model, dataset)

    def _check_values(self, dataset: Iterable[Batch] | None) -> None:
        broken = finite_values.non_finite_nodes(self._function.concrete, feeds(dataset or (), self._function.inputs)())
        if broken:
            raise ValueError(
                f"representative_dataset: from its examples {', '.join(broken[:3])} compute what is infinite or no"
                " number, which has no range; keep such values out, by tf.maximum before a logarithm or a root, say"
            )

    def _run_converter(self, saved_model: str, dataset: Iterable[Batch] | None) -> bytes:
        converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=["serving_default"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(self._io_dtype)
        converter._experimental_disable_per_channel = not self._scheme.per_axis_weights
        # The kernels of Dense layers are trained with one scale.
        per_channel_dense = self._profile.per_channel_dense and self._scheme.per_axis_weights and not self._trained
        converter._experimental_disable_per_channel_quantization_for_dense_layers = not per_channel_dense
        if self._scheme.weight_bits == 16:
            converter.target_spec.supported_types = [tf.float16]
        if dataset is not None:
            converter.target_spec.supported_ops = [_INTEGER_OPS[self._scheme.activation_bits]]
            converter.representative_dataset = feeds(dataset, self._function.inputs)
        try:
            tflite: bytes = converter.convert()
        except (ConverterError, RuntimeError) as error:  # of its first and second half: translation and quantization
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise ValueError(f"TensorFlow's converter refuses the model: {' '.join(lines)[:500]}") from error
        return tflite

    def _packed(self, tflite: bytes) -> bytes:
        if 4 not in self._scheme.all_weight_bits:
            return tflite
        packed, count = int4_packing.pack(tflite, rounding=not self._trained)
        if not count:
            raise ValueError(
                f"scheme {self._scheme.name!r}: no weights of the model are on a 4-bit grid, or no op of it has a"
                " kernel for such weights; train it with this scheme"
            )
        _LOGGER.info("packed %d tensors of weights into 4 bits", count)
        return packed

    def _widened(self, tflite: bytes) -> bytes:
        if len(self._scheme.all_activation_bits) == 1:
            return tflite
        tensors = trained_ranges.wide_tensors(self._function.concrete)
        if not tensors:
            raise ValueError(f"scheme {self._scheme.name!r}: no layer was trained with 16 bits; train with this scheme")
        return int16_layers.widen(tflite, tensors)

    def _check(self, tflite: bytes, dataset: Iterable[Batch] | None) -> None:
        found = audit.audit(tflite, self._profile)
        if not self._scheme.integer_only:
            rules = tuple(offender for offender in found.offenders if offender.rule != "integer")
            found = dataclasses.replace(found, offenders=rules)
        if not found.integer_only and dataset is None:
            remedy = "pass a representative_dataset to calibrate what has no trained range, or replace these layers"
            raise audit.NotIntegerOnlyError(found, remedy)
        if found.offenders:
            raise audit.NotIntegerOnlyError(found)
        self._check_scales(tflite)
        self._check_edges(tflite)
        require_runnable(tflite)

    def _check_scales(self, tflite: bytes) -> None:
        """The converter follows the grid that training put the weights on, whatever it is told."""
        if self._scheme.per_axis_weights:
            return
        several = audit.several_scales(tflite)
        if several:
            raise ValueError(
                f"scheme {self._scheme.name!r} has one scale per tensor of weights, got several in:"
                f" {', '.join(several)}; convert the model with the scheme that it was trained with"
            )

    def _check_edges(self, tflite: bytes) -> None:
        graph = flatbuffer.read_subgraphs(tflite)[0]
        edges: Sequence[flatbuffer.Tensor] = [graph.tensors[i] for i in (*graph.inputs, *graph.outputs)]
        bad = [f"{t.name} (scale {t.scale[0]:g})" for t in edges if t.scale and not _usable(t)]
        if bad and self._trained and self._scheme.activation_bits == 8:
            raise ValueError(
                f"no range was ever trained for: {', '.join(bad)}; fine-tune the quantized model for at least one step"
                " before converting it"
            )
        if bad:
            raise ValueError(
                f"the representative dataset has hardly any range in: {', '.join(bad)}; scale the features"
            )


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


def _usable(tensor: flatbuffer.Tensor) -> bool:
    """Whether a quantized tensor has a range."""
    bits = np.iinfo(tensor.dtype.lower()).bits
    return math.isfinite(tensor.scale[0]) and tensor.scale[0] * 2**bits > _SMALLEST_RANGE
