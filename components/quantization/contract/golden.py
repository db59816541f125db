"""Golden vectors: real inputs, and what a model gives for them, to compare a device with."""

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.quantization.contract.folding import pipeline_integers
from components.quantization.contract.schema import Contract

KERNELS = ("reference", "default")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a zip file can name
_FILE_MODE = 0o644 << 16

Vectors = dict[str, npt.NDArray[Any]]


def pipeline_inputs(contract: Contract, features: Mapping[str, npt.NDArray[Any]]) -> Vectors:
    """Returns the model's inputs, by name, as the pipeline makes them of preprocessed features (examples, ...)."""
    return {entry.name: pipeline_integers(entry, np.asarray(features[entry.name])) for entry in contract.inputs}


def golden_vectors(
    tflite: bytes,
    contract: Contract,
    inputs: Mapping[str, npt.NDArray[Any]],
    sources: Mapping[str, npt.NDArray[Any]] | None = None,
) -> Vectors:
    """Runs a model on examples, with TFLite's reference kernels and with its default ones for this CPU.

    Both are kept, as they round differently: a device equals one or the other bit by bit, or the difference is known.

    Args:
      tflite: The flatbuffer.
      contract: Its contract.
      inputs: By name, arrays of (examples, *shape[1:]), of `Contract.quantize_raw` or `pipeline_inputs`.
      sources: By name of the input, what `Contract.quantize_raw` made them of; None if that is not known.

    Returns:
      Arrays by "source/<input>" (if known), "input/<input>", "reference/<output>" and "default/<output>".
    """
    vectors: Vectors = {f"input/{name}": value for name, value in inputs.items()}
    vectors |= {f"source/{name}": value for name, value in (sources or {}).items()}
    resolvers = tf.lite.experimental.OpResolverType
    for kernels, resolver in zip(KERNELS, (resolvers.BUILTIN_REF, resolvers.AUTO), strict=True):
        outputs = _run(tflite, contract, inputs, resolver)
        vectors |= {f"{kernels}/{name}": value for name, value in outputs.items()}
    return vectors


def _run(tflite: bytes, contract: Contract, inputs: Mapping[str, npt.NDArray[Any]], resolver: Any) -> Vectors:
    interpreter = tf.lite.Interpreter(model_content=tflite, num_threads=1, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    rows: dict[str, list[npt.NDArray[Any]]] = {entry.name: [] for entry in contract.outputs}
    for row in range(len(next(iter(inputs.values())))):
        interpreter.reset_all_variables()
        for entry in contract.inputs:
            interpreter.set_tensor(entry.tensor_index, inputs[entry.name][row : row + 1])
        interpreter.invoke()
        for output in contract.outputs:
            rows[output.name].append(interpreter.get_tensor(output.tensor_index))
    return {name: np.concatenate(values) for name, values in rows.items()}


def golden_outputs(path: Path, kernels: str = "default") -> Vectors:
    """Returns the outputs by name out of a file of golden vectors; none if there is no file."""
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as content:
        prefix = f"{kernels}/"
        return {name.removeprefix(prefix): content[name] for name in content.files if name.startswith(prefix)}


def read_golden_vectors(path: Path, contract: Contract) -> Vectors:
    """Reads golden vectors that may be anything, as `golden_vectors` gives them.

    Raises:
      ValueError: If the file is not whole, an input or output has no array, or one of another dtype or shape, or there
        are no examples; lists all that is wrong.
    """
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            vectors: Vectors = {name: file[name] for name in file.files}
    except Exception as error:  # of a decompressor, the zip format or NumPy: the bytes may be any
        why = str(error) or type(error).__name__
        raise ValueError(f"{path.name} cannot be read: {why}; convert the model again") from error
    edges = {f"input/{entry.name}": entry for entry in contract.inputs} | {
        f"{kernels}/{entry.name}": entry for kernels in KERNELS for entry in contract.outputs
    }
    examples = max((len(vectors[key]) for key in edges if np.ndim(vectors.get(key, 0))), default=0)
    problems = [] if examples else ["has no examples"]
    for key, edge in edges.items():
        expected = edge.dtype, (examples * math.prod(edge.shape[:1]), *edge.shape[1:])
        if key not in vectors:
            problems.append(f"has no {key}")
        elif (got := (vectors[key].dtype.name, vectors[key].shape)) != expected:
            problems.append(f"{key} is {got[0]} of {list(got[1])}, expected {expected[0]} of {list(expected[1])}")
    if problems:
        raise ValueError(f"{path.name}: {'; '.join(problems)}; convert the model again")
    return vectors


def npz_bytes(vectors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Returns what `numpy.load` reads: the same bytes for the same vectors, and no pickles.

    Raises:
      ValueError: If an array is of objects.

    >>> npz_bytes({"a": np.zeros(2), "b": np.ones(1)}) == npz_bytes({"b": np.ones(1), "a": np.zeros(2)})
    True
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in sorted(vectors.items()):
            member = io.BytesIO()
            np.lib.format.write_array(  # type: ignore[no-untyped-call]
                member, np.ascontiguousarray(value), version=(1, 0), allow_pickle=False
            )
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, _FILE_MODE
            archive.writestr(info, member.getvalue())
    return content.getvalue()
