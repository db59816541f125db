"""The I/O contract as a C99 header, which C++ takes too."""

import re
import textwrap
from collections.abc import Sequence

import numpy as np

from components.quantization.contract.schema import DTYPES, Contract, Edge, Input, Output
from components.quantization.contract.steps import ClientStep, Postprocessing

_INTRODUCTION = """\
/* Inputs and outputs of the TFLite model of sha256
 * {sha256}.
 * Generated from io_contract.json; do not edit.
 *
 * io_contract_quantize_<input>(source, quantized) makes an input of its raw feature, or of what the client steps above
 * the function make of it; io_contract_dequantize_<output>(quantized, real) makes real values of an output.
 * Both are bit-equal to the training pipeline if float is IEEE binary32 and the rounding mode is the usual one, to
 * nearest; "verified" in io_contract.json says by what values, and where one step may differ. NaN becomes the smallest
 * integer. Products are kept in volatile variables, so that no compiler fuses them with sums; if yours does not
 * (-ffp-contract=off) and evaluates float as float, define IO_CONTRACT_NO_CONTRACTION for faster code. Never compile it
 * with -ffast-math.
 */
#ifndef IO_CONTRACT_H
#define IO_CONTRACT_H

#include <math.h>
#include <stdint.h>

#ifdef __FAST_MATH__
#error "io_contract.h needs IEEE arithmetic: compile it without -ffast-math"
#endif

#ifdef IO_CONTRACT_NO_CONTRACTION
typedef float io_contract_float;
#else
typedef volatile float io_contract_float;
#endif

/* Rounds to nearest, half to even; adds the zero point and clips. Does not depend on the rounding mode. */
static inline int32_t io_contract_round(float value, int32_t zero_point, int32_t low, int32_t high) {{
  const float below = floorf(value);
  const float rest = value - below;
  const int up = rest > 0.5f || (rest == 0.5f && fmodf(below, 2.0f) != 0.0f);
  const float rounded = up ? below + 1.0f : below;
  if (!(rounded > (float)(low - zero_point))) return low;
  if (rounded >= (float)(high - zero_point)) return high;
  return (int32_t)rounded + zero_point;
}}
"""
_OTHER_TYPES = {"float32": "float", "float64": "double", "bool": "uint8_t"}
_C_TYPES = {name: _OTHER_TYPES.get(name, f"{name}_t") for name in DTYPES}
_OPERATIONS = {
    "add": "y + {c}",
    "subtract": "y - {c}",
    "subtract_from": "{c} - y",
    "multiply": "y * {c}",
    "divide": "y / {c}",
}
_WIDTH = 110


def c_header(contract: Contract) -> str:
    """Returns the header.

    Raises:
      ValueError: If an input or output has a dtype that C has no type for; lists them.
    """
    edges = [*contract.inputs, *contract.outputs]
    dtypes = {edge.dtype for edge in edges} | {entry.preparation.source_dtype for entry in contract.inputs}
    unknown = sorted(dtypes - set(_C_TYPES))
    if unknown:
        raise ValueError(f"io_contract.h: got dtypes {', '.join(unknown)}, expected some of {', '.join(_C_TYPES)}")
    names = dict(zip(map(id, edges), identifiers([edge.name for edge in edges]), strict=True))
    parts = [_INTRODUCTION.format(sha256=contract.tflite_sha256)]
    parts += [
        _constants("INPUT", entry, names[id(entry)]) + _quantize(entry, names[id(entry)]) for entry in contract.inputs
    ]
    parts += [
        _constants("OUTPUT", entry, names[id(entry)]) + _dequantize(entry, names[id(entry)])
        for entry in contract.outputs
    ]
    if contract.postprocessing is not None:
        parts.append(_postprocessing(contract.postprocessing))
    return "\n".join([*parts, "#endif /* IO_CONTRACT_H */\n"])


def identifiers(names: Sequence[str]) -> tuple[str, ...]:
    """Returns a C identifier's part for each name, all different, also in upper case, as macros are.

    >>> identifiers(["image", "a/b", "a_b", "image"])
    ('image', 'a_b', 'a_b_2', 'image_3')
    """
    found: list[str] = []
    for position, name in enumerate(names):
        plain = re.sub(r"[^0-9a-zA-Z_]", "_", name)
        while plain.upper() in map(str.upper, found):
            plain += f"_{position}"
        found.append(plain)
    return tuple(found)


def _constants(side: str, edge: Edge, name: str) -> str:
    shape = " x ".join(str(size) for size in edge.shape)
    lines = [
        f"/* {side.capitalize()} {_comment(edge.name)}: {edge.dtype}, {shape}, layout {edge.layout}"
        + ("" if edge.scale is None else f", real values {edge.real_min:.9g} to {edge.real_max:.9g}")
        + ". */",
        f"#define IO_CONTRACT_{name.upper()}_POSITION {edge.position}",
        f"#define IO_CONTRACT_{name.upper()}_SIZE {int(np.prod(edge.shape))}",
    ]
    if edge.scale is not None:
        lines.append(f"#define IO_CONTRACT_{name.upper()}_SCALE {_float(edge.scale)}")
        lines.append(f"#define IO_CONTRACT_{name.upper()}_ZERO_POINT ({edge.zero_point})")
    return "\n".join(lines) + "\n\n"


def _comment(text: str) -> str:
    """Text that ends no comment and is ASCII."""
    return text.replace("*/", "* /").replace("/*", "/ *").encode("ascii", "backslashreplace").decode()


def _quantize(entry: Input, name: str) -> str:
    preparation = entry.preparation
    bodies = {"identity": _identity, "affine": _affine, "lookup": _lookup, "steps": _steps}
    tables, expression = bodies[preparation.kind](entry)
    steps = _numbered(preparation.client_steps)
    shape = " x ".join(str(size) for size in preparation.source_shape)
    text = [f"source: {preparation.source}, {preparation.source_dtype}, {shape}, row by row."]
    if steps:
        text = ["The client first does:", *steps, *text]
    source, target = _C_TYPES[preparation.source_dtype], _C_TYPES[entry.dtype]
    return (
        f"{_block_comment(text)}"
        f"static inline void io_contract_quantize_{name}(const {source} *source, {target} *quantized) {{\n"
        f"{tables}  int32_t i;\n"
        f"  for (i = 0; i < IO_CONTRACT_{name.upper()}_SIZE; ++i) {{\n{expression}  }}\n}}\n"
    )


def _postprocessing(postprocessing: Postprocessing) -> str:
    results = ", ".join(f"{name} is {output}" for name, output in postprocessing.results.items())
    return _block_comment(
        [
            f"Of the real values of {', '.join(postprocessing.sources)} the client then computes, as the SavedModel"
            f" {postprocessing.reference} does:",
            *_numbered(postprocessing.steps),
            f"results: {results}.",
        ]
    )


def _numbered(steps: Sequence[ClientStep]) -> list[str]:
    return [f"{index}. {step.output}: {step.description}" for index, step in enumerate(steps, 1)]


def _block_comment(lines: Sequence[str]) -> str:
    filled = (textwrap.fill(_comment(line), _WIDTH, initial_indent=" * ", subsequent_indent=" *   ") for line in lines)
    return "/*\n" + "\n".join(filled) + "\n */\n"


def _identity(entry: Input) -> tuple[str, str]:
    shift, target = entry.preparation.shift, _C_TYPES[entry.dtype]
    value = f"(int32_t)source[i] + ({shift})" if shift else "source[i]"
    return "", f"    quantized[i] = ({target})({value});\n"


def _affine(entry: Input) -> tuple[str, str]:
    preparation = entry.preparation
    first, multiplier = _constant("multiplier", preparation.multiplier)
    second, offset = _constant("offset", preparation.offset)
    return first + second, (
        f"    const io_contract_float product = (float)source[i] * {multiplier};\n"
        f"    const io_contract_float sum = product + {offset};\n"
        f"{_rounded(entry, 'sum')}"
    )


def _steps(entry: Input) -> tuple[str, str]:
    tables, lines = "", ["    io_contract_float y = (float)source[i];\n"]
    for index, operation in enumerate(entry.preparation.operations):
        table, constant = _constant(f"c{index}", operation.values)
        tables += table
        lines.append(f"    y = {_OPERATIONS[operation.op].format(c=constant)};\n")
    if entry.scale is None:
        return tables, "".join([*lines, f"    quantized[i] = ({_C_TYPES[entry.dtype]})y;\n"])
    inverse = _float(float(np.float32(1) / np.float32(entry.scale)))
    return tables, "".join([*lines, f"    y = y * {inverse};\n", _rounded(entry, "y")])


def _lookup(entry: Input) -> tuple[str, str]:
    preparation = entry.preparation
    rows, columns = len(preparation.tables), len(preparation.tables[0])
    numbers = ",\n".join(_block(row) for row in preparation.tables)
    table = f"  static const {_C_TYPES[entry.dtype]} tables[{rows * columns}] = {{\n{numbers}}};\n"
    last = preparation.first + columns - 1
    kind = "float" if preparation.source_dtype.startswith("float") else "int64_t"
    return table, (
        f"    const {kind} x = ({kind})source[i];\n"
        f"    const int32_t column = x <= ({preparation.first}) ? 0 : x >= ({last}) ? {columns - 1}"
        f" : (int32_t)x - ({preparation.first});\n"
        f"    quantized[i] = tables[(i % {rows}) * {columns} + column];\n"
    )


def _rounded(entry: Input, value: str) -> str:
    limits, target = np.iinfo(entry.dtype), _C_TYPES[entry.dtype]
    return f"    quantized[i] = ({target})io_contract_round({value}, {entry.zero_point}, {limits.min}, {limits.max});\n"


def _constant(name: str, values: Sequence[float]) -> tuple[str, str]:
    """The table of constants, if there is more than one, and what element i takes."""
    if len(values) == 1:
        return "", _float(values[0])
    return f"  static const float {name}[{len(values)}] = {{\n{_block([_float(v) for v in values])}}};\n", (
        f"{name}[i % {len(values)}]"
    )


def _block(values: Sequence[object]) -> str:
    return textwrap.fill(
        ", ".join(str(value) for value in values), _WIDTH, initial_indent="    ", subsequent_indent="    "
    )


def _float(value: float) -> str:
    """A float32 exactly: nine digits are enough.

    >>> _float(0.5), _float(-1e10)
    ('0.5f', '-1e+10f')
    """
    digits = f"{np.float32(value):.9g}"
    return f"{digits if set(digits) & set('.e') else digits + '.0'}f"


def _dequantize(entry: Output, name: str) -> str:
    parts = []
    if entry.labels:
        strings = ",\n".join(f"    {_string(label)}" for label in entry.labels)
        parts.append(
            f"static inline const char *io_contract_label_{name}(int32_t index) {{\n"
            f"  static const char *const labels[{len(entry.labels)}] = {{\n{strings}}};\n"
            f'  return index >= 0 && index < {len(entry.labels)} ? labels[index] : "";\n}}\n'
        )
    if entry.scale is not None:
        upper, dtype = name.upper(), _C_TYPES[entry.dtype]
        parts.append(
            f"static inline void io_contract_dequantize_{name}(const {dtype} *quantized, float *real) {{\n"
            "  int32_t i;\n"
            f"  for (i = 0; i < IO_CONTRACT_{upper}_SIZE; ++i) {{\n"
            f"    const float steps = (float)quantized[i] - (float)IO_CONTRACT_{upper}_ZERO_POINT;\n"
            f"    real[i] = steps * IO_CONTRACT_{upper}_SCALE;\n"
            "  }\n}\n"
        )
    return "\n".join(parts)


def _string(text: str) -> str:
    """A C string of the UTF-8 bytes; octal escapes, which end after three digits."""
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}" for byte in text.encode()
    )
    return f'"{plain}"'
