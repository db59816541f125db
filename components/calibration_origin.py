"""Where the examples that calibrated a model are from, as artifacts know it."""

import dataclasses
from collections.abc import Sequence

from tfx import types
from tfx.types import artifact_utils

from components.example_files import span_of
from components.quantization.calibration_set import CalibrationSet


def with_origin(
    found: CalibrationSet, by: str, split: str, examples: Sequence[types.Artifact], raw: Sequence[types.Artifact] = ()
) -> CalibrationSet:
    """Returns a set with its maker and the artifact that it was chosen from.

    Args:
      found: The set.
      by: Class of the component that chose it.
      split: Name of the split.
      examples: The artifact that was read.
      raw: The raw examples that this was made of, which know their span; empty if they are not at hand.
    """
    artifact = artifact_utils.get_single_instance(list(examples))
    return dataclasses.replace(
        found,
        by=by,
        split=split,
        artifact=artifact.id,
        span=span_of(raw[0]) if raw else None,
        input_fingerprint=raw[0].get_string_custom_property("input_fingerprint") if raw else "",
    )
