"""Finds the span of a window that a run failed of, by looking at each alone: a run, which mixes them, cannot tell.

Without that the newest would be blamed for an older one, and so would each that comes after it, for ever.
"""

import logging
import math
import tempfile
from pathlib import Path

import tensorflow_data_validation as tfdv
from apache_beam.options.pipeline_options import PipelineOptions

from components.anomaly_gate import texts_of
from components.retraining.spans import BrokenExamplesError, SpanSource
from pipelines.beam_runners.direct import Direct
from pipelines.config import PipelineConfig
from pipelines.inputs import prepare_examples

# Components that read the raw examples, of which only the first ones are checked before.
_READERS = ("ImportExampleGen", "StatisticsGen", "Transform")
_VALIDATOR = "ExampleValidator"

_LOGGER = logging.getLogger(__name__)


def broken_examples(config: PipelineConfig, component: str, error: Exception) -> BrokenExamplesError | None:
    """Returns what is wrong with the examples of a run that failed, with the span that it is of if one can be named.

    Args:
      config: The config, with the window of the run.
      component: The component that failed, "" if none was begun.
      error: What it raised.

    Returns:
      The error itself where it says so and no span can be named; None if nothing is known to be wrong with them.
    """
    said = error if isinstance(error, BrokenExamplesError) else None
    if config.spans is None or (said and said.span is not None):
        return said
    try:
        if said and component == _VALIDATOR and len(config.spans.selected) == 1:
            said.span = config.spans.selected[0]
        elif said and component == _VALIDATOR:
            return _anomalous(config.spans, config.schema_file) or said
        if not said and component in _READERS:
            prepare_examples(config, checked_bytes=math.inf)
    except BrokenExamplesError as found:
        return found
    except Exception:  # must not hide what the run failed of
        _LOGGER.exception("the spans of the window could not be looked at one by one")
    return said


def _anomalous(source: SpanSource, schema_file: str) -> BrokenExamplesError | None:
    """Returns what the newest span whose own examples break the schema breaks of it.

    Spans are looked at on this machine, whatever Beam's runner: a cluster may not see its temporary directory.
    """
    schema = tfdv.load_schema_text(schema_file)
    for span in reversed(source.selected):
        with tempfile.TemporaryDirectory() as scratch:
            statistics = tfdv.generate_statistics_from_tfrecord(
                source.files_of(span),
                output_path=str(Path(scratch) / "statistics"),
                pipeline_options=PipelineOptions(list(Direct().arguments())),
            )
        if texts := texts_of(tfdv.validate_statistics(statistics, schema)):
            return BrokenExamplesError(f"span {span}: its examples break the schema: {'; '.join(texts)}", span)
    return None
