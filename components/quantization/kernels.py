"""Which kernels run a .tflite on this machine, and an interpreter that says which it took.

TFLite has several implementations of one op, which round differently: those that an interpreter takes if nobody
chooses, its own optimized ones, and its reference. A number that one of them gave holds for that one.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.interface import SIGNATURE

Kernels = Literal["default", "optimized", "reference"]
KERNELS: tuple[Kernels, ...] = get_args(Kernels)

# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/python/interpreter.py (OpResolverType)
_RESOLVERS = {
    "default": tf.lite.experimental.OpResolverType.BUILTIN,
    "optimized": tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": tf.lite.experimental.OpResolverType.BUILTIN_REF,
}
# The name that the interpreter gives to what a delegate took over.
_DELEGATE = "DELEGATE"


def quantize(values: npt.ArrayLike, scale: float, zero_point: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Quantizes float values as TFLite's default QUANTIZE kernel: round to nearest even, then clip to the range.

    TFLite's optimized kernel does the same for less than 2**31 steps; beyond, it overflows. The reference kernel rounds
    what lies in the middle between two integers away from zero instead.

    Args:
      values: Float values of any shape.
      scale: Real value of one step.
      zero_point: The integer that stands for 0.0.
      dtype: The integer type of the result.

    >>> quantize([-9.0, 0.24, 0.5, 9.0], scale=0.5, zero_point=0, dtype="int8").tolist()
    [-18, 0, 1, 18]
    >>> quantize([-99.0, 99.0], scale=0.5, zero_point=0, dtype="int8").tolist()
    [-128, 127]
    """
    limits = np.iinfo(np.dtype(dtype))
    steps = np.asarray(values, np.float32) * (np.float32(1.0) / np.float32(scale))
    quantized: npt.NDArray[Any] = np.clip(np.rint(steps) + zero_point, limits.min, limits.max).astype(dtype)
    return quantized


def load(tflite: bytes, kernels: Kernels = "default", keep_tensors: bool = False, threads: int = 1) -> Any:
    """Returns a `tf.lite.Interpreter` with these kernels, its tensors allocated.

    Args:
      tflite: A TFLite flatbuffer.
      kernels: "default" for those that an interpreter takes if nobody chooses, which is XNNPACK wherever it applies;
        "optimized" for TFLite's own for this CPU, without delegates; "reference" for its portable ones.
      keep_tensors: Whether intermediate tensors can be read after a run; those inside a delegate cannot.
      threads: How many threads it may use.

    Raises:
      ValueError: If there are no such kernels, or the interpreter refuses the file.
    """
    require_known(kernels)
    try:
        interpreter = tf.lite.Interpreter(
            model_content=_registered(tflite) if kernels == "reference" else tflite,
            num_threads=threads,
            experimental_op_resolver_type=_RESOLVERS[kernels],
            experimental_preserve_all_tensors=keep_tensors,
        )
        interpreter.allocate_tensors()
    except RuntimeError as error:
        raise ValueError(f"kernels {kernels!r}: the interpreter refuses the TFLite model: {error}") from error
    return interpreter


def require_known(kernels: str, allowed: tuple[str, ...] = KERNELS) -> None:
    """Raises ValueError if kernels are not among those allowed."""
    if kernels not in allowed:
        raise ValueError(f"kernels: got {kernels!r}, expected one of {', '.join(allowed)}")


def delegated_ops(interpreter: Any) -> int:
    """Returns how many ops of the main subgraph a delegate has taken over, 0 if there is none."""
    return len(delegated_op_indices(interpreter))


def delegated_op_indices(interpreter: Any) -> frozenset[int]:
    """Returns the ops of the main subgraph that a delegate has taken over, by their indices.

    The interpreter lists a delegate's nodes behind the ops, with the tensors at their edges; the ops that lead from one
    edge to the other are what the node runs.
    """
    ops = interpreter._get_ops_details()
    nodes = [op for op in ops if op["op_name"] == _DELEGATE]
    makers = {int(index): op for op in ops if op["op_name"] != _DELEGATE for index in op["outputs"]}
    taken: set[int] = set()
    for node in nodes:
        fed = {int(index) for index in node["inputs"]}
        wanted = [int(index) for index in node["outputs"]]
        while wanted:
            op = makers.get(wanted.pop())
            if op is not None and op["index"] not in taken:
                taken.add(op["index"])
                wanted += [int(index) for index in op["inputs"] if int(index) not in fed]
    return frozenset(taken)


def described(kernels: Kernels, interpreter: Any) -> str:
    """Says in words which kernels an interpreter runs, for a report."""
    if kernels != "default":
        return {"optimized": "built-in optimized kernels", "reference": "reference kernels"}[kernels]
    ops = [op for op in interpreter._get_ops_details() if op["op_name"] != _DELEGATE]
    return f"default kernels (XNNPACK runs {delegated_ops(interpreter)} of {len(ops)} ops)"


class KernelInterpreter:
    """A .tflite behind real values, with kernels of choice, whose integers can be read. Not thread-safe."""

    def __init__(self, tflite: bytes, kernels: Kernels = "default", keep_tensors: bool = False) -> None:
        """Loads a model.

        Args:
          tflite: A TFLite flatbuffer. Its inputs and outputs are named as its signature names them ("serving_default",
            else its first one), or as its tensors are named if it has none.
          kernels: As for `load`.
          keep_tensors: As for `load`.

        Raises:
          ValueError: If the file cannot be read or run.
        """
        self.graph = flatbuffer.read_subgraphs(tflite)[0]
        self._interpreter = load(tflite, kernels, keep_tensors)
        self.description = described(kernels, self._interpreter)
        self.delegated_ops = delegated_ops(self._interpreter)
        signatures = self._interpreter.get_signature_list()
        if signatures:
            runner = self._interpreter.get_signature_runner(SIGNATURE if SIGNATURE in signatures else min(signatures))
            edges = [runner.get_input_details(), runner.get_output_details()]
        else:
            details = [self._interpreter.get_input_details(), self._interpreter.get_output_details()]
            edges = [{detail["name"]: detail for detail in side} for side in details]
        named = [{name: self.graph.tensors[detail["index"]] for name, detail in side.items()} for side in edges]
        self.inputs: dict[str, flatbuffer.Tensor] = named[0]
        self.outputs: dict[str, flatbuffer.Tensor] = named[1]

    def run(self, features: Mapping[str, npt.NDArray[Any]]) -> None:
        """Runs one example, with no state of the one before.

        Args:
          features: Real values by input name, each of shape (1, ...).
        """
        self._interpreter.reset_all_variables()  # the state of an LSTM, which would go on from example to example
        for name, tensor in self.inputs.items():
            values = features[name]
            if tensor.scale:
                values = quantize(values, tensor.scale[0], tensor.zero_point[0], tensor.dtype.lower())
            self._interpreter.set_tensor(tensor.index, values.astype(tensor.dtype.lower(), copy=False))
        self._interpreter.invoke()

    def codes(self, tensor: flatbuffer.Tensor) -> npt.NDArray[Any]:
        """The integers of a tensor after a run; the floats of one that is not quantized."""
        codes: npt.NDArray[Any] = self._interpreter.get_tensor(tensor.index)
        return codes


def real_values(codes: npt.NDArray[Any], tensor: flatbuffer.Tensor) -> npt.NDArray[np.float64]:
    """The real values of the integers of a tensor with one scale."""
    values: npt.NDArray[np.float64] = codes.astype(np.float64)
    return (values - tensor.zero_point[0]) * tensor.scale[0] if tensor.scale else values


def _registered(tflite: bytes) -> bytes:
    """The model with op versions under which the reference kernels are registered.

    They compute depthwise convolutions with 4-bit weights, version 7, but the list ends with 6:
    https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels/register_ref.cc
    """
    model = flatbuffer.read_object(tflite)
    for code in model.operatorCodes:
        if flatbuffer.builtin_name(code) == "DEPTHWISE_CONV_2D":
            code.version = min(code.version, 6)
    return flatbuffer.write_object(model)
