"""The rules by which an op maps to the Edge TPU, in the order in which the compiler checks them.

Each rule is one sentence: the docstring of its check, the reason that the mapping gives, and a row of SUPPORT.md. Its
basis is what https://coral.ai/docs/edgetpu/models-intro/ documents, or compiled models in public with their logs, which
go before the documents where they say otherwise.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable

from components.targets._operation import Operation, elements
from components.targets._rules import unknown_size
from components.targets.edge_tpu import generations, statuses
from components.targets.edge_tpu.generations import SUPPORTED, Generation
from components.targets.edge_tpu.limits import LIMITS, Limit

# How sure a decision is. "Documented": no compiled model shows it. "Unknown": between what is known to map and what is
# known to be refused, or beyond all sizes and versions that were seen.
CERTAIN, DOCUMENTED, UNKNOWN = 1.0, 0.8, 0.6

_EIGHT_BITS = frozenset({"INT8", "UINT8"})
_REDUCTIONS = frozenset({"MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"})
_WITH_WEIGHTS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
_MAPPED_DIMENSIONS, _HIGHEST_RANK = 3, 4
_DEPTH_MULTIPLE = 4
# A broken file may have tensors of millions of dimensions, and many ops that share one large constant.
_SHOWN_DIMENSIONS, _READ_PADDING_BYTES = 8, 2**16


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Whether an op maps by itself, wherever it stands in the graph.

    Attributes:
      status: `statuses.MAPPED`, or what the compiler says of it.
      reason: The rule that refuses it or makes it uncertain, with what was got; empty if it surely maps.
      confidence: How sure that is, 0..1.
    """

    status: str
    reason: str
    confidence: float

    @property
    def supported(self) -> bool:
        """Whether it maps."""
        return self.status == statuses.MAPPED


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A rule: what breaks it, in words, or None; and what the compiler says then."""

    name: str
    text: str
    status: str
    confidence: float
    breaks: Callable[[Operation, Generation], str | None]


def low_rank(operation: Operation, generation: Generation) -> str | None:
    """Tensors have at most four dimensions, even where outer ones are 1."""
    return _shape(t.shape for t in operation.data if len(t.shape) > _HIGHEST_RANK)


def few_dimensions(operation: Operation, generation: Generation) -> str | None:
    """Only the three innermost dimensions of a tensor are above 1."""
    return _shape(t.shape for t in operation.data if any(size > 1 for size in t.shape[:-_MAPPED_DIMENSIONS]))


def quantize_of_integers(operation: Operation, generation: Generation) -> str | None:
    """A QUANTIZE is between INT8 and UINT8: one with a float side runs on the CPU."""
    return next((t.dtype for t in operation.data if operation.code == "QUANTIZE" and t.dtype not in _EIGHT_BITS), None)


def eight_bit_data(operation: Operation, generation: Generation) -> str | None:
    """Data and weights are INT8 or UINT8, only UINT8 for a runtime before 12."""
    return _dtype(operation, generation)


def supported_op(operation: Operation, generation: Generation) -> str | None:
    """The op is one that the Edge TPU has in this generation."""
    support = SUPPORTED.get(operation.code)
    if support is None:
        return operation.op.name
    if support.compiler > generation.compiler:
        return f"one of compiler {support.compiler[0]}.{support.compiler[1]}"
    return f"one of runtime {support.runtime}" if support.runtime > generation.runtime else None


def mapped_version(operation: Operation, generation: Generation) -> str | None:
    """The version of the op is one that the compiler maps."""
    highest, version = generations.highest_mapped(operation.code, generation), operation.op.version
    return f"version {version}, expected at most {highest}" if highest is not None and version > highest else None


def constant_parameters(operation: Operation, generation: Generation) -> str | None:
    """Filters, biases, shapes, axes and the like are constants."""
    return next((f"{t.name or 'a tensor'} that is computed" for t in operation.parameters if t.constant is None), None)


def undivided_batch(operation: Operation, generation: Generation) -> str | None:
    """A SPLIT does not cut the first dimension of its input."""
    if operation.code != "SPLIT" or len(operation.outputs) < 2 or operation.input is None:
        return None
    axes, rank = operation.integers(0), len(operation.input.shape)
    return f"{len(operation.outputs)} parts" if axes and rank and axes[0] % rank == 0 else None


def known_shapes(operation: Operation, generation: Generation) -> str | None:
    """Every dimension is known at compile time, and at least 1."""
    return unknown_size(operation) or _shape(t.shape for t in operation.data if min(t.shape, default=1) < 1)


def no_fused_activation(operation: Operation, generation: Generation) -> str | None:
    """Pooling and CONCATENATION have no fused activation."""
    if operation.code not in ("AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION"):
        return None
    return "one" if operation.options["activation"] else None


def zero_padding(operation: Operation, generation: Generation) -> str | None:
    """A CONCATENATION with a constant has two inputs, the constant all zeros."""
    constants = [t for t in operation.operands if t is not None and t.constant is not None]
    if operation.code != "CONCATENATION" or not constants:
        return None
    if len(operation.operands) != 2:
        return f"{len(operation.operands)} inputs"
    zero = constants[0].zero_point[0] % 256 if constants[0].zero_point else 0
    content = bytes((constants[0].constant or b"")[:_READ_PADDING_BYTES])
    return None if content.count(zero) == len(content) else "other values"


def default_weights(operation: Operation, generation: Generation) -> str | None:
    """Weights of FULLY_CONNECTED are in the default format."""
    other = operation.code == "FULLY_CONNECTED" and operation.options["weights_format"]
    return f"format {operation.options['weights_format']}" if other else None


def alpha_of_channels(operation: Operation, generation: Generation) -> str | None:
    """The alpha of a PRELU is one-dimensional: only its innermost dimension is above 1."""
    if operation.code != "PRELU":
        return None
    return _shape(t.shape for t in operation.parameters if elements(t.shape[:-1]) != 1)


def plain_slice(operation: Operation, generation: Generation) -> str | None:
    """A STRIDED_SLICE has strides of 1, no ellipsis and no new axis."""
    if operation.code != "STRIDED_SLICE":
        return None
    if any(stride != 1 for stride in operation.integers(3)):
        return f"strides {operation.integers(3)}"
    return "a mask" if operation.options["ellipsis_mask"] or operation.options["new_axis_mask"] else None


def whole_batch(operation: Operation, generation: Generation) -> str | None:
    """A reduction of a four-dimensional tensor keeps the first dimension."""
    rank = _rank(operation)
    axes = operation.integers(1) if operation.code in _REDUCTIONS and rank == _HIGHEST_RANK else ()
    return f"axes {axes}" if any(axis % rank == 0 for axis in axes) else None


def depth_of_mean(operation: Operation, generation: Generation) -> str | None:
    """A MEAN over the innermost dimension is over a multiple of 4, and needs runtime 13."""
    rank = _rank(operation)
    if operation.code != "MEAN" or not rank or all(axis % rank != rank - 1 for axis in operation.integers(1)):
        return None
    depth = operation.input.shape[-1] if operation.input else 0
    return f"{depth}" if depth % _DEPTH_MULTIPLE or generation.runtime < 13 else None


def padded_image(operation: Operation, generation: Generation) -> str | None:
    """A PAD for a runtime before 13 is along height and width alone."""
    if operation.code not in ("PAD", "PADV2") or generation.runtime >= 13 or _rank(operation) != _HIGHEST_RANK:
        return None
    paddings = operation.integers(1)
    return f"{paddings}" if any((*paddings[:2], *paddings[-2:])) else None


def dense_depthwise(operation: Operation, generation: Generation) -> str | None:
    """A DEPTHWISE_CONV_2D is dilated only for runtime 12 or newer."""
    if operation.code != "DEPTHWISE_CONV_2D" or generation.runtime >= 12:
        return None
    dilation = (operation.options["dilation_height"], operation.options["dilation_width"])
    return f"dilation {dilation}" if dilation != (1, 1) else None


def _rule(status: str, breaks: Callable[[Operation, Generation], str | None], confidence: float = CERTAIN) -> Rule:
    return Rule(
        name=breaks.__name__.replace("_", "-"),
        text=inspect.getdoc(breaks) or "",
        status=status,
        confidence=confidence,
        breaks=breaks,
    )


RULES = (
    _rule(statuses.RANK, low_rank),
    _rule(statuses.RANK, few_dimensions),
    _rule(statuses.UNSPECIFIED, quantize_of_integers),
    _rule(statuses.DATA_TYPE, eight_bit_data),
    _rule(statuses.NOT_SUPPORTED, supported_op),
    _rule(statuses.VERSION, mapped_version),
    _rule(statuses.NOT_CONSTANT, constant_parameters, DOCUMENTED),
    _rule(statuses.BATCH, undivided_batch),
    _rule(statuses.UNSPECIFIED, known_shapes, DOCUMENTED),
    _rule(statuses.UNSPECIFIED, no_fused_activation, DOCUMENTED),
    _rule(statuses.UNSPECIFIED, zero_padding, DOCUMENTED),
    _rule(statuses.UNSPECIFIED, default_weights, DOCUMENTED),
    _rule(statuses.UNSPECIFIED, alpha_of_channels, DOCUMENTED),
    _rule(statuses.UNSPECIFIED, plain_slice, DOCUMENTED),
    _rule(statuses.UNSPECIFIED, whole_batch, DOCUMENTED),
    _rule(statuses.UNSPECIFIED, depth_of_mean, DOCUMENTED),
    _rule(statuses.UNSPECIFIED, padded_image, DOCUMENTED),
    _rule(statuses.UNSPECIFIED, dense_depthwise, DOCUMENTED),
)


def decide(operation: Operation, generation: Generation, limits: Iterable[Limit] = LIMITS) -> Decision:
    """Says whether an op maps by itself.

    Args:
      operation: An op of the main subgraph.
      generation: Compiler and runtime.
      limits: The limits of sizes.
    """
    for rule in RULES:
        got = rule.breaks(operation, generation)
        if got is not None:
            return Decision(status=rule.status, reason=f"{rule.text} Got {got}.", confidence=rule.confidence)
    doubt = _doubt(operation)
    for limit in limits:
        size = limit.measure(operation)
        if size is None:
            continue
        refused, certain = size > limit.value, limit.certain(operation, size)
        if certain and not refused:
            continue
        reason = f"{limit.sentence} Got {size:,}" + ("." if certain else ": no evidence at this size.")
        confidence = CERTAIN if certain else UNKNOWN
        if refused:
            return Decision(status=statuses.UNSPECIFIED, reason=reason, confidence=confidence)
        doubt = min(doubt, (confidence, reason))
    return Decision(status=statuses.MAPPED, reason=doubt[1], confidence=doubt[0])


def _doubt(operation: Operation) -> tuple[float, str]:
    """How sure it is that an op maps that no rule refuses, and why not surer."""
    support = SUPPORTED[operation.code]
    size = max((elements(tensor.shape) for tensor in operation.data), default=0)
    if not support.version:
        return DOCUMENTED, f"{operation.code} is documented, or in logs: no evidence at this size."
    if operation.op.version > support.version:
        known = f"{operation.code} is known to map up to version {support.version}"
        return UNKNOWN, f"{known}, got {operation.op.version}: no evidence at this version."
    if size > support.elements:
        known = f"{operation.code} is known to map up to {support.elements:,} elements"
        return DOCUMENTED, f"{known}, got {size:,}: no evidence at this size."
    return CERTAIN, ""


def _shape(shapes: Iterable[tuple[int, ...]]) -> str | None:
    return next(("x".join(str(size) for size in shape[:_SHOWN_DIMENSIONS]) for shape in shapes), None)


def _dtype(operation: Operation, generation: Generation) -> str | None:
    allowed = _EIGHT_BITS if generation.runtime >= generations.FIRST_RUNTIME_OF_INT8 else frozenset({"UINT8"})
    weights = operation.operands[1:2] if operation.code in _WITH_WEIGHTS else ()
    tensors = [*operation.data, *(t for t in weights if t is not None and t.constant is not None)]
    return next((t.dtype for t in tensors if t.dtype not in allowed), None)


def _rank(operation: Operation) -> int:
    return len(operation.input.shape) if operation.input else 0
