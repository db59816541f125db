"""The data components on spans, as a pipeline has them, run by LocalDagRunner."""

import dataclasses
import json
from pathlib import Path

import pytest
import tensorflow as tf
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import Pipeline
from tfx.types import artifact_utils

from components import example_files
from components.retraining.spans import BrokenExamplesError, SpanSource
from pipelines.config import PipelineConfig
from pipelines.configs import load_config
from pipelines.inputs import prepare_examples
from pipelines.metadata import MetadataStore
from pipelines.pipeline import data_components
from pipelines.retention import Retention
from pipelines.runners.kubeflow import compile_job

_SCHEMA = """
feature { name: "image" type: FLOAT presence { min_fraction: 1.0 } shape { dim { size: 64 } }
          float_domain { min: 0.0 max: 16.0 } }
feature { name: "label" type: INT presence { min_fraction: 1.0 } shape { dim { size: 1 } }
          int_domain { min: 0 max: 9 } }
"""


def _write_span(base: Path, span: int, count: int, brightest: float = 16.0) -> None:
    directory = base / f"span-{span:02d}"
    directory.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(directory / "part.tfrecord")) as writer:
        for index in range(count):
            example = tf.train.Example()
            example.features.feature["image"].float_list.value.extend([brightest, float(index)] + [0.0] * 62)
            example.features.feature["label"].int64_list.value.append(span)
            writer.write(example.SerializeToString())
    (directory / "_SUCCESS").touch()


def _config(root: Path, window: int = 1) -> PipelineConfig:
    source = SpanSource(pattern=f"{root}/data/span-{{SPAN:2}}/*.tfrecord", window=window)
    return dataclasses.replace(load_config("digits"), root=str(root), spans=source)


def _run(config: PipelineConfig, count: int) -> None:
    LocalDagRunner().run(
        Pipeline(
            pipeline_name=config.name,
            pipeline_root=config.pipeline_root,
            components=data_components(config)[:count],
            metadata_connection_config=metadata.sqlite_metadata_connection_config(config.metadata_url),
            beam_pipeline_args=list(config.beam_pipeline_args),
            enable_cache=True,
        )
    )


def _examples(config: PipelineConfig) -> tuple[list[int], int, bool]:
    """The label, which is the span, of each example; the span that TFX notes; and whether it is from the cache."""
    (execution,) = MetadataStore(config.metadata_url).last_run(config.name)
    (artifact,) = execution.outputs["examples"]
    files = tf.io.gfile.glob(f"{artifact.uri}/Split-*/*")
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator()
    labels = [tf.train.Example.FromString(one).features.feature["label"].int64_list.value[0] for one in records]
    return sorted(labels), int(artifact.properties["span"]), execution.cached


def _spans_and_fingerprints(config: PipelineConfig) -> list[tuple[list[int], list[str]]]:
    """What the Examples of the last run say of the spans that they are of."""
    (execution,) = MetadataStore(config.metadata_url).last_run(config.name)
    noted = [artifact.properties for artifact in execution.outputs["examples"]]
    return [(json.loads(str(one["spans"])), json.loads(str(one["span_fingerprints"]))) for one in noted]


def _newest_spans(config: PipelineConfig) -> list[int]:
    """The newest span of all Examples, as a component that is given them reads it."""
    client = MetadataStore(config.metadata_url).client
    kind = client.get_artifact_type("Examples")
    examples = sorted(client.get_artifacts_by_type("Examples"), key=lambda one: one.id)
    return [example_files.newest_span(artifact_utils.deserialize_artifact(kind, one)) for one in examples]


@pytest.mark.slow
def test_example_gen_reads_the_window_and_is_cached_by_its_content(tmp_path: Path) -> None:
    for span, count in ((1, 2), (2, 3), (3, 4), (4, 5)):
        _write_span(tmp_path / "data", span, count)
    config = _config(tmp_path, window=2)
    assert config.spans
    selected = dataclasses.replace(config, spans=config.spans.ending_at(3))
    assert prepare_examples(selected) == 3 + 4
    for cached in (False, True):
        _run(selected, 1)
        assert _examples(selected) == ([2] * 3 + [3] * 4, 3, cached)
    _run(dataclasses.replace(config, spans=config.spans.ending_at(4, left_out=[3])), 1)
    assert _examples(config) == ([2] * 3 + [4] * 5, 4, False)
    ((spans, fingerprints),) = _spans_and_fingerprints(config)
    assert spans == [2, 4]
    assert _newest_spans(config) == [3, 4]
    sizes = [(tmp_path / "data" / f"span-{span:02d}" / "part.tfrecord").stat().st_size for span in spans]
    assert [one.split(",")[1:3] for one in fingerprints] == [["num_files:1", f"total_bytes:{size}"] for size in sizes]
    for file in (tmp_path / "data" / "span-02").iterdir():
        file.unlink()
    (tmp_path / "data" / "span-02").rmdir()
    _write_span(tmp_path / "data", 2, 1)
    _run(selected, 1)  # the same numbers, another content of the earlier span
    assert _examples(selected) == ([2] + [3] * 4, 3, False)


@pytest.mark.slow
def test_example_gen_finds_the_window_itself_when_nobody_chose_spans_as_on_a_service(tmp_path: Path) -> None:
    for span in (1, 2, 3, 4, 5):
        _write_span(tmp_path / "data", span, span)
    (tmp_path / "data" / "span-03" / "_SUCCESS").unlink()
    config = _config(tmp_path, window=3)
    assert config.spans
    assert config.spans.selected == ()
    _run(config, 1)
    assert _examples(config) == ([2] * 2 + [4] * 4 + [5] * 5, 5, False)
    ((spans, fingerprints),) = _spans_and_fingerprints(config)
    assert spans == [2, 4, 5]
    assert [one.split(",")[1] for one in fingerprints] == ["num_files:1"] * 3
    _write_span(tmp_path / "data", 6, 1)
    (tmp_path / "data" / "span-06" / "_SUCCESS").unlink()
    with pytest.raises(BrokenExamplesError, match="span 6 is the newest whose files match and is not complete"):
        _run(config, 1)
    assert _newest_spans(config) == [5]


@pytest.mark.slow
def test_example_gen_reads_again_when_its_cached_output_was_collected(tmp_path: Path) -> None:
    for span in (1, 2):
        _write_span(tmp_path / "data", span, 3)
    config = _config(tmp_path)
    assert config.spans
    first, second = (dataclasses.replace(config, spans=config.spans.ending_at(span)) for span in (1, 2))
    _run(first, 1)
    _run(second, 1)
    retention = Retention(first)
    retention.remove(retention.garbage(1))
    _run(second, 1)
    assert _examples(second) == ([2] * 3, 2, True)
    _run(first, 1)
    assert _examples(first) == ([1] * 3, 1, False)


@pytest.mark.slow
def test_run_stops_before_training_when_a_span_breaks_the_schema(tmp_path: Path) -> None:
    _write_span(tmp_path / "data", 1, 20)
    _write_span(tmp_path / "data", 2, 10, brightest=160.0)
    (tmp_path / "schema.pbtxt").write_text(_SCHEMA)
    config = dataclasses.replace(_config(tmp_path), schema_file=str(tmp_path / "schema.pbtxt"), eval_buckets=2)
    assert config.spans
    with pytest.raises(BrokenExamplesError, match=r"break the schema: image: .*160"):
        _run(dataclasses.replace(config, spans=config.spans.ending_at(2)), 5)
    components = {record.component for record in MetadataStore(config.metadata_url).last_run(config.name)}
    assert components == {"ImportExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator"}  # no Transform
    # A corrected schema is another one, though its file has the same name.
    (tmp_path / "schema.pbtxt").write_text(_SCHEMA.replace("max: 16.0", "max: 160.0"))
    _run(dataclasses.replace(config, spans=config.spans.ending_at(2)), 5)
    assert "Transform" in {record.component for record in MetadataStore(config.metadata_url).last_run(config.name)}


@pytest.mark.parametrize("content", [b"", b"no TFRecord at all, but a text"])
def test_prepare_examples_raises_broken_examples_when_a_span_is_empty_or_corrupt(
    tmp_path: Path, content: bytes
) -> None:
    _write_span(tmp_path / "data", 1, 1)
    (tmp_path / "data" / "span-01" / "part.tfrecord").write_bytes(content)
    with pytest.raises(BrokenExamplesError, match="empty|corrupt after record 0"):
        prepare_examples(_config(tmp_path))


def test_prepare_examples_says_which_span_of_the_window_is_broken(tmp_path: Path) -> None:
    _write_span(tmp_path / "data", 1, 0)
    _write_span(tmp_path / "data", 2, 1)
    with pytest.raises(BrokenExamplesError, match="span 1: its TFRecord files are empty") as caught:
        prepare_examples(_config(tmp_path, window=2))
    assert caught.value.span == 1


def test_kubeflow_refuses_spans_when_it_compiles(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Kubeflow finds no spans"):
        compile_job(_config(tmp_path))


def test_config_raises_when_it_has_both_examples_dir_and_spans(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="examples_dir 'data' beside spans"):
        dataclasses.replace(_config(tmp_path), examples_dir="data")
