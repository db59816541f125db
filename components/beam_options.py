"""What Beam's options say: parsed once, and how many threads that leaves to a worker."""

import os
from collections.abc import Sequence
from typing import Any, TypeVar

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

_View = TypeVar("_View", bound=PipelineOptions)

# Runners whose workers are this process, or are started by it as `direct_running_mode` says.
_DIRECT = frozenset({"directrunner", "bundlebaseddirectrunner", "switchingdirectrunner", "fnapirunner"})


def threads_of_worker(arguments: Sequence[str]) -> int:
    """Returns how many threads one of Beam's workers may use, so that all of them together use each core once.

    A direct runner's workers share the cores of this process. How many of another runner's share a machine is not
    known here: services start one for each core.

    Args:
      arguments: Beam's, of a pipeline.

    >>> threads_of_worker(["--runner=DataflowRunner"])
    1
    """
    options = PipelineOptions(list(arguments))
    runner = (options.view_as(StandardOptions).runner or "DirectRunner").rpartition(".")[2]
    if runner.lower() not in _DIRECT:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    direct = options.view_as(DirectOptions)
    if direct.direct_running_mode == "in_memory":  # one worker, whatever else is asked for
        return cores
    return max(1, cores // (direct.direct_num_workers or cores))


class ParsedOptions(PipelineOptions):  # type: ignore[misc]
    """Options that make each view once.

    Beam asks for a view of its options several times for each step, and parses all arguments anew each time: of an
    evaluation's few hundred steps that is a third of the time before the first example is read.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes what `PipelineOptions` takes."""
        object.__setattr__(self, "_views", {})  # others than options are refused
        super().__init__(*args, **kwargs)

    def view_as(self, cls: type[_View]) -> _View:
        """Returns the view, which shares its values with all others."""
        views: dict[type[PipelineOptions], Any] = object.__getattribute__(self, "_views")
        if cls not in views:
            views[cls] = super().view_as(cls)
        view: _View = views[cls]
        return view
