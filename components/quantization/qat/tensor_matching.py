"""Which tensor of a .tflite is which tensor of the quantization-aware model that it was converted from."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tf_keras

from components.quantization.conversion import flatbuffer
from components.quantization.qat.fake_quantization import FakeQuantize
from components.quantization.surgery.graph import Call, calls

# Of a scale: float32 arithmetic of the converter and of Keras.
_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A tensor of the Keras model and its counterpart.

    Attributes:
      name: The layer before a FakeQuantize, or "output" and the output's name.
      symbolic: The symbolic tensor of the Keras model.
      tensor: The tensor of the .tflite; None if none was found.
      output: The name of the model's output that it is; empty if it is none.
    """

    name: str
    symbolic: Any
    tensor: flatbuffer.Tensor | None
    output: str = ""


def probes(
    model: tf_keras.Model,
    tensors: Sequence[flatbuffer.Tensor],
    inputs: Mapping[str, flatbuffer.Tensor],
    outputs: Mapping[str, flatbuffer.Tensor],
) -> tuple[Probe, ...]:
    """Pairs the output of each call of a FakeQuantize, and each output of the model, with a tensor of the .tflite.

    The converter names a tensor after the ops that it was fused from, seldom after the fake quantization behind them.
    So a counterpart is looked for by the name of the layer that was called before, then at the model's edges, then by
    its scale.

    Args:
      model: A functional model with FakeQuantize layers.
      tensors: The tensors of the main subgraph.
      inputs: Its inputs by name in the signature.
      outputs: Its outputs by name in the signature.

    Raises:
      ValueError: If the signature's inputs or outputs are not those of the model.
    """
    for what, names, found in (("inputs", model.input_names, inputs), ("outputs", model.output_names, outputs)):
        if set(names) != set(found):
            raise ValueError(
                f"the TFLite model has the {what} {sorted(found)}, the Keras model {sorted(names)}; give the .tflite"
                " that was converted from this model"
            )
    fed = {tensor.index for tensor in inputs.values()}
    computed = [tensor for tensor in tensors if tensor.constant is None and tensor.index not in fed]
    edges = {id(tensor): inputs[name] for name, tensor in zip(model.input_names, model.inputs, strict=True)}
    edges |= {id(tensor): outputs[name] for name, tensor in zip(model.output_names, model.outputs, strict=True)}
    ranged = [_probe(call, computed, edges, _is_called_again(model, call)) for call in calls(model) if _quantizes(call)]
    results = [
        Probe(name=f"output {name}", symbolic=symbolic, tensor=outputs[name], output=name)
        for name, symbolic in zip(model.output_names, model.outputs, strict=True)
    ]
    return (*ranged, *results)


def _quantizes(call: Call) -> bool:
    return isinstance(call.layer, FakeQuantize) and not call.kwargs.get("step", False)


def _is_called_again(model: tf_keras.Model, call: Call) -> bool:
    """Whether the layer before a FakeQuantize makes several tensors, whose names tell them apart in no known order."""
    layer = call.inputs[0].node.layer
    return sum(other.layer is layer for other in calls(model)) > 1


def _probe(
    call: Call, tensors: list[flatbuffer.Tensor], edges: Mapping[int, flatbuffer.Tensor], several: bool
) -> Probe:
    symbolic = call.outputs[0]
    fitting = [tensor for tensor in tensors if math.prod(tensor.shape) == math.prod(symbolic.shape[1:])]
    found = _candidates(call, fitting, edges)
    best = next(found, None)
    if several and best is not None and best.scale:
        equal = {tensor.index for tensor in found if tensor.scale == best.scale} - {best.index}
        best = None if equal else best
    return Probe(name=call.inputs[0].node.layer.name, symbolic=symbolic, tensor=best)


def _candidates(
    call: Call, fitting: list[flatbuffer.Tensor], edges: Mapping[int, flatbuffer.Tensor]
) -> Iterator[flatbuffer.Tensor]:
    """Yields tensors, the most likely first."""
    source, result = id(call.inputs[0]), id(call.outputs[0])
    if source in edges:
        yield edges[source]
    wide = bool(call.kwargs.get("wide", False))
    fitting = [tensor for tensor in fitting if (tensor.dtype == "INT16") is (wide or call.layer.bits == 16)]
    ranged = [tensor for tensor in fitting if tensor.scale and _is_scale_of(tensor.scale[0], call.layer)]
    for group in (ranged, fitting):
        for wanted in (call.inputs[0].node.layer.name, call.layer.name):
            # Of the tensors of one call the last is its result.
            yield from (tensor for tensor in reversed(group) if wanted in flatbuffer.name_parts(tensor.name))
    if result in edges:
        yield edges[result]
    if len(ranged) == 1:
        yield from ranged


def _is_scale_of(scale: float, quantizer: FakeQuantize) -> bool:
    step = (float(quantizer.maximum) - float(quantizer.minimum)) / (2**quantizer.bits - 1)
    return math.isclose(scale, step, rel_tol=_TOLERANCE)
