"""What quantization will do to every layer of a model, before anything is trained."""

import dataclasses
from typing import Any, Literal

import numpy as np
import tf_keras

from components.quantization.conversion.profiles import load_profile
from components.quantization.qat import weight_quantization
from components.quantization.qat.ranges import Ranges
from components.quantization.schemes import QuantizationScheme, load_scheme
from components.quantization.surgery.graph import Call
from components.quantization.surgery.prepare import Prepared, prepare

Action = Literal["quantize", "fold", "rewrite", "pass", "calibrate", "blocked"]
Policy = Literal["calibrate", "fail"]
POLICIES = ("calibrate", "fail")
TRAINED: tuple[Action, ...] = ("quantize", "fold", "pass")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LayerPlan:
    """What happens to one layer.

    Attributes:
      name: Name of the layer; one inside a nested model has the names of both, with "/".
      layer: Its class.
      action: "quantize": trained with fake quantization. "fold": merged into another layer. "rewrite": replaced by the
        layers that are listed behind it. "pass": computes on the integers of its input. "calibrate": not trained; the
        converter finds its ranges. "blocked": cannot be computed in integers, or not be trained where that is asked.
      reason: Why, or how; for a blocked layer, with its remedy.
      parameters: Number of its parameters.
      macs: Multiplications of one inference; those of a folded layer are its host's.
    """

    name: str
    layer: str
    action: Action
    reason: str
    parameters: int
    macs: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class QuantizationPlan:
    """What quantization-aware training will do to a model.

    Attributes:
      scheme: The scheme.
      target: Name of the target that the scheme was checked against, None if none was.
      layers: One entry per layer: rewritten ones first, then those that are trained, in the order of computation.
    """

    scheme: QuantizationScheme
    target: str | None
    layers: tuple[LayerPlan, ...]

    @property
    def blockers(self) -> tuple[LayerPlan, ...]:
        """The layers that prevent an integer model, all of them."""
        return tuple(layer for layer in self.layers if layer.action == "blocked")

    @property
    def calibrated(self) -> tuple[LayerPlan, ...]:
        """The layers whose ranges the converter has to find."""
        return tuple(layer for layer in self.layers if layer.action == "calibrate")

    @property
    def coverage(self) -> float:
        """Share of the parameters, 0..1, that are trained as integers."""
        return self._share("parameters")

    @property
    def mac_coverage(self) -> float:
        """Share of the multiplications, 0..1, that are trained as integers."""
        return self._share("macs")

    def _share(self, what: str) -> float:
        total = sum(getattr(layer, what) for layer in self.layers)
        trained = sum(getattr(layer, what) for layer in self.layers if layer.action in TRAINED)
        return trained / total if total else 1.0

    def require_no_blockers(self, model: str) -> None:
        """Checks that the model can be quantized.

        Args:
          model: Name of the model, for the error.

        Raises:
          ValueError: If it cannot; names all layers that prevent it, each with its remedy.
        """
        if self.blockers:
            listed = "; ".join(f"{layer.name} ({layer.layer}): {layer.reason}" for layer in self.blockers)
            raise ValueError(f"model {model!r} cannot be quantized: {listed}")

    def __str__(self) -> str:
        """A table of the layers, one a line, and the coverage."""
        width = max((len(f"{layer.name} ({layer.layer})") for layer in self.layers), default=0)
        lines = [
            f"{f'{layer.name} ({layer.layer})'.ljust(width)}  {layer.action:9}  {layer.reason}" for layer in self.layers
        ]
        lines.append(
            f"trained as integers: {self.coverage:.1%} of the parameters, {self.mac_coverage:.1%} of the"
            f" multiplications; layers calibrated: {len(self.calibrated)}, blocked: {len(self.blockers)}"
        )
        return "\n".join(lines)


def plan(
    model: Any,
    scheme: str | QuantizationScheme = "full_int8",
    target: str | None = None,
    untrainable: Policy = "calibrate",
) -> QuantizationPlan:
    """Lists what quantization-aware training will do to every layer, with all blockers at once.

    Args:
      model: A built Keras model: tf_keras or Keras 3, Sequential, functional or subclassed.
      scheme: A scheme or its name.
      target: Name of a target; the scheme must be one that it can run.
      untrainable: What becomes of a layer that cannot be trained with fake quantization: "calibrate" leaves its
        ranges to the converter, so that the model is still fully integer; "fail" makes it a blocker.

    Raises:
      ValueError: If the model cannot be taken apart, or scheme and target do not fit or do not exist.

    >>> import tf_keras
    >>> model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,), name="dense")])
    >>> [(layer.name, layer.action) for layer in plan(model).layers]
    [('dense', 'quantize')]
    """
    scheme = load_scheme(scheme)
    if target is not None:
        load_profile(target).check(scheme)
    if untrainable not in POLICIES:
        raise ValueError(f"untrainable: got {untrainable!r}, expected one of {', '.join(POLICIES)}")
    prepared = prepare(model)
    return plan_of(prepared, Ranges(prepared.model, scheme), scheme, target, untrainable)


def plan_of(
    prepared: Prepared, ranges: Ranges, scheme: QuantizationScheme, target: str | None, untrainable: Policy
) -> QuantizationPlan:
    """Returns the plan of a prepared and analysed model; arguments as those of `plan`."""
    rows = [
        LayerPlan(name=rewrite.name, layer=rewrite.layer, action="rewrite", reason=rewrite.step, parameters=0)
        for rewrite in prepared.rewrites
    ]
    seen: dict[int, int] = {}
    for index, call in enumerate(ranges.calls):
        macs = _macs(call) if ranges.rules[index].kind not in ("affine",) else 0
        if id(call.layer) in seen:  # called once more
            row = rows[seen[id(call.layer)]]
            rows[seen[id(call.layer)]] = dataclasses.replace(row, macs=row.macs + macs)
            continue
        action, reason = _decide(ranges, index, scheme, untrainable)
        seen[id(call.layer)] = len(rows)
        rows.append(
            LayerPlan(
                name=call.layer.name,
                layer=type(call.layer).__name__,
                action=action,
                reason=reason,
                parameters=int(call.layer.count_params()),
                macs=macs,
            )
        )
    return QuantizationPlan(scheme=scheme, target=target, layers=tuple(rows))


def _decide(ranges: Ranges, index: int, scheme: QuantizationScheme, untrainable: Policy) -> tuple[Action, str]:
    rule, call = ranges.rules[index], ranges.calls[index]
    if rule.kind == "float":
        return "blocked", rule.reason
    if rule.kind == "calibrate":
        return ("calibrate" if untrainable == "calibrate" else "blocked"), rule.reason
    host = ranges.folded_into(index)
    if host is not None:
        return "fold", f"into {ranges.calls[host].layer.name}"
    group = ranges.group(call.outputs[0])
    width = ", 16-bit inputs and outputs" if index in ranges.wide else ""
    if rule.kind == "weights":
        axes = weight_quantization.scale_axes(call.layer, scheme.per_axis_weights)
        weights = f"{scheme.weight_bits_of(call.layer.name)}-bit weights {'per axis' if axes else 'per tensor'}"
        return "quantize", f"{weights}{width}, {_range(group, index in ranges.fused)}"
    if rule.kind == "affine":
        return "quantize", f"as a 1x1 depthwise convolution{width}, {_range(group, index in ranges.fused)}"
    if rule.kind in ("own", "fixed"):
        return "quantize", f"{_range(group, index in ranges.fused)}{width}"
    if group is None and rule.kind != "nothing":
        return "calibrate", "behind a layer that is calibrated"
    if rule.kind == "nothing":
        return "pass", "does nothing at inference"
    return "pass", f"shares the range of {group.name if group else ''}"


def _range(group: Any, fused: bool) -> str:
    if fused:
        return "fused with what follows"
    if group is None:
        return "no range"
    if group.fixed:
        return "range prescribed by the kernel"
    return "range trained" if len(group.watched) < 2 else "range trained, shared"


def _macs(call: Call) -> int:
    """Multiplications of a call for one example; 0 where a dimension is unknown."""
    layer, outputs = call.layer, call.outputs[0].shape
    if isinstance(layer, tf_keras.layers.Bidirectional):
        layer = layer.forward_layer
    if isinstance(layer, tf_keras.layers.RNN):
        return int(call.layer.count_params() * (call.inputs[0].shape[1] or 0))
    positions = call.inputs[0].shape if type(layer).__name__.endswith("Transpose") else outputs
    if any(size is None for size in positions[1:]):
        return 0
    if isinstance(layer, tf_keras.layers.PReLU):
        return int(np.prod(outputs[1:]))
    return int(np.prod(positions[1:-1])) * _products(layer)


def _products(layer: Any) -> int:
    """Multiplications of a layer for each position of its output, or of its input if it is transposed."""
    if weight_quantization.has_kernel(layer):
        return int(np.prod(getattr(layer, weight_quantization.kernel_name(layer)).shape))
    if isinstance(layer, tf_keras.layers.Embedding):
        return 0  # looks up
    return sum(int(np.prod(weight.shape)) for weight in layer.weights if len(weight.shape) > 1)
