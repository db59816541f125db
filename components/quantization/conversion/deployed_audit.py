"""The audit of a file as it is deployed: with float edges where they were asked for, and what its outputs took."""

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.audit import Audit, Offender, audit
from components.quantization.conversion.audit.rules import RANGES
from components.quantization.conversion.io_dtypes import FLOAT
from components.quantization.conversion.profiles import ConversionProfile
from components.quantization.schemes import QuantizationScheme

_EDGE_OPS = ("QUANTIZE", "DEQUANTIZE")
_PRESCRIBED_RANGES = ("SOFTMAX", "LOG_SOFTMAX", "LOGISTIC", "TANH", "L2_NORMALIZATION")


def audit_deployed(
    tflite: bytes,
    profile: str | ConversionProfile,
    scheme: QuantizationScheme,
    io_dtypes: Mapping[str, str],
    outputs: Mapping[str, npt.NDArray[np.generic]],
) -> Audit:
    """Audits a converted file.

    Args:
      tflite: The flatbuffer.
      profile: The target.
      scheme: The scheme.
      io_dtypes: The types that its inputs and outputs were asked to have, by name.
      outputs: Integers that it computed for examples, by name of the output. Left out are those with fewer values than
        their type has integers, which say nothing of how many it uses, and those whose range the kernel prescribes: a
        softmax that is sure of itself uses few, and nobody can change that.

    Returns:
      The audit. Of a scheme of integers, float inputs and outputs that were asked for, and the QUANTIZE and DEQUANTIZE
      beside them, lie outside of the proof: they are notes, not offenders.
    """
    graph = flatbuffer.read_subgraphs(tflite)[0]
    prescribed = _prescribed_outputs(graph)
    told = {name: codes for name, codes in outputs.items() if codes.size >= _integers_of(codes)}
    told = {name: codes for name, codes in told.items() if name not in prescribed}
    found = audit(tflite, profile, scheme, outputs=told)
    floats = {name for name, dtype in io_dtypes.items() if dtype == FLOAT} if scheme.integer_only else set()
    return with_float_edges(found, graph, floats)


def float_edges(graph: flatbuffer.Subgraph) -> tuple[str, ...]:
    """Returns the names of the tensors of those inputs and outputs of a graph that are floats."""
    edges = (graph.tensors[index] for index in (*graph.inputs, *graph.outputs))
    return tuple(tensor.name for tensor in edges if tensor.dtype.lower() == FLOAT)


def with_float_edges(found: Audit, graph: flatbuffer.Subgraph, floats: Collection[str]) -> Audit:
    """Returns an audit in which float inputs and outputs, and the QUANTIZE or DEQUANTIZE beside each, are notes.

    Args:
      found: The audit.
      graph: The main subgraph.
      floats: The names of the tensors of these inputs and outputs.
    """
    beside = {
        op.index
        for op in graph.ops
        if op.code in _EDGE_OPS and any(graph.tensors[index].name in floats for index in (*op.inputs, *op.outputs))
    }

    def is_asked_for(offender: Offender) -> bool:
        is_beside = offender.op_index in beside or (offender.op_index < 0 and offender.tensor in floats)
        return offender.kind == "integer" and offender.subgraph == 0 and is_beside

    asked = [one for one in found.offenders if is_asked_for(one)]
    notes = [dataclasses.replace(one, kind="note", fix="nothing: it was asked for") for one in asked]
    kept = tuple(one for one in found.offenders if one not in asked)
    return dataclasses.replace(found, offenders=kept, notes=(*found.notes, *notes))


def _prescribed_outputs(graph: flatbuffer.Subgraph) -> set[str]:
    """Names of the outputs that an op makes whose kernel prescribes the range, whatever type they have at the edge."""
    makers = {index: op for op in graph.ops for index in op.outputs}
    found = set()
    for index in graph.outputs:
        op = makers.get(index)
        while op is not None and op.code == "QUANTIZE":
            op = makers.get(op.inputs[0])
        if op is not None and op.code in _PRESCRIBED_RANGES:
            found.add(graph.tensors[index].name)
    return found


def _integers_of(codes: npt.NDArray[np.generic]) -> int:
    low, high = RANGES.get(codes.dtype.name.upper(), (0, 0))
    return high - low + 1
