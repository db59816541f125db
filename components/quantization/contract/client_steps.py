"""The steps of preprocessing that are not folded, in words that a client can implement."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from components.quantization.contract.affine import constants
from components.quantization.contract.preprocessing import ancestors
from components.quantization.contract.steps import ClientStep

# Ops that compute nothing that a client must do.
_PASSING = frozenset(
    {
        *("CheckNumerics", "EnsureShape", "Identity", "PlaceholderWithDefault", "PreventGradient", "Snapshot"),
        *("StopGradient", "TensorListFromTensor", "TensorListStack"),  # around a loop over the examples
    }
)
_SILENT = _PASSING | {"Assert", "Const", "NoOp", "Placeholder", "Rank", "Shape", "Size", "TensorListReserve"}
# Ops that a loop over the examples is made of.
_LOOP = _SILENT | {"Less", "LogicalAnd", "TensorListGetItem", "TensorListSetItem"}
_COUNTING = ("Add", "AddV2")  # of integer scalars in a loop
# What ops do, where their name does not say it; {0}, {1} are operands, names are attributes.
_WORDS = {
    "DecodeRaw": "take the bytes of {0} as {out_type} values, little-endian: {little_endian}",
    "DecodeJpeg": "decode the JPEG bytes of {0} to {channels} channels (0: as stored), rows from the top, pixels"
    " interleaved; dct_method {dct_method!r}, fancy_upscaling {fancy_upscaling}, ratio {ratio}",
    "DecodePng": "decode the PNG bytes of {0} to {channels} channels (0: as stored), rows from the top, pixels"
    " interleaved",
    "DecodeImage": "decode the image bytes of {0} to {channels} channels (0: as stored), rows from the top",
    "DecodeBmp": "decode the BMP bytes of {0} to {channels} channels (0: as stored), rows from the top",
    "ResizeBilinear": "resize {0} to (height, width) {1} bilinearly; align_corners {align_corners},"
    " half_pixel_centers {half_pixel_centers}",
    "ResizeNearestNeighbor": "resize {0} to (height, width) {1} by nearest neighbour; align_corners {align_corners},"
    " half_pixel_centers {half_pixel_centers}",
    "Log": "natural logarithm of {0}",
    "Log1p": "natural logarithm of 1 + {0}",
    "ConcatV2": "concatenate the operands before the last, {operands}; the last is the axis",
    "Cast": "convert {0} from {SrcT} to {DstT}",
    "Bucketize": "the number of boundaries {boundaries} that are not above {0}",
    "UpperBound": "for each of {1}: the number of boundaries {0} that are not above it",
    "LookupTableFindV2": "look {1} up in the vocabulary table {0}; {2} if it is not there",
    "Sub": "{0} - {1}",
    "AddV2": "{0} + {1}",
    "Mul": "{0} * {1}",
    "RealDiv": "{0} / {1}",
}
_MOST_VALUES = 8


def client_steps(source: Any, features: Mapping[str, Any]) -> tuple[ClientStep, ...]:
    """Returns what a client must do to get a tensor from raw features, op by op.

    Args:
      source: A tensor of a frozen graph; a raw feature needs no step.
      features: The placeholders of the raw features, by name.
    """
    names = _Names(features={tensor.op.name: name for name, tensor in features.items()}, constants=constants(source))
    steps = []
    depending = set(names.features)
    for op in ancestors(source):
        if not any(value.op.name in depending for value in op.inputs):
            continue
        depending.add(op.name)
        # What depends on the shape alone is a constant.
        if op.type in _SILENT or all(value.name in names.constants for value in op.outputs):
            continue
        body = _body(op)
        described = _in_loop(op, body, names.features) if body is not None else _described(op, names)
        steps.append(
            ClientStep(
                op=op.type,
                output=names.of(op.outputs[0]),
                description=f"{described} -> {_type(op.outputs[0])}" if body is None else described,
                constants=names.large(op),
            )
        )
    return tuple(steps)


def source_name(source: Any, features: Mapping[str, Any]) -> str:
    """Returns the raw feature's name, or what the client steps call a tensor."""
    names = {tensor.op.name: name for name, tensor in features.items()}
    return _Names(features=names, constants={}).of(source)


def raw_features(source: Any, features: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the raw features that a tensor depends on."""
    above = {op.name for op in ancestors(source)}
    return tuple(sorted(name for name, tensor in features.items() if tensor.op.name in above))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Names:
    """What tensors are called: raw features by the name of their placeholder's op, constants by their values."""

    features: Mapping[str, str]
    constants: Mapping[str, Any]

    def of(self, tensor: Any) -> str:
        if tensor.name in self.constants:
            value = np.asarray(self.constants[tensor.name])
            return str(value.tolist()) if value.size <= _MOST_VALUES else f"constant {_plain(tensor.op.name)}"
        while tensor.op.type in _PASSING:
            tensor = tensor.op.inputs[0]
        if tensor.op.name in self.features:
            return self.features[tensor.op.name]
        place = int(tensor.name.rpartition(":")[2])
        return _plain(tensor.op.name) + (f":{place}" if place and _body(tensor.op) is None else "")

    def large(self, op: Any) -> dict[str, tuple[Any, ...]]:
        """The values, row by row, of an op's constants that its description only names."""
        values = {value.op.name: np.asarray(self.constants.get(value.name, ())) for value in op.inputs}
        return {
            _plain(name): tuple(_json_value(item) for item in value.ravel())
            for name, value in values.items()
            if value.size > _MOST_VALUES
        }


def _plain(name: str) -> str:
    return name.rpartition("StatefulPartitionedCall/")[2]


def _json_value(item: Any) -> Any:
    value = item.decode(errors="replace") if isinstance(item, bytes) else item.item() if hasattr(item, "item") else item
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _described(op: Any, names: _Names) -> str:
    operands = [names.of(value) for value in op.inputs]
    attributes = {key: _attribute(op, key) for key in op.node_def.attr if not key.startswith("_")}
    if op.type in _WORDS:
        return _WORDS[op.type].format(*operands, operands=", ".join(operands), **attributes)
    shown = ", ".join(f"{key}={value}" for key, value in sorted(attributes.items()) if key not in ("T", "Tidx"))
    return f"{op.type}({', '.join(operands)}){f' with {shown}' if shown else ''}"


def _attribute(op: Any, key: str) -> Any:
    value = op.get_attr(key)
    if isinstance(value, tf.DType):
        return value.name
    return value.decode() if isinstance(value, bytes) else value


def _type(tensor: Any) -> str:
    shape = "?" if tensor.shape.rank is None else str(tensor.shape.as_list()).replace("None", "batch")
    return f"{tensor.dtype.name} {shape}"


def _body(op: Any) -> Any:
    """The function that an op runs in a loop or calls; None if it does neither."""
    for key in ("body", "f", "then_branch"):
        if key in op.node_def.attr and op.node_def.attr[key].HasField("func"):
            name = op.node_def.attr[key].func.name
            library = op.graph.as_graph_def().library.function
            return next((function for function in library if function.signature.name == name), None)
    return None


def _in_loop(op: Any, body: Any, names: Mapping[str, str]) -> str:
    """What a loop over examples does with each, in order: op types with the attributes that matter."""
    read = sorted({names[above.name] for value in op.inputs for above in ancestors(value) if above.name in names})
    done = []
    for node in body.node_def:
        counts = node.op in _COUNTING and "T" in node.attr and tf.as_dtype(node.attr["T"].type).is_integer
        if node.op in _LOOP or counts:
            continue
        shown = [f"{key}={text}" for key, value in sorted(node.attr.items()) if (text := _text(key, value)) is not None]
        done.append(f"{node.op}({', '.join(shown)})")
    return f"for each example of {', '.join(read)}: {'; then '.join(done) or 'nothing'}"


def _text(key: str, value: Any) -> str | None:
    """An attribute of a node in a function; None if it says nothing to a client."""
    if key.startswith("_") or key in ("T", "Tidx", "Tshape"):
        return None
    kind = value.WhichOneof("value")
    if kind in ("i", "f", "b"):
        return str(getattr(value, kind))
    if kind == "s":
        return value.s.decode(errors="replace") or None
    return str(tf.as_dtype(value.type).name) if kind == "type" else None
