"""Options of a Beam pipeline that are parsed once."""

from typing import Any, TypeVar

from apache_beam.options.pipeline_options import PipelineOptions

_View = TypeVar("_View", bound=PipelineOptions)


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
