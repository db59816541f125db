"""TensorFlow's converter, run on a frozen graph: nothing is saved, loaded or traced again."""

import contextlib
import dataclasses
import inspect
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.lite.python import convert as tf_convert
from tensorflow.lite.python import lite
from tensorflow.lite.python.convert import ConverterError

from components.quantization.conversion import interface
from components.quantization.conversion.calibration import recalibrated
from components.quantization.conversion.dense_function import DenseFunction

Feeds = Callable[[], Iterator[dict[str, npt.NDArray[Any]]]]

_INTEGER_OPS = {
    8: tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
    16: tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
}
# What Keras names the functions of an LSTM, which becomes one op if the converter sees them.
_FUSED = "lstm_"
# What follows the causes in its messages.
_SUMMARY = "failed while converting"
_MOST_CAUSES = 5
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
    """

    integer_only: bool
    activation_bits: int
    weight_bits: int
    per_channel: bool
    per_channel_dense: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What is converted.

    Attributes:
      function: The function.
      definition: Its graph, from `freeze`; it is rewritten in place, not copied: it may be large.
      rewrite: What is done to a graph first, in place; once more changes nothing.
      feeds: Yields one example after another by input name, to calibrate what has no range; None not to calibrate.
    """

    function: DenseFunction
    definition: Any
    rewrite: Callable[[Any], None]
    feeds: Feeds | None = None


def run(source: Source, options: ConverterOptions) -> bytes:
    """Converts a function; inputs and outputs of integer models are int8, or int16 with 16-bit activations.

    Returns:
      A TFLite flatbuffer; inputs and outputs, and their tensors, are named as those of the function, and in its order,
      but for models with a fused LSTM, whose order is the converter's.

    Raises:
      ValueError: If the converter refuses the model.
    """
    return _run(source, options, calibrate_only=False)


def calibrate(source: Source, options: ConverterOptions) -> bytes:
    """Returns the float file, named as that of `run`, with the ranges that the examples have: what `quantize` takes.

    Raises:
      ValueError: If the converter refuses the model.
    """
    return _run(source, options, calibrate_only=True)


def quantize(calibrated: bytes, options: ConverterOptions, feeds: Feeds, method: str) -> bytes:
    """Returns the 8-bit model of a file from `calibrate`, with the ranges that another method finds.

    Args:
      calibrated: The file.
      options: Those that it was calibrated with.
      feeds: The examples that it was calibrated with.
      method: A method of calibration.

    Raises:
      ValueError: If the converter refuses the model.
    """
    arguments: dict[str, Any] = {"disable_per_channel": not options.per_channel, "fully_quantize": True}
    arguments |= {"input_data_type": tf.int8, "output_data_type": tf.int8}
    if _DENSE_ARGUMENT in inspect.signature(tf_convert.mlir_quantize).parameters:  # since TensorFlow 2.17
        arguments[_DENSE_ARGUMENT] = not options.per_channel_dense
    names = interface.names_of(calibrated)
    with _refusals():
        quantized = tf_convert.mlir_quantize(recalibrated(calibrated, feeds, method), **arguments)
    return interface.with_names(quantized, *names)


def _run(source: Source, options: ConverterOptions, calibrate_only: bool) -> bytes:
    with _refusals():
        if has_fused_functions(source.function.concrete):
            return _run_saved(source, options, calibrate_only)
        return _run_frozen(source, options, calibrate_only)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (ConverterError, RuntimeError) as error:  # of its first and second half: translation and quantization
        raise ValueError(f"TensorFlow's converter refuses the model: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    """What the converter says, without the lines of Python that each op was made by; all of it if that says nothing."""
    places = {}
    for part in getattr(error, "errors", ()):
        names = [call.name for call in part.location.call if call.name]
        places[f"'{part.operator.name}'"] = f" (it is {names[0]})" if names else ""
    found = [line.partition("error: ")[2].strip() for line in str(error).splitlines()]
    causes = [line for line in dict.fromkeys(found) if line and not line.startswith(_SUMMARY)]
    told = [line + next((place for op, place in places.items() if op in line), "") for line in causes]
    if told:
        return f"{'; '.join(told[:_MOST_CAUSES])}; replace what is named, or cut the model before it"
    return " ".join(str(error).split())[:500]


def _run_frozen(source: Source, options: ConverterOptions, calibrate_only: bool) -> bytes:
    inputs, outputs, feeds = source.function.input_tensors, source.function.output_tensors, source.feeds
    converter = lite.TFLiteConverterV2([source.function.concrete])
    # Without a signature examples are lists, in the order of the inputs.
    examples = None if feeds is None else lambda: ([example[name] for name in inputs] for example in feeds())
    _set(converter, options, examples, calibrate_only)
    source.rewrite(source.definition)
    tflite = lite.TFLiteConverterBaseV2.convert(
        converter, source.definition, list(inputs.values()), list(outputs.values())
    )
    return interface.with_names(tflite, list(inputs), list(outputs))


def _run_saved(source: Source, options: ConverterOptions, calibrate_only: bool) -> bytes:
    """Keeps functions, by which the converter knows what they implement."""
    with tempfile.TemporaryDirectory(prefix="tfx-qat-") as directory:
        module = tf.Module()
        module.source = source.function.trackable
        tf.saved_model.save(module, directory, signatures={interface.SIGNATURE: source.function.concrete})
        path = Path(directory) / "saved_model.pb"
        content = saved_model_pb2.SavedModel.FromString(path.read_bytes())
        for graph in content.meta_graphs:
            source.rewrite(graph.graph_def)
        path.write_bytes(content.SerializeToString(deterministic=True))
        converter = tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=[interface.SIGNATURE])
        arguments, feeds = source.function.arguments, source.feeds
        # Of a signature examples are by argument.
        examples = None if feeds is None else lambda: ({arguments[n]: x[n] for n in arguments} for x in feeds())
        _set(converter, options, examples, calibrate_only)
        tflite = converter.convert()
    names = {argument: name for name, argument in arguments.items()}
    inputs, outputs = interface.names_of(tflite)
    return interface.with_names(tflite, [names[argument] for argument in inputs], outputs)


def _set(converter: Any, options: ConverterOptions, examples: Callable[[], Any] | None, calibrate_only: bool) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if options.integer_only:
        dtype = tf.int16 if options.activation_bits == 16 else tf.int8
        converter.inference_input_type = converter.inference_output_type = dtype
    converter._experimental_disable_per_channel = not options.per_channel
    converter._experimental_disable_per_channel_quantization_for_dense_layers = not options.per_channel_dense
    if options.weight_bits == 16:
        converter.target_spec.supported_types = [tf.float16]
    if examples is not None:
        converter.target_spec.supported_ops = [_INTEGER_OPS[options.activation_bits]]
        converter.representative_dataset = examples
        converter._experimental_calibrate_only = calibrate_only


def has_fused_functions(concrete: Any) -> bool:
    """Whether a function holds an LSTM, whose functions the converter makes one op of; its graph is not frozen."""
    library = concrete.graph.as_graph_def().library.function
    return any(function.attr["api_implements"].s.decode().startswith(_FUSED) for function in library)
