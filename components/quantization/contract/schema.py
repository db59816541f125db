"""The I/O contract as frozen dataclasses, and as JSON."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from components.quantization.contract import arithmetic
from components.quantization.contract.steps import ClientStep, Postprocessing

SCHEMA_VERSION = 1
KINDS = ("identity", "affine", "lookup", "steps")
OPERATIONS = ("add", "subtract", "subtract_from", "multiply", "divide")
# What a preparation can start from: what a device has, too.
DTYPES = (
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float32", "float64", "bool"),
)
METHODS = ("exhaustive", "examples", "construction")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One float32 operation on each element x and its constant c.

    Attributes:
      op: "add" x+c, "subtract" x-c, "subtract_from" c-x, "multiply" x*c, "divide" x/c.
      values: c: one for all elements, one per channel (element i takes values[i % len(values)]), or one each.
    """

    op: str
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.op not in OPERATIONS or not self.values:
            raise ValueError(f"operation: got {self.op!r} of {len(self.values)} values, expected one of {OPERATIONS}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """How it was found that the preparation is bit-equal to preprocessing in TensorFlow and quantization.

    Attributes:
      method: "exhaustive", over every value of the source's type or domain at every element; "examples", over real
        ones and, where preprocessing computes in float32, values that lie as near as possible to the middle between two
        integers (in another type an "affine" preparation may differ by one there); "construction", where there are no
        examples: the float32 operations are those of preprocessing itself, tried with such values.
      count: The number of values, or of examples.
      mismatches: Elements that differed: 0, or the contract would not have been written.
    """

    method: str
    count: int
    mismatches: int

    def __post_init__(self) -> None:
        if self.method not in METHODS or self.mismatches:
            raise ValueError(
                f"verification: got {self.method!r} with {self.mismatches} mismatches, expected one of {METHODS} with 0"
            )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """The way from a raw feature to the model's input.

    Element i, row by row, of the input is made of element i of the source. A list of constants has one for all, one
    per channel (the last axis), or one per element: element i takes values[i % len(values)].

    Attributes:
      source: The raw feature, or the result of the last client step, from which the rest starts.
      source_dtype: Its dtype, for example "uint8".
      source_shape: Its shape, with a batch of 1.
      raw_features: The raw features that it depends on.
      client_steps: What the client must do first, in order; empty if the source is a raw feature.
      kind: "identity": q = x + shift (with int8 of uint8, x XOR 0x80);
        "affine": q = clip(round_half_even(x * multiplier + offset) + zero_point), in float32, product and sum each
        rounded (no fused multiply-add);
        "lookup": q = tables[i % len(tables)][x - first];
        "steps": the float32 `operations` in order, then
        q = clip(round_half_even(y * (1 / scale)) + zero_point); of a float32 input the result as it is.
      shift: See "identity".
      multiplier: See "affine".
      offset: See "affine".
      first: See "lookup".
      tables: See "lookup"; one for all elements or one per channel.
      operations: See "steps".
      verified: How equality with the pipeline's own path was verified.
    """

    source: str
    source_dtype: str
    source_shape: tuple[int, ...]
    raw_features: tuple[str, ...]
    client_steps: tuple[ClientStep, ...] = ()
    kind: str
    shift: int = 0
    multiplier: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    first: int = 0
    tables: tuple[tuple[int, ...], ...] = ()
    operations: tuple[Operation, ...] = ()
    verified: Verification

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"preparation of {self.source!r}: got kind {self.kind!r}, expected one of {KINDS}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """An input or output of the model.

    Attributes:
      name: Its name in the signature.
      position: Its place among the inputs, or outputs, of the interpreter's details.
      tensor_index: Its tensor index in the file.
      shape: Its shape; the first is the batch.
      dtype: Its dtype, for example "int8".
      scale: Real value of one step, exactly a float32; None if it is not quantized (indices, floats).
      zero_point: The integer that stands for 0.0; 0 if it is not quantized.
      real_min: Real value of the smallest integer; None if not quantized.
      real_max: Real value of the largest integer; None if not quantized.
      layout: What the axes are, for example "NHWC", as the op that reads or writes it says; "?" if that says nothing.
    """

    name: str
    position: int
    tensor_index: int
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int
    real_min: float | None
    real_max: float | None
    layout: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Input(Edge):
    """An input, and how it is made of raw features."""

    preparation: Preparation


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Output(Edge):
    """An output; `labels` names its last axis in order, and is empty if nobody said."""

    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.labels and len(self.labels) != self.shape[-1]:
            raise ValueError(
                f"output {self.name!r}: got {len(self.labels)} labels, expected {self.shape[-1]}, one for each score"
            )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """Everything between raw features and real results, of one TFLite file.

    Attributes:
      tflite_sha256: Hash of the file as it lies beside the contract.
      signature: The signature whose names are used.
      inputs: In the interpreter's order.
      outputs: In the interpreter's order.
      postprocessing: What the client does with the real values of the outputs, where the model was cut; else None.
    """

    tflite_sha256: str
    signature: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    postprocessing: Postprocessing | None = None

    def __post_init__(self) -> None:
        sources = () if self.postprocessing is None else self.postprocessing.sources
        names = [entry.name for entry in self.outputs]
        unknown = sorted(set(sources) - set(names))
        if unknown:
            raise ValueError(f"postprocessing: got sources {', '.join(unknown)}, expected outputs out of {names}")

    def to_json(self) -> str:
        """Returns canonical JSON: keys sorted, constants that do not apply left out, a float32 exactly."""
        return json.dumps(self._as_dict(), sort_keys=True, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Contract":
        """Reads what `to_json` wrote.

        Raises:
          ValueError: If it is no contract, of another schema version, or a field is missing, unknown or wrong.
        """
        try:
            fields = json.loads(text)
            version = fields.pop("schema_version")
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ValueError("io_contract.json: not a JSON object with schema_version") from error
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"io_contract.json: got schema_version {version!r}, expected {SCHEMA_VERSION}; use the version of"
                " tfx-qat that wrote it"
            )
        try:
            inputs = tuple(_input(entry) for entry in fields.pop("inputs"))
            outputs = tuple(Output(**_tuples(entry)) for entry in fields.pop("outputs"))
            behind = fields.pop("postprocessing", None)
            postprocessing = None if behind is None else _postprocessing(behind)
            return cls(inputs=inputs, outputs=outputs, postprocessing=postprocessing, **fields)
        except (TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
            raise ValueError(f"io_contract.json: a field is missing, unknown or of a wrong type: {error}") from error

    def quantize_raw(self, sources: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
        """Makes the model's inputs.

        Args:
          sources: By input name, or by the source's, arrays of (examples, *source_shape[1:]).

        Returns:
          Arrays of (examples, *shape[1:]) by input name.

        Raises:
          ValueError: If a source is missing or wrong; lists what is missing.
        """
        missing = [f"{e.name} (of {e.preparation.source})" for e in self.inputs if _key(e, sources) is None]
        if missing:
            raise ValueError(f"quantize_raw: no value for {', '.join(missing)}; got {', '.join(sorted(sources))}")
        return {
            entry.name: arithmetic.quantize(entry_dict(entry), sources[_key(entry, sources) or ""])
            for entry in self.inputs
        }

    def dequantize(self, outputs: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
        """Returns the real values of the model's outputs, by name."""
        return {entry.name: arithmetic.dequantize(entry_dict(entry), outputs[entry.name]) for entry in self.outputs}

    def _as_dict(self) -> dict[str, Any]:
        behind = self.postprocessing
        return {
            **({} if behind is None else {"postprocessing": dataclasses.asdict(behind)}),
            "schema_version": SCHEMA_VERSION,
            "tflite_sha256": self.tflite_sha256,
            "signature": self.signature,
            "inputs": [entry_dict(entry) for entry in self.inputs],
            "outputs": [entry_dict(entry) for entry in self.outputs],
        }


# The constants of each kind; those of the others are left out of the JSON.
_KIND_FIELDS = {
    "identity": ("shift",),
    "affine": ("multiplier", "offset"),
    "lookup": ("first", "tables"),
    "steps": ("operations",),
}


def entry_dict(edge: Edge) -> dict[str, Any]:
    """Returns an input or output as `arithmetic` takes it and JSON has it."""
    entry = dataclasses.asdict(edge)
    if isinstance(edge, Input):
        others = {name for kind, names in _KIND_FIELDS.items() if kind != edge.preparation.kind for name in names}
        entry["preparation"] = {key: value for key, value in entry["preparation"].items() if key not in others}
    return entry


def _key(entry: Input, sources: Mapping[str, npt.ArrayLike]) -> str | None:
    return next((name for name in (entry.name, entry.preparation.source) if name in sources), None)


def _input(entry: dict[str, Any]) -> Input:
    preparation = dict(entry["preparation"])
    preparation["client_steps"] = _client_steps(preparation["client_steps"])
    preparation["operations"] = tuple(Operation(**_tuples(step)) for step in preparation.get("operations", ()))
    preparation["verified"] = Verification(**preparation["verified"])
    return Input(**_tuples({**entry, "preparation": Preparation(**_tuples(preparation))}))


def _postprocessing(entry: dict[str, Any]) -> Postprocessing:
    return Postprocessing(**_tuples({**entry, "steps": _client_steps(entry["steps"])}))


def _client_steps(steps: list[dict[str, Any]]) -> tuple[ClientStep, ...]:
    return tuple(ClientStep(**{**step, "constants": _tuples(step["constants"])}) for step in steps)


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: _tuple(value) for key, value in fields.items()}


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value


def real_range(dtype: str, scale: float | None, zero_point: int) -> tuple[float | None, float | None]:
    """Returns the real values of the smallest and the largest integer.

    >>> real_range("int8", 0.5, -128)
    (0.0, 127.5)
    """
    if scale is None:
        return None, None
    limits = np.iinfo(dtype)
    low, high = (float(np.float32(scale) * np.float32(limit - zero_point)) for limit in (limits.min, limits.max))
    return low, high
