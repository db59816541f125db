"""Whether integer models can be run at all, found in processes of their own before one is run in this one."""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.evaluation.smoke_process import Limits, ModelRun, run
from components.quantization.contract import TFLITE_FILE
from components.quantization.conversion import flatbuffer

# Not budgets: what no model takes that can be evaluated.
_LIMITS = Limits(seconds=300.0, memory_bytes=2**35)

Shapes = Mapping[str, tuple[int | None, ...] | None]
"""Shapes by name; None for a size, or a rank, that is not known."""


def probe(tflites: Mapping[str, bytes]) -> dict[str, ModelRun]:
    """Loads and runs models as an evaluation does, on features that are made up.

    Args:
      tflites: The files by name.

    Returns:
      What came of it, with inputs and outputs, by name.
    """
    return dict(zip(tflites, _runs(tuple(tflites.values())) if tflites else (), strict=True))


def unreadable(tflite: bytes) -> str:
    """Returns why a file is no TFLite model; "" if it is one."""
    try:
        flatbuffer.read_subgraphs(tflite)
    except ValueError as error:
        return str(error)
    return ""


def strays(found: ModelRun, features: Shapes, outputs: Shapes) -> list[str]:
    """Returns how inputs and outputs of a model are not those of its float parent, one sentence each.

    Args:
      found: What came of the model's probe.
      features: Shapes of what the parent's transform gives, by name.
      outputs: Shapes of the parent's outputs.

    >>> strays(ModelRun(inputs={"x": [1, 4]}, outputs={"y": [1, 3]}), {"x": (None, 4)}, {"y": (None, 2)})
    ["output 'y' is of shape [3], not [2]"]
    """
    wrong = [f"input {name!r} is no feature" for name in found.inputs if name not in features]
    wrong += [f"output {name!r} is none of the parent's" for name in found.outputs if name not in outputs]
    wrong += [f"output {name!r} of the parent is missing" for name in outputs if name not in found.outputs]
    for kind, ours, theirs in (("input", found.inputs, features), ("output", found.outputs, outputs)):
        for name in ours.keys() & theirs.keys():
            own, expected = list(ours[name])[1:], theirs[name]
            if expected is not None and not _fits(own, expected[1:]):
                wrong.append(f"{kind} {name!r} is of shape {own}, not {list(expected[1:])}")
    return sorted(wrong)


def _fits(ours: Sequence[int], theirs: Sequence[int | None]) -> bool:
    return len(ours) == len(theirs) and all(size in (None, own) for own, size in zip(ours, theirs, strict=True))


@functools.lru_cache(maxsize=2)
def _runs(tflites: tuple[bytes, ...]) -> tuple[ModelRun, ...]:
    """Kept for the evaluations that follow in one process, as those of the same model with other gates."""
    with tempfile.TemporaryDirectory(prefix="tfx-qat-") as place:
        directories = [Path(place) / str(number) for number in range(len(tflites))]
        for directory, tflite in zip(directories, tflites, strict=True):
            directory.mkdir()
            (directory / TFLITE_FILE).write_bytes(tflite)
        return tuple(run(directories, _LIMITS, "probe"))
