"""Several files of one compilation: models that share the Edge TPU's memory, and segments for several Edge TPUs."""

import dataclasses
import itertools
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.targets import CompiledModel

GROUP_FILE = "group.json"
"""Name of a group's manifest."""
_LOGGER = logging.getLogger(__name__)

_TRIED_AT_MOST = 4  # models of which every order is compiled: 24 orders


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GroupMember:
    """A model that shares the Edge TPU with others.

    Attributes:
      name: Its name in the group; letters, digits, "_" and "-".
      tflite: An integer-only TFLite flatbuffer.
      calls_per_second: How often it runs, as far as that is known; what counts is the ratio to the others.
    """

    name: str
    tflite: bytes
    calls_per_second: float = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError for a name that is no file name, or a rate that is none."""
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", self.name):
            raise ValueError(f"name of a model in a group: got {self.name!r}, expected letters, digits, _ and -")
        if not 0 < self.calls_per_second < float("inf"):
            raise ValueError(f"calls_per_second of {self.name}: got {self.calls_per_second}, expected more than 0")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CompiledGroup:
    """Files that were compiled together and belong together: with one of another compilation, memory is not shared.

    Attributes:
      models: The compiled files by name, in the order in which they got the Edge TPU's memory; of segments, in the
        order in which they run.
      traffic_bytes_per_second: Parameters that are sent to the Edge TPU; None where the log does not say it.
      orders: Every order that was compiled, with its traffic.
    """

    models: dict[str, CompiledModel]
    traffic_bytes_per_second: float | None = None
    orders: tuple[tuple[tuple[str, ...], float | None], ...] = ()

    def manifest(self, files: Mapping[str, str]) -> str:
        """Returns what belongs together, as indented JSON.

        Args:
          files: How the files are called, by the name of the model.
        """
        members = [
            {
                "name": name,
                "file": files[name],
                "cached_bytes": model.report.memory.cached_bytes,
                "streamed_bytes": model.report.memory.streamed_bytes,
            }
            for name, model in self.models.items()
        ]
        tried = [{"order": list(order), "traffic_bytes_per_second": traffic} for order, traffic in self.orders]
        fields = {"members": members, "traffic_bytes_per_second": self.traffic_bytes_per_second, "orders": tried}
        return json.dumps(fields, indent=2) + "\n"

    def write(self, directory: Path) -> None:
        """Writes the files, each with its report, and its manifest, into a folder."""
        directory.mkdir(parents=True, exist_ok=True)
        files = {name: f"{name}_edgetpu.tflite" for name in self.models}
        for name, model in self.models.items():
            (directory / files[name]).write_bytes(model.tflite)
            (directory / f"{name}_report.json").write_text(model.report.to_json())
        (directory / GROUP_FILE).write_text(self.manifest(files))


def traffic(models: dict[str, CompiledModel], members: Sequence[GroupMember]) -> float | None:
    """Returns the bytes of parameters that are sent to the Edge TPU each second; None if the log does not say it."""
    total = 0.0
    for member in members:
        streamed = models[member.name].report.memory.streamed_bytes
        if streamed is None:
            return None
        total += streamed * member.calls_per_second
    return total


def require_members(members: Sequence[GroupMember]) -> None:
    """Raises ValueError if there are fewer than two models, or two of one name."""
    names = [member.name for member in members]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(
            f"models of a group: got {', '.join(names) or 'none'}, expected two or more, of different names"
        )


def orders(members: Sequence[GroupMember]) -> list[tuple[GroupMember, ...]]:
    """Returns the orders to compile, the most promising first.

    A byte of memory spares as many bytes a second as its model runs, so the busiest model comes first, and among equals
    the smallest, of which most fits. The compiler gives memory by whole layers, which only compiling shows: of few
    models every order is compiled, of more only the first.

    Raises:
      ValueError: As `require_members`.
    """
    require_members(members)
    best = sorted(members, key=lambda member: (-member.calls_per_second, len(member.tflite)))
    if len(best) > _TRIED_AT_MOST:
        return [tuple(best)]
    return list(itertools.permutations(best))
