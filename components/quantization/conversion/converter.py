"""TensorFlow's converter, run on a frozen graph: nothing is saved, loaded or traced again."""

import dataclasses
import inspect
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.lite.python import convert as tf_convert
from tensorflow.lite.python import lite
from tensorflow.lite.python.convert import ConverterError

from components.quantization.conversion import flatbuffer, interface
from components.quantization.conversion.calibration import MIN_MAX, recalibrated
from components.quantization.conversion.dense_function import DenseFunction

Feeds = Callable[[], Iterator[dict[str, npt.NDArray[Any]]]]

_INTEGER_OPS = {
    8: tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
    16: tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
}
# What Keras names the functions of an LSTM, which becomes one op if the converter sees them.
_FUSED = "lstm_"
_DENSE_ARGUMENT = "disable_per_channel_for_dense_layers"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConverterOptions:
    """What the converter is told.

    Attributes:
      integer_only: Whether inputs and outputs are integers.
      activation_bits: 8, 16, or 32 for floats.
      weight_bits: 8 or 4 for integers, 16 for floats.
      per_channel: Whether weights of convolutions may have one scale per output channel.
      per_channel_dense: Whether those of Dense layers may.
      calibration: Name of the method that finds ranges of 8-bit tensors from examples.
    """

    integer_only: bool
    activation_bits: int
    weight_bits: int
    per_channel: bool
    per_channel_dense: bool
    calibration: str = MIN_MAX


def run(
    function: DenseFunction,
    definition: Any,
    options: ConverterOptions,
    feeds: Feeds | None = None,
    rewrite: Callable[[Any], None] = lambda definition: None,
) -> bytes:
    """Converts a function; inputs and outputs of integer models are int8, or int16 with 16-bit activations.

    Args:
      function: The function.
      definition: Its graph, from `freeze`; it is rewritten in place, not copied: it may be large.
      options: What the converter is told.
      feeds: Yields one example after another by input name, to calibrate what has no range; None not to calibrate.
      rewrite: What is done to the graph first, in place.

    Returns:
      A TFLite flatbuffer; inputs and outputs, and their tensors, are named as those of the function, and in its order,
      but for models with a fused LSTM, whose order is the converter's.

    Raises:
      ValueError: If the converter refuses the model.
    """
    try:
        if _has_fused_functions(function.concrete):
            return _run_saved(function, options, feeds, rewrite)
        return _run_frozen(function, definition, options, feeds, rewrite)
    except (ConverterError, RuntimeError) as error:  # of its first and second half: translation and quantization
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f"TensorFlow's converter refuses the model: {' '.join(lines)[:500]}") from error


def _run_frozen(
    function: DenseFunction, definition: Any, options: ConverterOptions, feeds: Feeds | None, rewrite: Any
) -> bytes:
    converter = lite.TFLiteConverterV2([function.concrete])
    _set(converter, options)
    names, inputs = list(function.input_tensors), list(function.input_tensors.values())
    if feeds is not None:  # without a signature the examples are lists, in the order of the inputs
        _calibrate(converter, options, lambda: ([example[name] for name in names] for example in feeds()))
    rewrite(definition)
    outputs = function.output_tensors
    tflite = lite.TFLiteConverterBaseV2.convert(converter, definition, inputs, list(outputs.values()))
    return interface.with_names(_with_other_ranges(tflite, options, feeds, names), names, list(outputs))


def _run_saved(function: DenseFunction, options: ConverterOptions, feeds: Feeds | None, rewrite: Any) -> bytes:
    """Keeps functions, by which the converter knows what they implement."""
    with tempfile.TemporaryDirectory(prefix="tfx-qat-") as directory:
        module = tf.Module()
        module.source = function.trackable
        tf.saved_model.save(module, directory, signatures={interface.SIGNATURE: function.concrete})
        path = Path(directory) / "saved_model.pb"
        content = saved_model_pb2.SavedModel.FromString(path.read_bytes())
        for graph in content.meta_graphs:
            rewrite(graph.graph_def)
        path.write_bytes(content.SerializeToString(deterministic=True))
        converter = tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=[interface.SIGNATURE])
        _set(converter, options)
        if feeds is not None:
            _calibrate(converter, options, feeds)
        tflite = _with_other_ranges(converter.convert(), options, feeds, None)
    graph, signature = flatbuffer.read_subgraphs(tflite)[0], interface.signature_of(tflite)
    inputs, outputs = ({index: name for name, index in side.items()} for side in signature)
    return interface.with_names(tflite, [inputs[i] for i in graph.inputs], [outputs[i] for i in graph.outputs])


def _set(converter: Any, options: ConverterOptions) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if options.integer_only:
        dtype = tf.int16 if options.activation_bits == 16 else tf.int8
        converter.inference_input_type = converter.inference_output_type = dtype
    converter._experimental_disable_per_channel = not options.per_channel
    converter._experimental_disable_per_channel_quantization_for_dense_layers = not options.per_channel_dense
    if options.weight_bits == 16:
        converter.target_spec.supported_types = [tf.float16]


def _calibrate(converter: Any, options: ConverterOptions, feeds: Callable[[], Any]) -> None:
    converter.target_spec.supported_ops = [_INTEGER_OPS[options.activation_bits]]
    converter.representative_dataset = feeds
    # It then gives a float file with the ranges that it found.
    converter._experimental_calibrate_only = _finds_other_ranges(options)


def _finds_other_ranges(options: ConverterOptions) -> bool:
    return options.calibration != MIN_MAX and options.activation_bits == 8


def _with_other_ranges(
    tflite: bytes, options: ConverterOptions, feeds: Feeds | None, inputs: Sequence[str] | None
) -> bytes:
    """Quantizes a calibrated float file with the ranges of another method; leaves a file that is quantized already."""
    if feeds is None or not _finds_other_ranges(options):
        return tflite
    arguments: dict[str, Any] = {"disable_per_channel": not options.per_channel, "fully_quantize": True}
    arguments |= {"input_data_type": tf.int8, "output_data_type": tf.int8}
    if _DENSE_ARGUMENT in inspect.signature(tf_convert.mlir_quantize).parameters:  # since TensorFlow 2.17
        arguments[_DENSE_ARGUMENT] = not options.per_channel_dense
    quantized: bytes = tf_convert.mlir_quantize(recalibrated(tflite, feeds, options.calibration, inputs), **arguments)
    return quantized


def _has_fused_functions(concrete: Any) -> bool:
    library = concrete.graph.as_graph_def().library.function
    return any(function.attr["api_implements"].s.decode().startswith(_FUSED) for function in library)
