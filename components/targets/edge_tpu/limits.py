"""Sizes beyond which the compiler leaves an op on the CPU, none of them documented: each with what is known around it.

Compiled models in public and their logs show sizes that were mapped and others that were refused. In between nothing is
known, and the value assumed is a round number of bytes of on-chip memory where there is one, for the gap's middle.
"""

import dataclasses
from collections.abc import Callable

from components.targets._operation import Operation, elements

# Ops refused for a long row, and their kin, which move data or map it value by value as well.
_LONG_ROWS = frozenset({"CONCATENATION", "LOGISTIC", "QUANTIZE", "STRIDED_SLICE"})
_KIN_OF_LONG_ROWS = frozenset(
    {
        *("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "PACK", "SPLIT", "SLICE", "PAD", "PADV2"),
        *("TANH", "RELU", "RELU6", "RELU_N1_TO_1", "PRELU", "RSQRT", "SOFTMAX"),
    }
)
# The Edge TPU spreads rows of a tensor over 4 x 4 tiles; a row that is not split any more has to fit into its tiles.
_INNER = 2


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """A size above which an op is refused.

    Attributes:
      name: Its id.
      text: The rule, one sentence, with places for the value.
      measure: The size of an op in it; None for one that the limit is not about.
      mapped: The largest size known to be mapped.
      value: The largest size taken to be mapped.
      refused: The smallest size known to be refused.
      kin: Ops that are taken to have the limit as well, though none is known to be refused.
    """

    name: str
    text: str
    measure: Callable[[Operation], int | None]
    mapped: float
    value: float
    refused: float
    kin: frozenset[str] = frozenset()

    @property
    def sentence(self) -> str:
        """The rule with its value."""
        return self.text.format(value=f"{self.value:,.0f}")

    def certain(self, operation: Operation, size: int) -> bool:
        """Whether the evidence, not the value alone, says what becomes of an op of this size."""
        return size <= self.mapped or (size >= self.refused and operation.code not in self.kin)


def _row(operation: Operation) -> int | None:
    """The largest row of the tensors that an op moves, its two innermost dimensions."""
    if operation.code not in _LONG_ROWS | _KIN_OF_LONG_ROWS:
        return None
    return max((elements(tensor.shape[-_INNER:]) for tensor in operation.data), default=None)


def _reshaped(operation: Operation) -> int | None:
    if operation.code != "RESHAPE" or operation.output is None or operation.input is None:
        return None
    # Another name for the same rows moves nothing.
    same_rows = _without_ones(operation.input.shape) == _without_ones(operation.output.shape)
    return 0 if same_rows else elements(operation.output.shape)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _transposed(operation: Operation) -> int | None:
    if operation.code != "TRANSPOSE" or operation.output is None:
        return None
    return elements(operation.output.shape)


def _batched_input(operation: Operation) -> int | None:
    if operation.code != "FULLY_CONNECTED" or operation.input is None or operation.output is None:
        return None
    rows = elements(operation.output.shape[:-1])
    return elements(operation.input.shape) if rows > 1 else 0


def _averaged(operation: Operation) -> int | None:
    if operation.code != "MEAN" or operation.input is None or operation.output is None:
        return None
    return elements(operation.input.shape) // max(elements(operation.output.shape), 1)


def _softmax_depth(operation: Operation) -> int | None:
    return (
        operation.output.shape[-1]
        if operation.code == "SOFTMAX" and operation.output and operation.output.shape
        else None
    )


def _enlarged(operation: Operation) -> int | None:
    if operation.code != "RESIZE_BILINEAR" or operation.input is None or operation.output is None:
        return None
    before, after = operation.input.shape[1:3], operation.output.shape[1:3]
    return max((-(-new // max(old, 1)) for old, new in zip(before, after, strict=False)), default=None)


def _resized(operation: Operation) -> int | None:
    if operation.code not in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR") or operation.output is None:
        return None
    return elements(operation.output.shape)


# In elements of 8 bits, that is, in bytes.
LIMITS = (
    Limit(
        # Heads of YOLOv8n: 20 x 20 x 144 maps, 28 x 28 x 144 does not.
        name="transposed-elements",
        text="A TRANSPOSE of at most {value} elements is mapped, what 64 KiB hold.",
        measure=_transposed,
        mapped=57_600,
        value=2**16,
        refused=112_896,
    ),
    Limit(
        # Counts in logs: of YOLOv8n at 320 pixels 64 x 2100 maps, of YOLOv5s at 224 3 x 784 x 85 does not.
        name="reshaped-elements",
        text="A RESHAPE that moves data is mapped up to {value} elements, 160 KiB.",
        measure=_reshaped,
        mapped=134_400,
        value=160 * 2**10,
        refused=199_920,
    ),
    Limit(
        # Counts in logs: of YOLOv8n at 320 pixels 84 x 2100 maps, of YOLOv5s at 224 3087 x 85 does not.
        name="row-elements",
        text="The two innermost dimensions of what an op moves, or maps value by value, hold at most {value} elements,"
        " 256 KiB: 64 KiB in each of four tiles.",
        measure=_row,
        mapped=176_400,
        value=2**18,
        refused=262_395,
        kin=_KIN_OF_LONG_ROWS,
    ),
    Limit(
        # Random forests as products of matrices: 7072 x 8 maps, 7168 x 16 does not.
        name="fully-connected-batch",
        text="A FULLY_CONNECTED of several rows is mapped with an input of at most {value} elements, what 64 KiB hold.",
        measure=_batched_input,
        mapped=56_576,
        value=2**16,
        refused=114_688,
    ),
    Limit(
        # 64 x 64 x 120 maps, 256 x 128 x 3 does not.
        name="averaged-elements",
        text="A MEAN is mapped over at most {value} elements, an image of 128 x 128.",
        measure=_averaged,
        mapped=4_096,
        value=2**14,
        refused=2**15,
    ),
    Limit(
        # 16,384 map; what is above was not seen.
        name="softmax-depth",
        text="A SOFTMAX is mapped over at most {value} elements; documented are 16,000.",
        measure=_softmax_depth,
        mapped=2**14,
        value=2**14,
        refused=float("inf"),
    ),
    Limit(
        # In DeepLab, 1 x 1 to 33 x 33 does not map; in MiDaS all that double do.
        name="enlarged-bilinear",
        text="A RESIZE_BILINEAR that makes an image more than {value} times as high or wide is not mapped.",
        measure=_enlarged,
        mapped=2,
        value=16,
        refused=33,
    ),
    Limit(
        # Nearest, a decoder for style transfer: to 128 x 128 x 128 maps, to 256 x 256 x 64 does not. Bilinear, 524,288
        # are known to map and 8,388,608 not to:
        # https://github.com/google-coral/edgetpu/issues/31
        name="resized-elements",
        text="A resized image of at most {value} elements, 3 MiB, is mapped.",
        measure=_resized,
        mapped=2**21,
        value=3 * 2**20,
        refused=2**22,
    ),
)
