"""ExampleGen for examples in spans: one span as TFX does it, or a window of several.

TFX's file-based ExampleGen takes one span a run. A window is made by an executor that reads the files of the earlier
spans, too; they are named in `custom_config`, with their sizes and times, so that TFX's cache notices other ones. It
notes all spans and their fingerprints on the Examples, where TFX notes those of the newest alone.

On a service nobody chooses spans before the run: TFX's driver takes the newest whose files match, and the executor
those before it. The cache's key has the newest span's files alone: a complete span does not change, and one that is
completed late is taken when the next one comes.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import apache_beam as beam
import tensorflow as tf
from google.protobuf import any_pb2, struct_pb2
from tfx import types
from tfx.components.example_gen import utils
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.components.example_gen.import_example_gen import executor as import_executor
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2, range_config_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, proto_utils

from components.retraining.spans import SPAN_FINGERPRINTS, SPANS, SUCCESS_FILE, BrokenExamplesError, SpanSource

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Earlier:
    """The spans of a window before the newest, the oldest first, as `custom_config` has them.

    Attributes:
      spans: Their numbers.
      globs: Of their files, below the base.
      fingerprints: Of their files, as TFX makes them.
    """

    spans: tuple[int, ...]
    globs: tuple[str, ...]
    fingerprints: tuple[str, ...]

    def packed(self) -> example_gen_pb2.CustomConfig:
        return _packed({field.name: list(getattr(self, field.name)) for field in dataclasses.fields(self)})

    @classmethod
    def before(cls, source: SpanSource, spans: tuple[int, ...]) -> "_Earlier":
        return cls(
            spans=spans,
            globs=tuple(map(source.below_base_of, spans)),
            fingerprints=tuple(io_utils.generate_fingerprint(str(span), source.files_of(span)) for span in spans),
        )

    @classmethod
    def of(cls, exec_properties: dict[str, Any]) -> "_Earlier":
        config = _unpacked(exec_properties)
        return cls(
            spans=tuple(int(span) for span in config["spans"]),  # a Struct has no integers
            globs=tuple(map(str, config["globs"])),
            fingerprints=tuple(map(str, config["fingerprints"])),
        )


def _packed(values: Mapping[str, Any]) -> example_gen_pb2.CustomConfig:
    config = struct_pb2.Struct()
    config.update(values)
    packed = any_pb2.Any()
    packed.Pack(config)
    return example_gen_pb2.CustomConfig(custom_config=packed)


def _unpacked(exec_properties: dict[str, Any]) -> struct_pb2.Struct:
    custom, config = example_gen_pb2.CustomConfig(), struct_pb2.Struct()
    proto_utils.json_to_proto(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY], custom)
    custom.custom_config.Unpack(config)
    return config


class _ReadWindow(beam.PTransform):
    """From a pipeline to the tf.Examples of a window."""

    def __init__(self, exec_properties: dict[str, Any], split_pattern: str) -> None:
        super().__init__()
        base = exec_properties[standard_component_specs.INPUT_BASE_KEY]
        self._globs = [os.path.join(base, below) for below in (*_Earlier.of(exec_properties).globs, split_pattern)]

    def expand(self, pipeline: beam.Pipeline) -> Any:
        """Reads all files of all spans."""
        records = pipeline | beam.Create(self._globs, reshuffle=False) | beam.io.ReadAllFromTFRecord()
        return records | beam.Map(tf.train.Example.FromString)


class Executor(import_executor.Executor):
    """Reads the span that the driver found, and the earlier ones that `custom_config` names."""

    def GetInputSourceToExamplePTransform(self) -> type[beam.PTransform]:
        """Returns the transform, as yet without execution properties and pattern."""
        return _ReadWindow

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the examples, and notes which spans they are of."""
        super().Do(input_dict, output_dict, exec_properties)
        earlier = _Earlier.of(exec_properties)
        spans = [*earlier.spans, exec_properties[utils.SPAN_PROPERTY_NAME]]
        fingerprints = [*earlier.fingerprints, exec_properties[utils.FINGERPRINT_PROPERTY_NAME]]
        examples = artifact_utils.get_single_instance(output_dict[standard_component_specs.EXAMPLES_KEY])
        examples.set_string_custom_property(SPANS, json.dumps(spans))
        examples.set_string_custom_property(SPAN_FINGERPRINTS, json.dumps(fingerprints))


class ServiceExecutor(Executor):
    """Reads the span that the driver found, if it is complete, and the complete ones before it."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Finds the window, then does as on one machine; raises BrokenExamplesError for a span that is not complete."""
        source = _source(exec_properties)
        newest = int(exec_properties[utils.SPAN_PROPERTY_NAME])  # a service has no integers
        if not _is_complete(source, newest):
            raise BrokenExamplesError(
                f"span {newest} is the newest whose files match and is not complete; write {SUCCESS_FILE} beside its"
                " files when all are there, and run again",
                span=newest,
            )
        names = [name.rstrip("/") for name in fileio.listdir(source.base)]
        before = [span for span in source.numbers(names) if span < newest and _is_complete(source, span)]
        chosen = tuple(before[-(source.window - 1) :]) if source.window > 1 else ()
        for span in chosen:
            if not fileio.glob(source.files_of(span)):
                raise BrokenExamplesError(f"span {span}: no files {source.files_of(span)}; put tf.Examples there", span)
        earlier = _Earlier.before(source, chosen)
        _LOGGER.info("window of spans: %s", ", ".join(map(str, (*earlier.spans, newest))))
        found = {
            utils.SPAN_PROPERTY_NAME: newest,
            standard_component_specs.CUSTOM_CONFIG_KEY: proto_utils.proto_to_json(earlier.packed()),
        }
        super().Do(input_dict, output_dict, {**exec_properties, **found})


def _source(exec_properties: dict[str, Any]) -> SpanSource:
    config = _unpacked(exec_properties)
    return SpanSource(pattern=config["pattern"], window=int(config["window"]))


def _is_complete(source: SpanSource, span: int) -> bool:
    directory = source.below_base_of(span).partition("/")[0]
    return bool(fileio.exists(os.path.join(source.base, directory, SUCCESS_FILE)))


def span_example_gen(
    source: SpanSource, output_config: example_gen_pb2.Output, component_id: str
) -> FileBasedExampleGen:
    """Returns the ExampleGen of a source of spans.

    Args:
      source: The spans; without selected ones, as on a service, they are found when the component runs.
      output_config: The splits.
      component_id: Id of the component.
    """
    split = example_gen_pb2.Input.Split(name="single_split", pattern=source.below_base)
    options: dict[str, Any] = {}
    executor: type[import_executor.Executor] = import_executor.Executor
    if not source.selected:
        executor = ServiceExecutor
        options["custom_config"] = _packed({"pattern": source.pattern, "window": source.window})
    else:
        newest = source.selected[-1]
        options["range_config"] = range_config_pb2.RangeConfig(
            static_range=range_config_pb2.StaticRange(start_span_number=newest, end_span_number=newest)
        )
    if earlier := source.selected[:-1]:
        executor = Executor
        options["custom_config"] = _Earlier.before(source, earlier).packed()
    local = "://" not in source.base
    component = FileBasedExampleGen(
        input_base=os.path.abspath(source.base) if local else source.base,
        input_config=example_gen_pb2.Input(splits=[split]),
        output_config=output_config,
        custom_executor_spec=executor_spec.BeamExecutorSpec(executor),
        **options,
    )
    return component.with_id(component_id)
