"""Conversion of a Keras model or SavedModel to an integer-only TFLite model."""

import logging
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras
from tensorflow.lite.python.convert import ConverterError

from components.quantization.autograph import leave_libraries_alone
from components.quantization.conversion import audit as auditing
from components.quantization.conversion import flatbuffer, require_io_dtype
from components.quantization.conversion.profiles import ConversionProfile, load_profile
from components.quantization.schemes import QuantizationScheme, load_scheme

_LOGGER = logging.getLogger(__name__)

# The signature of a SavedModel that takes dense, transformed features; written by components.quantization.qat.export.
DENSE_SIGNATURE = "serving_dense"
# tfmot's activation ranges start as [-6, 6] and its input range as a point; the scale of a range that was never
# trained or calibrated is about 1e-6 / 255.
_SMALLEST_SCALE = 1e-8

Batch = Mapping[str, npt.ArrayLike] | npt.ArrayLike
_Signature = dict[str, tf.TensorSpec]


def convert(
    model: tf_keras.Model | str | Path,
    scheme: str | QuantizationScheme = "full_int8",
    representative_dataset: Iterable[Batch] | None = None,
    profile: str | ConversionProfile = "edge_tpu",
    io_dtype: str = "int8",
) -> bytes:
    """Converts a model to a TFLite flatbuffer that is proved to be integer-only, for batches of one.

    A quantization-aware-trained model carries its ranges; a float one is calibrated with `representative_dataset`
    (post-training quantization).

    Args:
      model: A tf_keras model, or the path of a SavedModel with signature "serving_dense" (else "serving_default").
      scheme: A scheme or its name.
      representative_dataset: Batches of float32 inputs in the model's own units, each an array of shape
        (batch, ...) or, for several inputs, a dict from input name to such an array. Needed by a float model.
      profile: The target, by name, whose needs set the converter's options and are audited.
      io_dtype: Type of inputs and outputs: "int8" or "uint8".

    Returns:
      The flatbuffer; signature "serving_default" names inputs and outputs as the model does.

    Raises:
      NotIntegerOnlyError: If a float tensor is computed; lists every offender.
      ValueError: If an argument is wrong, an input has an unknown dimension, or ranges are missing.

    >>> import tf_keras
    >>> model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
    >>> convert(model, representative_dataset=[[[0.0, 0.5, 1.0]]])[4:8]
    b'TFL3'
    """
    scheme, profile = load_scheme(scheme), load_profile(profile)
    profile.check(scheme)
    require_io_dtype(io_dtype)
    leave_libraries_alone()
    function, signature, trackable = _dense_function(model)
    concrete, fixed = _fixed_batch(function, signature)
    trained = _has_fake_quantization(concrete)
    if not trained and representative_dataset is None:
        raise ValueError(
            "a float model has no ranges to quantize with: pass a representative_dataset, or a quantization-aware"
            " trained model"
        )
    with tempfile.TemporaryDirectory(prefix="tfx-qat-") as directory:
        module = tf.Module()
        module.source = trackable
        tf.saved_model.save(module, directory, signatures={"serving_default": concrete})
        converter = tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=["serving_default"])
        _configure(converter, scheme, profile, io_dtype)
        if not trained and representative_dataset is not None:
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.representative_dataset = _calibration(representative_dataset, fixed)
        tflite = _converted(converter)
    found = auditing.audit(tflite, profile)
    if found.offenders:
        raise auditing.NotIntegerOnlyError(found)
    _check_ranges(tflite, trained)
    _LOGGER.info("converted to %d bytes, %d ops, %s inputs and outputs", len(tflite), found.ops, io_dtype)
    return tflite


def _converted(converter: Any) -> bytes:
    try:
        tflite: bytes = converter.convert()
    except ConverterError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f"TensorFlow's converter refuses the model: {' '.join(lines)[:500]}") from error
    return tflite


def _dense_function(model: tf_keras.Model | str | Path) -> tuple[Callable[..., Any], _Signature, Any]:
    """Returns a function on named dense inputs, the specs of those inputs, and what must be saved with it."""
    if isinstance(model, str | Path):
        if not tf.saved_model.contains_saved_model(str(model)):
            raise ValueError(f"no SavedModel at {model}; give the path of a directory with a saved_model.pb")
        loaded = tf.saved_model.load(str(model))
        key = DENSE_SIGNATURE if DENSE_SIGNATURE in loaded.signatures else "serving_default"
        if key not in loaded.signatures:
            raise ValueError(f"SavedModel {model} has no signature {DENSE_SIGNATURE!r}; export it with one")
        function = loaded.signatures[key]
        if any(spec.dtype == tf.string for spec in function.structured_input_signature[1].values()):
            raise ValueError(
                f"signature {key!r} of SavedModel {model} takes strings, perhaps serialized examples; export one called"
                f" {DENSE_SIGNATURE!r} that takes dense features"
            )
        return function, dict(function.structured_input_signature[1]), loaded
    if not isinstance(model, tf_keras.Model):
        raise ValueError(
            f"model: got {type(model).__module__}.{type(model).__name__}, expected a tf_keras.Model or the path of a"
            " SavedModel; build the model with tf_keras, not with Keras 3"
        )
    if not model.inputs:
        raise ValueError(f"model {model.name!r} has no known inputs; begin it with a tf_keras.Input")
    names = list(model.input_names)
    inputs = {n: tf.TensorSpec(i.shape, i.dtype, name=n) for n, i in zip(names, model.inputs, strict=True)}

    def call(**features: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(features if len(names) > 1 else features[names[0]], training=False)
        return dict(zip(model.output_names, tf.nest.flatten(outputs), strict=True))

    return call, inputs, model


def _fixed_batch(function: Callable[..., Any], signature: _Signature) -> tuple[Any, _Signature]:
    """Traces the function for a batch of one."""
    fixed = {name: tf.TensorSpec([1, *spec.shape[1:]], spec.dtype, name=name) for name, spec in signature.items()}
    unknown = [f"{name} {tuple(spec.shape)}" for name, spec in fixed.items() if None in tuple(spec.shape)]
    if unknown:
        raise ValueError(
            f"inputs with an unknown dimension: {', '.join(unknown)}; give the model's inputs static shapes"
        )
    traced = tf.function(lambda **features: function(**features)).get_concrete_function(**fixed)
    return traced, fixed


def _has_fake_quantization(concrete: Any) -> bool:
    definition = concrete.graph.as_graph_def()
    nodes = [*definition.node, *(node for f in definition.library.function for node in f.node_def)]
    return any(node.op.startswith("FakeQuantWithMinMaxVars") for node in nodes)


def _configure(converter: Any, scheme: QuantizationScheme, profile: ConversionProfile, io_dtype: str) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(io_dtype)
    converter._experimental_disable_per_channel = not scheme.per_axis_weights
    converter._experimental_disable_per_channel_quantization_for_dense_layers = not profile.per_channel_dense


def _calibration(batches: Iterable[Batch], signature: _Signature) -> Callable[[], Iterator[dict[str, Any]]]:
    """Splits named batches into feeds of one example, by name, as the converter's signature wants them."""

    def feeds() -> Iterator[dict[str, Any]]:
        count = 0
        for batch in batches:
            arrays = _named_arrays(batch, signature)
            for row in range(len(next(iter(arrays.values())))):
                count += 1
                yield {name: array[row : row + 1] for name, array in arrays.items()}
        if not count:
            raise ValueError("representative_dataset: got no example, expected at least one; 100 to 500 are usual")

    return feeds


def _named_arrays(batch: Batch, signature: _Signature) -> dict[str, npt.NDArray[Any]]:
    named: Mapping[str, npt.ArrayLike]
    if isinstance(batch, tuple):
        raise ValueError("representative_dataset: got a tuple, such as (features, label); give the features alone")
    if isinstance(batch, Mapping):
        named = batch
    elif len(signature) == 1:
        named = {next(iter(signature)): batch}
    else:
        raise ValueError(
            f"representative_dataset: got an array for a model with inputs {', '.join(signature)}, expected a dict by"
            " name"
        )
    missing = sorted(set(signature) - set(named))
    if missing:
        raise ValueError(f"representative_dataset: got {sorted(named)}, missing the inputs {missing}")
    arrays = {name: np.asarray(named[name], spec.dtype.as_numpy_dtype) for name, spec in signature.items()}
    for name, array in arrays.items():
        expected = tuple(signature[name].shape[1:])
        if array.shape[1:] != expected:
            raise ValueError(
                f"representative_dataset: input {name!r} has shape {array.shape}, expected (batch, {str(expected)[1:]}"
            )
    return arrays


def _check_ranges(tflite: bytes, trained: bool) -> None:
    graph = flatbuffer.read_subgraphs(tflite)[0]
    edges: Sequence[flatbuffer.Tensor] = [graph.tensors[i] for i in (*graph.inputs, *graph.outputs)]
    bad = [f"{t.name} (scale {t.scale[0]:g})" for t in edges if t.scale and not _usable(t.scale[0])]
    if bad:
        if trained:
            raise ValueError(
                f"no range was ever trained for: {', '.join(bad)}; fine-tune the quantized model for at least one step"
                " before converting it"
            )
        raise ValueError(f"the representative dataset has hardly any range in: {', '.join(bad)}; scale the features")


def _usable(scale: float) -> bool:
    return math.isfinite(scale) and scale > _SMALLEST_SCALE
