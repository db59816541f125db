"""Makes the I/O contract of a TFLite file."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.quantization.contract import schema
from components.quantization.contract.folding import Samples, fold, pipeline_integers, source_values
from components.quantization.contract.layout import input_layout, output_layout
from components.quantization.contract.preprocessing import Preprocessing, identity
from components.quantization.contract.steps import Postprocessing
from components.quantization.conversion import flatbuffer
from components.quantization.conversion.interface import SIGNATURE


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Knowledge:
    """What is known of a model beside its file.

    Attributes:
      preprocessing: What makes its inputs of raw features; None if they are the inputs.
      raw_examples: Real ones, arrays of (examples, ...) by name of the raw feature, strings as objects; the preparation
        is verified with them. None if there are none.
      labels: The names of the last axis of an output, by the output's name.
      domains: The smallest and the largest value of raw features that are whole numbers, by name, as the schema says;
        those of uint8 and int8 need none.
      postprocessing: What the client does with the real values of the outputs; None for nothing.
    """

    preprocessing: Preprocessing | None = None
    raw_examples: Mapping[str, npt.ArrayLike] | None = None
    labels: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    domains: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    postprocessing: Postprocessing | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BuiltContract:
    """A contract, and what it makes of the raw examples.

    Attributes:
      contract: The contract.
      sources: By name of the input, the values of the raw examples from which its preparation starts, (examples,
        *source_shape[1:]); empty if there are no raw examples, and without those inputs that sparse features make.
      inputs: By name of the input, the pipeline's own integers for the raw examples, (examples, *shape[1:]).
    """

    contract: schema.Contract
    sources: dict[str, npt.NDArray[Any]]
    inputs: dict[str, npt.NDArray[Any]]


def build_contract(tflite: bytes, knowledge: Knowledge | None = None) -> BuiltContract:
    """Returns the contract of a TFLite file, verified.

    Args:
      tflite: A TFLite flatbuffer with signature "serving_default".
      knowledge: What else is known; None for nothing.

    Raises:
      ValueError: If the file has no such signature, a label names no output, labels are too many or too few, or
        preprocessing or postprocessing does not fit the model.
    """
    knowledge = knowledge or Knowledge()
    inputs, outputs = _edges(tflite)
    _require_outputs(knowledge.labels, outputs)
    preprocessing = knowledge.preprocessing or identity(
        {edge["name"]: (edge["shape"], "float32" if edge["scale"] is not None else edge["dtype"]) for edge in inputs}
    )
    raw = knowledge.raw_examples
    samples = Samples(raw=raw, features=None if raw is None else preprocessing.apply(raw), domains=knowledge.domains)
    graph = preprocessing.frozen()
    folded = [fold(graph, schema.Edge(**edge), samples) for edge in inputs]
    contract = schema.Contract(
        tflite_sha256=hashlib.sha256(tflite).hexdigest(),
        signature=SIGNATURE,
        inputs=tuple(
            schema.Input(**edge, preparation=way.preparation) for edge, way in zip(inputs, folded, strict=True)
        ),
        outputs=tuple(schema.Output(**edge, labels=tuple(knowledge.labels.get(edge["name"], ()))) for edge in outputs),
        postprocessing=knowledge.postprocessing,
    )
    return BuiltContract(
        contract=contract,
        sources={
            edge["name"]: values
            for edge, way in zip(inputs, folded, strict=True)
            if (values := source_values(graph, way.source, samples)) is not None
        },
        inputs={
            entry.name: pipeline_integers(entry, samples.features[entry.name])
            for entry in contract.inputs
            if samples.features is not None
        },
    )


def _require_outputs(labels: Mapping[str, Sequence[str]], outputs: list[dict[str, Any]]) -> None:
    names = [edge["name"] for edge in outputs]
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise ValueError(f"labels: got some for {', '.join(unknown)}, expected outputs out of {', '.join(names)}")


def _edges(tflite: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The fields of the inputs and of the outputs, as the stock interpreter sees them."""
    graph = flatbuffer.read_subgraphs(tflite)[0]
    interpreter = tf.lite.Interpreter(
        model_content=tflite, experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_REF
    )
    signature = interpreter.get_signature_list().get(SIGNATURE)
    if signature is None:
        raise ValueError(f"the TFLite model has no signature {SIGNATURE!r}; convert it with TFLiteIntConverter")
    runner = interpreter.get_signature_runner(SIGNATURE)
    sides = []
    for details, named, layout in (
        (interpreter.get_input_details(), runner.get_input_details(), input_layout),
        (interpreter.get_output_details(), runner.get_output_details(), output_layout),
    ):
        names: dict[int, list[str]] = {}  # several outputs may be one tensor
        for name, detail in named.items():
            names.setdefault(int(detail["index"]), []).append(name)
        sides.append(
            [
                {
                    **_fields(detail, position, names[int(detail["index"])].pop(0)),
                    "layout": layout(graph, int(detail["index"])),
                }
                for position, detail in enumerate(details)
                if names.get(int(detail["index"]))
            ]
        )
    return sides[0], sides[1]


def _fields(detail: Mapping[str, Any], position: int, name: str) -> dict[str, Any]:
    dtype = np.dtype(detail["dtype"]).name
    scale, zero_point = detail["quantization"]
    scale = float(scale) or None
    low, high = schema.real_range(dtype, scale, int(zero_point))
    return {
        "name": name,
        "position": position,
        "tensor_index": int(detail["index"]),
        "shape": tuple(int(size) for size in detail["shape"]),
        "dtype": dtype,
        "scale": scale,
        "zero_point": int(zero_point),
        "real_min": low,
        "real_max": high,
    }
