"""What is done with a model in a process of its own, see `smoke_process`: its golden vectors, its arena, a probe."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.evaluation.smoke_process import Work
from components.quantization.contract import CONTRACT_FILE, TFLITE_FILE, VECTORS_FILE
from components.quantization.contract.golden import KERNELS as GOLDEN_KERNELS
from components.quantization.contract.golden import read_golden_vectors
from components.quantization.contract.schema import Contract
from components.quantization.contract.selftest import check_preparation, run_vectors, steps_apart
from components.quantization.conversion import flatbuffer
from components.quantization.interpreter import IntegerModel
from components.quantization.kernels import KERNELS, described, load


def arena(directory: Path) -> dict[str, Any]:
    """Loads the model of a directory; returns the attributes of `smoke_process.ModelRun`, as JSON types.

    Raises:
      ValueError: If the interpreter refuses the model.
    """
    return {"arena_bytes": _arena_bytes((directory / TFLITE_FILE).read_bytes())}


def probe(directory: Path) -> dict[str, Any]:
    """Loads and runs the model of a directory as an evaluation does; returns and raises as `arena`."""
    model = IntegerModel((directory / TFLITE_FILE).read_bytes())
    random = np.random.default_rng(1)
    features = {
        # One of zeros, which are no index too large, and one of numbers.
        name: np.stack([np.zeros(shape[1:]), random.normal(size=shape[1:]) * (name in model.quantized_input_names)])
        for name, shape in model.input_shapes.items()
    }
    made = model.predict(features)
    outputs = {name: [1, *values.shape[1:]] for name, values in made.items()}
    return {"inputs": {name: list(shape) for name, shape in model.input_shapes.items()}, "outputs": outputs}


def golden_run(directory: Path) -> dict[str, Any]:
    """Runs the model of a directory on its golden vectors; returns and raises as `arena`."""
    text = (directory / CONTRACT_FILE).read_text()
    contract = json.loads(text)
    try:
        vectors = read_golden_vectors(directory / VECTORS_FILE, Contract.from_json(text))
    except ValueError as error:
        return {"unfit": {"incomplete": str(error)}}
    if strays := [f"{check.name}: {check.found}" for check in check_preparation(contract, vectors) if not check.passed]:
        return {"unfit": {"signature": f"by {CONTRACT_FILE}, other inputs than the golden ones: {'; '.join(strays)}"}}
    tflite = (directory / TFLITE_FILE).read_bytes()
    found: dict[str, Any] = {"kernels": {}, **arena(directory)}
    graph = flatbuffer.read_subgraphs(tflite)[0]
    least = {entry["name"]: _least_spread(graph, entry["tensor_index"]) for entry in contract["outputs"]}
    for kernels in KERNELS:
        interpreter = load(tflite, kernels)
        first, second = (run_vectors(interpreter, contract, vectors) for _ in range(2))
        found["kernels"][kernels] = {
            "kernels": described(kernels, interpreter),
            "repeats": all(first[name].tobytes() == second[name].tobytes() for name in first),
            "digest": hashlib.sha256(b"".join(first[name].tobytes() for name in sorted(first))).hexdigest(),
            "steps": {
                golden: {name: steps_apart(made, vectors[f"{golden}/{name}"]) for name, made in first.items()}
                for golden in GOLDEN_KERNELS
            },
            "noise": {
                golden: {name: _noise(made, vectors[f"{golden}/{name}"], least[name]) for name, made in first.items()}
                for golden in GOLDEN_KERNELS
            },
        }
    return found


def _noise(made: npt.NDArray[Any], golden: npt.NDArray[Any], least: float) -> float:
    """Difference of an output from the golden one, as `smoke_process.KernelRun` has it; infinite if it is no number."""
    if made.shape != golden.shape:
        return math.inf
    difference = made.astype(np.float64) - golden.astype(np.float64)
    found = float(np.sqrt(np.mean(difference**2)) / max(float(np.std(golden, dtype=np.float64)), least))
    return found if math.isfinite(found) else math.inf


def _least_spread(graph: flatbuffer.Subgraph, index: int) -> float:
    """One of 256 parts of what an output can be, also if the file itself dequantizes it; 1 of an output of indices."""
    sources = {op.outputs[0]: op.inputs[0] for op in graph.ops if op.code == "DEQUANTIZE"}
    source, output = graph.tensors[sources.get(index, index)], graph.tensors[index]
    if len(source.scale) != 1 or source.dtype not in ("INT8", "UINT8", "INT16"):
        return 1.0
    codes = 2.0 ** (np.iinfo(source.dtype.lower()).bits - 8)
    return codes if output.scale else codes * source.scale[0]


def _arena_bytes(tflite: bytes) -> int:
    """What the interpreter planned: from the first byte of a computed tensor to the last, and its states.

    The interpreter lays out all tensors of the main subgraph that it computes, and the scratch of its kernels, in one
    piece of memory; it does not say how large that is, but where each tensor lies.
    """
    interpreter = load(tflite, "optimized")
    graph = flatbuffer.read_subgraphs(tflite)[0]
    known = {tensor.index: tensor for tensor in graph.tensors}
    ends, states = [], 0
    for detail in interpreter.get_tensor_details():
        index = int(detail["index"])
        tensor = known.get(index)  # the scratch of kernels is in no file
        if tensor is not None and tensor.constant is not None:
            continue
        try:
            values = interpreter.tensor(index)()
        except ValueError:  # never computed, as inputs of an op that are not given
            continue
        if tensor is not None and tensor.is_variable:
            states += values.nbytes
        elif values.nbytes:
            start = values.ctypes.data
            ends.append((start, start + values.nbytes))
    return states + (max(end for _, end in ends) - min(start for start, _ in ends) if ends else 0)


WORK: dict[Work, Callable[[Path], dict[str, Any]]] = {"golden": golden_run, "arena": arena, "probe": probe}
"""What can be done with a model, by name."""
