"""Other ranges for the activations of a file that TensorFlow's converter calibrated."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.calibration.histogram import Histogram
from components.quantization.conversion.calibration.methods import CalibrationMethod, Range, load_method
from components.quantization.conversion.calibration.scale_groups import ScaleGroup, calibrated_range, scale_groups

Feeds = Callable[[], Iterator[Mapping[str, npt.NDArray[Any]]]]


def recalibrated(calibrated: bytes, feeds: Feeds, method: str, inputs: Sequence[str] | None = None) -> bytes:
    """Returns a calibrated file with the ranges that a method finds, for the converter to quantize to 8 bits.

    The examples are run once, and the values of each activation counted between the limits that are in the file already
    (128 KiB for each). Tensors that must share a scale get one range. Kept as they are:

    - inputs of the model: their grid is what a client feeds, the identity for images of 8 bits; an outlier in a feature
      is for the preprocessing to clip, where training sees it too;
    - outputs of ops whose scale the specification fixes, such as a softmax;
    - trained ranges, between QUANTIZE and DEQUANTIZE, and what is copied from them;
    - outputs of ops with a state, such as an LSTM, and all tensors of subgraphs but the main one.

    Args:
      calibrated: What `tf.lite.TFLiteConverter` returns with `_experimental_calibrate_only`: a float model whose
        activations carry the smallest and largest value of each.
      feeds: Returns an iterator over the examples that it was calibrated with: arrays, with the batch of one, by input
        name, as `representative_dataset.feeds` makes them.
      method: The name of a method; "min_max" returns `calibrated` itself.
      inputs: Names of the inputs in the order of the file's; None for those of its signature, or else its tensors'.

    Raises:
      ValueError: If there is no such method, the file was not calibrated, examples do not fit its inputs, or there are
        none.
    """
    how = load_method(method)
    if how.name == "min_max":
        return calibrated
    model = flatbuffer.read_object(calibrated)
    if not any(calibrated_range(tensor) for tensor in model.subgraphs[0].tensors):
        raise ValueError(
            "recalibrated: got a model without calibrated ranges; convert it with a representative dataset"
        )
    groups = scale_groups(model)
    histograms = _histograms(model, groups)
    _count(calibrated, histograms, feeds, _input_indices(model, inputs))
    for group in groups:
        lower, upper = _range(model, group, histograms, how)
        for index in group.tensors:
            quantization = model.subgraphs[0].tensors[index].quantization
            quantization.min, quantization.max = np.array([lower], np.float32), np.array([upper], np.float32)
    return flatbuffer.write_object(model)


def _histograms(model: Any, groups: Sequence[ScaleGroup]) -> dict[int, Histogram]:
    """Empty histograms of the tensors whose values decide a range; one that is always the same has none."""
    found = {}
    for index in (index for group in groups for index in group.origins if index not in group.whole):
        limits = calibrated_range(model.subgraphs[0].tensors[index])
        if limits is not None and np.isfinite(limits).all() and limits[0] < limits[1]:
            found[index] = Histogram(lower=limits[0], upper=limits[1])
    return found


def _input_indices(model: Any, inputs: Sequence[str] | None) -> dict[str, int]:
    """Tensors of the model's inputs by name."""
    graph = model.subgraphs[0]
    indices = [int(index) for index in graph.inputs]
    if inputs is not None:
        if len(inputs) != len(indices):
            raise ValueError(f"inputs: got {list(inputs)}, expected {len(indices)} names in the order of the model's")
        return dict(zip(inputs, indices, strict=True))
    if model.signatureDefs:
        return {entry.name.decode(): entry.tensorIndex for entry in model.signatureDefs[0].inputs}
    return {graph.tensors[index].name.decode(): index for index in indices}


def _count(calibrated: bytes, histograms: Mapping[int, Histogram], feeds: Feeds, inputs: Mapping[str, int]) -> None:
    """Runs all examples, and counts the values of each tensor that has a histogram."""
    interpreter = tf.lite.Interpreter(
        model_content=calibrated,
        num_threads=1,
        # A delegate would hide what it computes on the way.
        experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    examples = 0
    for example in feeds():
        missing = sorted(set(inputs) - set(example))
        if missing:
            raise ValueError(f"representative_dataset: got {sorted(example)}, missing the inputs {missing}")
        interpreter.reset_all_variables()
        for name, index in inputs.items():
            interpreter.set_tensor(index, example[name])
        interpreter.invoke()
        for index, histogram in histograms.items():
            histogram.add(interpreter.get_tensor(index))
        examples += 1
    if not examples:
        raise ValueError("representative_dataset: got no example, expected at least one; 100 to 500 are usual")


def _range(model: Any, group: ScaleGroup, histograms: Mapping[int, Histogram], method: CalibrationMethod) -> Range:
    """The range that all of a group share: the union of those of its origins; it contains 0.0."""
    ranges = list(group.constants)
    for index in group.origins:
        limits = calibrated_range(model.subgraphs[0].tensors[index])
        ranges.append(method.range_of(histograms[index]) if index in histograms else limits or (0.0, 0.0))
    lowers, uppers = zip(*ranges, strict=True)
    return min(0.0, *lowers), max(0.0, *uppers)
