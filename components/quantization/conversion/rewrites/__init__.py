"""Rewrites: ops that a device's parser does not know, as others that compute the same integers. One file per rewrite.

A member holds

- `CODES`, the names of the ops in the schema that it replaces, and
- `replacement(editor, operator)`, which returns the ops that stand for `operator`, an `OperatorT`, in the order of
  execution, or None where it has nothing bit-equal to offer. What it needs beside, it gets from the `GraphEditor`.

Members are asked in the order of their names, and only for ops above the op-version ceiling of a profile. What remains
above it is for the audit to refuse.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from components.quantization import plugins
from components.quantization.conversion import flatbuffer
from components.quantization.conversion.op_versions import minimum_runtime_of_all
from components.quantization.conversion.profiles import ConversionProfile, load_profile
from components.quantization.conversion.rewrites._content_versions import content_version
from components.quantization.conversion.rewrites._editor import GraphEditor

_REMOVED = "remove_unused_op_codes"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AppliedRewrite:
    """One change of a model.

    Attributes:
      name: The name of the rewrite.
      op: The op that is gone, with its version, for example "CONV_2D version 6".
      tensor: The name of the tensor that it computed; empty if it computed none.
      ops: The ops that stand for it, in the order of execution, with their versions.
    """

    name: str
    op: str
    tensor: str = ""
    ops: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rewritten:
    """A model after the rewrites: its flatbuffer, the same bytes where none was needed, and what was done."""

    tflite: bytes
    applied: tuple[AppliedRewrite, ...] = ()


def rewrite(tflite: bytes, profile: str | ConversionProfile) -> Rewritten:
    """Replaces what a device's parser does not know by what it does, where both compute the same integers.

    Entries of the op table that no op uses, which strict parsers read too, are removed for every device. The metadata
    `min_runtime_version` is corrected.

    Args:
      tflite: A TFLite flatbuffer.
      profile: The profile of the device, or its name.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer, or there is no such profile.
    """
    rules = load_profile(profile)
    model = flatbuffer.read_object(tflite)
    applied = []
    for number, graph in enumerate(model.subgraphs or []):
        editor = GraphEditor(model, number, graph)
        replaced = list(_replace_ops(editor, rules))
        if replaced:
            editor.remove_orphans()
        applied += replaced
    applied += _remove_unused_op_codes(model)
    if not applied:
        return Rewritten(tflite=tflite)
    _correct_minimum_runtime(model)
    return Rewritten(tflite=flatbuffer.write_object(model), applied=tuple(applied))


def lower_version(model: Any, code: str) -> None:
    """Gives a builtin op the lowest version that knows all ops of its code in a model, where that is known.

    Args:
      model: A `ModelT`; it is changed.
      code: The name of the op in the schema.
    """
    entry = next(one for one in model.operatorCodes if flatbuffer.builtin_name(one) == code)
    needed = [
        content_version(code, operator, graph.tensors)
        for graph in model.subgraphs
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex] is entry
    ]
    known = [version for version in needed if version is not None]
    if len(known) == len(needed):
        entry.version = max(known)
        _correct_minimum_runtime(model)


def _replace_ops(editor: GraphEditor, profile: ConversionProfile) -> Iterator[AppliedRewrite]:
    operators = []
    for operator in editor.operators:
        code, version = editor.code(operator), editor.version(operator)
        if profile.version_problem(code, version) is None:
            operators.append(operator)
            continue
        outputs = ", ".join(editor.name(index) for index in operator.outputs)
        name, replacement = _replacement(editor, operator)
        operators += replacement
        if name:
            made = tuple(f"{editor.code(new)} version {editor.version(new)}" for new in replacement)
            yield AppliedRewrite(name=name, op=f"{code} version {version}", tensor=outputs, ops=made)
    editor.operators = operators


def _replacement(editor: GraphEditor, operator: Any) -> tuple[str, list[Any]]:
    """The name of the rewrite that applies and the new ops; an empty name and the op itself if none does."""
    for name in plugins.member_names(__name__):
        member = plugins.load_member(__name__, name, "rewrite")
        if editor.code(operator) in member.CODES:
            operators = member.replacement(editor, operator)
            if operators is not None:
                return name, operators
    return "", [operator]


def _remove_unused_op_codes(model: Any) -> list[AppliedRewrite]:
    """Removes, among others, what the converter leaves behind of the ops that it folded into a model's constants."""
    operators = [operator for graph in model.subgraphs or [] for operator in graph.operators or []]
    codes = model.operatorCodes or []
    used = sorted({operator.opcodeIndex for operator in operators})
    if len(used) == len(codes):
        return []
    places = {old: new for new, old in enumerate(used)}
    for operator in operators:
        operator.opcodeIndex = places[operator.opcodeIndex]
    model.operatorCodes = [codes[place] for place in used]
    unused = [code for place, code in enumerate(codes) if place not in places]
    return [AppliedRewrite(name=_REMOVED, op=f"{flatbuffer.builtin_name(c)} version {c.version}") for c in unused]


def _correct_minimum_runtime(model: Any) -> None:
    """Corrects the metadata that names the first TensorFlow that knows all ops."""
    runtime = minimum_runtime_of_all((flatbuffer.builtin_name(code), code.version) for code in model.operatorCodes)
    for entry in model.metadata or []:
        buffer = model.buffers[entry.buffer]
        if entry.name == b"min_runtime_version" and buffer.data is not None and len(runtime) <= len(buffer.data):
            buffer.data = np.frombuffer(runtime.encode().ljust(len(buffer.data), b"\0"), np.uint8)
