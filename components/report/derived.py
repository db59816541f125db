"""What a page needs of a .tflite file and no document has: where each op would run, and the integers of its weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from components.quantization.conversion import flatbuffer
from components.targets import load_target, placed_ops

WORST_LAYERS = 3
_BINS = 32
# Weights and their position among the operands, of the ops that multiply by them.
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels
_WEIGHTS = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}


def target_ops(tflite: bytes, target: str) -> list[dict[str, Any]]:
    """Returns where the rules of a target, with its default options, say that each op runs, as `placed_ops` does.

    Args:
      tflite: The integer model, which was not given to TargetCompiler.
      target: Name of the target.
    """
    return placed_ops(load_target(target).inspect(tflite), tflite)


def worst_layers(attribution: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Returns the layers of least signal to noise in an attribution.json, at most `WORST_LAYERS`, the worst first.

    An output is a layer, too; it is left out. A ratio that is null is infinite, or not known.
    """
    found = [
        one
        for one in (attribution or {}).get("layers", [])
        if one["sqnr_db"] is not None and not one["name"].startswith("output ")
    ]
    return sorted(found, key=lambda one: float(one["sqnr_db"]))[:WORST_LAYERS]


def weight_histograms(tflite: bytes, attribution: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Counts the integers of the weights of the worst layers, of those that have any.

    Returns:
      For each layer "name", "tensor", "values" (how many), "low" and "high" (the ends of the integers' range),
      "histogram" (how many values lie in each of 32 equal parts of it; 16 of 4-bit weights) and "utilisation" (share,
      0..1, of the integers that occur).
    """
    graph = flatbuffer.read_subgraphs(tflite)[0]
    of_tensor = {graph.tensors[index].name: op for op in graph.ops for index in op.outputs}
    found = []
    for layer in worst_layers(attribution):
        op = of_tensor.get(layer["tensor"])
        position = _WEIGHTS.get(op.code) if op is not None else None
        if op is None or position is None or position >= len(op.operands):
            continue
        counted = _counted(graph.tensors[op.operands[position]])
        if counted:
            found.append({"name": layer["name"], **counted})
    return found


def _counted(tensor: flatbuffer.Tensor) -> dict[str, Any]:
    values = tensor.values if tensor.dtype in ("INT4", "INT8") else None
    if values is None or not values.size:
        return {}
    low, high = (-8, 7) if tensor.dtype == "INT4" else (-128, 127)
    codes = values.astype(np.int64).ravel() - low
    counts = np.bincount(codes, minlength=high - low + 1)
    return {
        "tensor": tensor.name,
        "values": int(codes.size),
        "low": low,
        "high": high,
        "histogram": counts.reshape(min(_BINS, len(counts)), -1).sum(axis=1).tolist(),
        "utilisation": float(np.count_nonzero(counts) / len(counts)),
    }
