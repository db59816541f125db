"""What the client computes itself: steps before the integers, and behind them where the model was cut."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClientStep:
    """One step that the client does itself: of preprocessing, before the preparation starts, or of postprocessing.

    Attributes:
      op: Type of the TensorFlow op, for example "DecodeJpeg"; of postprocessing the layer's class, or the function.
      output: What the result is called by later steps; of postprocessing the name of the layer.
      description: What it does, with its operands, parameters, dtype and shape.
      constants: The values, row by row, of constants that the description only names; what JSON has no number for as
        text, such as "inf".
    """

    op: str
    output: str
    description: str
    constants: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Postprocessing:
    """What the client computes, in floats, of the dequantized outputs of a model that was cut.

    Attributes:
      reference: Directory of the SavedModel beside the contract that computes it; its signature "serving_default" takes
        the outputs by name, with "_" for what is no letter or digit.
      sources: Names of the outputs that it takes.
      steps: What it does, in order. They say what to implement; weights and exact arguments are in the reference.
      results: By name of each result, as the reference returns it, the output of the step that it is; a source that is
        returned as it is has its own name.
    """

    reference: str
    sources: tuple[str, ...]
    steps: tuple[ClientStep, ...]
    results: Mapping[str, str]
