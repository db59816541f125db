"""What a conversion did: for the artifact, and for people."""

import dataclasses
import json
from collections.abc import Mapping

from components.quantization.calibration_set import CalibrationSet
from components.quantization.conversion.calibration import MethodScore
from components.quantization.conversion.rewrites import AppliedRewrite


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConversionReport:
    """How a .tflite file was made.

    Attributes:
      scheme: Canonical JSON of the scheme.
      profile: Name of the target.
      io_dtypes: Types of inputs and outputs by name, as the file has them.
      calibrated: Names of the tensors whose ranges were calibrated because training gave them none; empty if training
        gave all. Of a float model ("*",): all were.
      examples: How many examples calibration took.
      calibration: The method that found those ranges.
      candidates: What else was tried, where the method was chosen by measurement, with what was measured.
      rewrites: What was rewritten for the target.
      seconds: By step: "trace", "freeze", "convert", "check".
      cached: Whether the file came from the cache; the steps after "freeze" took no time then.
      calibration_sets: Which examples ranges are from, here or in the training; empty if training gave all of them, or
        nobody said.
    """

    scheme: str
    profile: str
    io_dtypes: Mapping[str, str]
    calibrated: tuple[str, ...]
    examples: int
    calibration: str
    candidates: tuple[MethodScore, ...]
    rewrites: tuple[AppliedRewrite, ...]
    seconds: Mapping[str, float]
    cached: bool = False
    calibration_sets: tuple[CalibrationSet, ...] = ()

    def to_json(self) -> str:
        """Returns all of it, indented, with sorted keys."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """A .tflite file and how it was made."""

    tflite: bytes
    report: ConversionReport
