"""Beam's own runner: in the component's process, or in worker processes on its machine."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from pipelines.beam_runners import BeamRunner

_MODES = ("in_memory", "multi_threading", "multi_processing")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Direct(BeamRunner):
    """Beam's own runner.

    Attributes:
      mode: "in_memory", in this process; "multi_processing", in processes of their own, each of which imports
        TensorFlow and loads the models anew; "multi_threading".
      workers: How many of them.
    """

    mode: str = "in_memory"
    workers: int = 1

    OWN_ARGS: ClassVar[frozenset[str]] = frozenset({"direct_running_mode", "direct_num_workers", "sdk_container_image"})

    def problems(self) -> list[str]:
        """Returns what is wrong with the fields."""
        wrong = []
        if self.mode not in _MODES:
            wrong.append(f"mode={self.mode!r} (one of {', '.join(_MODES)})")
        if self.workers < 1:
            wrong.append(f"workers={self.workers} (at least 1)")
        if self.mode == "in_memory" and self.workers > 1:
            wrong.append(f"workers={self.workers} with mode 'in_memory', which has one (take mode 'multi_processing')")
        return wrong

    def problems_in(self, uris: Mapping[str, str], image: str) -> list[str]:
        """Returns nothing: it sees what its machine sees, and needs no image."""
        del uris, image
        return []

    def own_arguments(self, image: str) -> list[str]:
        """Returns the arguments that the fields stand for."""
        del image
        # FnApiRunner by name: the default runner first tries to download another one. An image, though none is used:
        # without one TFX packs itself into a source distribution for each component.
        return [
            "--sdk_container_image=none",
            "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",
            f"--direct_running_mode={self.mode}",
            *([f"--direct_num_workers={self.workers}"] if self.mode != "in_memory" else []),
        ]


RUNNER = Direct
