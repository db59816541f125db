"""Whether the kernels of this machine agree on a .tflite: they round differently, and only one of them is shipped."""

import dataclasses
import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.quantization.conversion.flatbuffer import Tensor
from components.quantization.conversion.representative_dataset import Batch, named_arrays
from components.quantization.kernels import KERNELS, KernelInterpreter, Kernels

_LOGGER = logging.getLogger(__name__)
_LOGGED_EVERY = 1000

Codes = dict[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OutputAgreement:
    """How far two sets of kernels agree on one output.

    Attributes:
      first: The one set.
      second: The other.
      output: Name of the output in the signature.
      examples: How many examples were compared.
      equal: Share, 0..1, of its values that are equal bit for bit.
      equal_examples: Share, 0..1, of the examples all of whose values are.
      max_lsb: The largest difference in steps of the integers; of floats, in their own unit.
      predictions: How many predictions there are: examples, or positions of a map; 0 if the output has one value.
      top1_differs: Share, 0..1, of the predictions whose largest value is at another place, the first of equal ones.
      top1_differs_beyond_ties: Share for which no place is the largest, or equal to it, for both.
      ties: Share for which one of them has equal values at the top, so that another place would be as right.
    """

    first: Kernels
    second: Kernels
    output: str
    examples: int
    equal: float
    equal_examples: float
    max_lsb: float
    predictions: int
    top1_differs: float
    top1_differs_beyond_ties: float
    ties: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class KernelAgreement:
    """What a comparison of kernels found.

    Attributes:
      kernels: Each set of kernels in words, with what XNNPACK runs of it.
      pairs: One entry for each pair of sets and each output.
      examples: How many examples were run; some kernels may have run fewer.
    """

    kernels: dict[Kernels, str]
    pairs: tuple[OutputAgreement, ...]
    examples: int

    def __str__(self) -> str:
        """The kernels, then a table of the pairs."""
        lines = [f"{name}: {words}" for name, words in self.kernels.items()]
        width = max((len(pair.output) for pair in self.pairs), default=0)
        lines.append(
            f"{'kernels'.ljust(23)}  {'output'.ljust(width)}  {'examples':>8}  {'equal':>7}  {'wholly':>7}"
            f"  {'max LSB':>7}  {'top-1 differs':>13}  {'beyond ties':>11}  {'ties':>6}"
        )
        for pair in self.pairs:
            both = f"{pair.first} - {pair.second}"
            shares = (pair.top1_differs, pair.top1_differs_beyond_ties, pair.ties)
            top = [f"{share:.2%}" if pair.predictions else "-" for share in shares]
            lines.append(
                f"{both.ljust(23)}  {pair.output.ljust(width)}  {pair.examples:8}  {pair.equal:7.2%}"
                f"  {pair.equal_examples:7.2%}  {pair.max_lsb:7.4g}  {top[0]:>13}  {top[1]:>11}  {top[2]:>6}"
            )
        return "\n".join(lines)


def kernel_agreement(tflite: bytes, examples: Iterable[Batch], kernels: Sequence[Kernels] = KERNELS) -> KernelAgreement:
    """Runs a model with several sets of kernels and compares the integers of its outputs.

    Args:
      tflite: Any .tflite that this machine can run.
      examples: Batches of inputs in real values, such as those that the float model takes: each an array of shape
        (batch, ...) or, for several inputs, a dict from input name to such an array.
      kernels: At least two of the sets of `components.quantization.kernels`.

    Raises:
      ValueError: If there is no example, one does not fit the model, or kernels are unknown or fewer than two.
    """
    if len(set(kernels)) < 2:
        raise ValueError(f"kernels: got {list(kernels)}, expected at least two of {', '.join(KERNELS)}")
    interpreters = {name: KernelInterpreter(tflite, name) for name in kernels}
    runs = run_kernels(interpreters, examples)
    return compared(interpreters, runs)


def run_kernels(interpreters: Mapping[Kernels, KernelInterpreter], examples: Iterable[Batch]) -> dict[Kernels, Codes]:
    """Returns the integers of every output, by kernels and name, each of shape (examples, ...).

    Raises:
      ValueError: If there is no example, or one does not fit the model.
    """
    some = next(iter(interpreters.values()))
    signature = {name: tf.TensorSpec([1, *t.shape[1:]], input_dtype(t)) for name, t in some.inputs.items()}
    rows: dict[Kernels, dict[str, list[npt.NDArray[Any]]]]
    rows = {kernels: {name: [] for name in some.outputs} for kernels in interpreters}
    count = 0
    for batch in examples:
        arrays = named_arrays(batch, signature, "examples")
        for row in range(len(next(iter(arrays.values())))):
            features = {name: array[row : row + 1] for name, array in arrays.items()}
            for kernels, interpreter in interpreters.items():
                interpreter.run(features)
                for name, tensor in interpreter.outputs.items():
                    rows[kernels][name].append(interpreter.codes(tensor))
            count += 1
            if not count % _LOGGED_EVERY:
                _LOGGER.info("%d examples run with %s kernels", count, ", ".join(interpreters))
    if not count:
        raise ValueError("examples: got none, expected at least one; 100 to 1000 are usual")
    return {kernels: {name: np.concatenate(all_) for name, all_ in named.items()} for kernels, named in rows.items()}


def input_dtype(tensor: Tensor) -> str:
    """The type of the real values of an input: floats, but for indices, which are not quantized."""
    return "float32" if tensor.scale else tensor.dtype.lower()


def compared(interpreters: Mapping[Kernels, KernelInterpreter], runs: Mapping[Kernels, Codes]) -> KernelAgreement:
    """Compares what `run_kernels` returned, pair by pair; of a single set of kernels there is no pair.

    Where one ran fewer examples, these count, and are the first ones of the other.
    """
    pairs = tuple(
        _agreement(first, second, output, runs[first][output], runs[second][output])
        for first, second in itertools.combinations(runs, 2)
        for output in runs[first]
    )
    descriptions = {kernels: interpreter.description for kernels, interpreter in interpreters.items()}
    examples = max(len(codes) for outputs in runs.values() for codes in outputs.values())
    return KernelAgreement(kernels=descriptions, pairs=pairs, examples=examples)


def _agreement(
    first: Kernels, second: Kernels, output: str, one: npt.NDArray[Any], other: npt.NDArray[Any]
) -> OutputAgreement:
    examples = min(len(one), len(other))
    one, other = one[:examples], other[:examples]
    predictions, differs, beyond, ties = 0, 0.0, 0.0, 0.0
    if one.ndim > 1 and one.shape[-1] > 1:
        tops = [codes == codes.max(axis=-1, keepdims=True) for codes in (one, other)]
        predictions = int(np.prod(one.shape[:-1]))
        differs = float(np.mean(one.argmax(-1) != other.argmax(-1)))
        beyond = float(np.mean(~(tops[0] & tops[1]).any(axis=-1)))
        ties = float(np.mean((tops[0].sum(-1) > 1) | (tops[1].sum(-1) > 1)))
    return OutputAgreement(
        first=first,
        second=second,
        output=output,
        examples=examples,
        equal=float(np.mean(one == other)),
        equal_examples=float(np.mean((one == other).reshape(len(one), -1).all(axis=1))),
        max_lsb=float(np.max(np.abs(one.astype(np.float64) - other), initial=0.0)),
        predictions=predictions,
        top1_differs=differs,
        top1_differs_beyond_ties=beyond,
        ties=ties,
    )
