"""How the outputs of a model use their integers, each head by itself, and whether one says anything at all."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from components.quantization.agreement import agreeing
from components.quantization.attribution.codes import CodeCounts, Noise
from components.quantization.conversion.flatbuffer import Tensor
from components.quantization.kernels import real_values

# Below it an output wastes its integers: its range is that of something else, often of another head.
FEW_CODES = 0.1
# So many values for each integer show that those that never occur are not used, whatever lies at both ends.
_VALUES_PER_CODE = 10
# Of the values beyond what the integers can say, more means that an output is cut off.
_CLIPPED = 0.5
_MANY = 2


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OutputUse:
    """One output of the integer model.

    Attributes:
      name: Its name in the Keras model.
      sqnr_db: Ratio of the float model's signal to the difference from it, in dB.
      max_lsb: The largest difference from the float model, in steps of the integers.
      agreement: Share, 0..1, of predictions with the float model's class; None if there is one value.
      utilisation: Share, 0..1, of the integers that occur; NaN for floats, and where there are fewer values.
      span: Share, 0..1, of the integers from the smallest to the largest that occurs; NaN for floats.
      saturation: Share, 0..1, of the values at either end of the integers.
      clipped: Share, 0..1, of the values at an end whose float value lies beyond it.
      findings: What is wrong with it, in sentences; empty if nothing was found.
    """

    name: str
    sqnr_db: float
    max_lsb: float
    agreement: float | None
    utilisation: float
    span: float
    saturation: float
    clipped: float
    findings: tuple[str, ...]


def output_use(name: str, tensor: Tensor, codes: npt.NDArray[Any], floats: npt.NDArray[Any]) -> OutputUse:
    """Measures one output.

    Args:
      name: Its name.
      tensor: What it is in the .tflite.
      codes: Its integers, of shape (examples, ...).
      floats: The float model's values, of the same shape.
    """
    counts, noise = CodeCounts(tensor), Noise()
    counts.add(codes)
    values = real_values(codes, tensor)
    noise.add(floats, values)
    agreement = None
    if floats.ndim > 1 and floats.shape[-1] > 1:
        agreement = agreeing(values, floats)
    clipped = _clipped(tensor, codes, floats) if len(counts.counts) else 0.0
    return OutputUse(
        name=name,
        sqnr_db=noise.sqnr_db,
        max_lsb=noise.largest / (tensor.scale[0] if tensor.scale else 1.0),
        agreement=agreement,
        utilisation=counts.utilisation,
        span=counts.span,
        saturation=counts.saturation,
        clipped=clipped,
        findings=(*_few_codes(counts), *_degenerate(codes, floats, clipped)),
    )


def _clipped(tensor: Tensor, codes: npt.NDArray[Any], floats: npt.NDArray[Any]) -> float:
    """The share of values at an end that the float value lies beyond, by more than rounding."""
    limits = np.iinfo(codes.dtype)
    steps = floats.astype(np.float64) / tensor.scale[0] + tensor.zero_point[0]
    beyond = ((codes == limits.min) & (steps < limits.min - 0.5)) | ((codes == limits.max) & (steps > limits.max + 0.5))
    return float(np.mean(beyond))


def _few_codes(counts: CodeCounts) -> tuple[str, ...]:
    sampled = counts.total >= _VALUES_PER_CODE * len(counts.counts)
    used = min(counts.span, counts.utilisation) if sampled else counts.span
    if not used < FEW_CODES:
        return ()
    return (
        f"uses {used:.1%} of its integers, expected at least {FEW_CODES:.0%}; give it a range of its own, for example"
        " by scaling its target to that of the other outputs, or check that its range was trained on such values",
    )


def _degenerate(codes: npt.NDArray[Any], floats: npt.NDArray[Any], clipped: float) -> tuple[str, ...]:
    found = []
    if len(codes) >= _MANY and (codes == codes[:1]).all() and not np.allclose(floats, floats[:1]):
        found.append("degenerate output: is the same for every example, which the float model's is not")
    elif codes.ndim > 1 and codes.shape[-1] > 1 and codes.size > codes.shape[-1]:
        classes = codes.argmax(-1)
        if np.unique(classes).size == 1 and np.unique(floats.argmax(-1)).size > 1:
            found.append(f"degenerate output: always predicts class {classes.flat[0]}, which the float model does not")
    if clipped > _CLIPPED:
        found.append(f"degenerate output: saturated, {clipped:.1%} of its values lie beyond the range of its integers")
    return tuple(found)
