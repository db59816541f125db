"""Files of an evaluation, against TFMA's own writers; options that are parsed once, against Beam's."""

from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import tensorflow_model_analysis as tfma
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2, validation_result_pb2

from components.beam_options import ParsedOptions, threads_of_worker
from components.evaluation_files import EvaluationFiles

_MODELS = {"integer": "here/integer", "float": "here/float"}
_RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def _config() -> config_pb2.EvalConfig:
    metric = config_pb2.MetricConfig(class_name="BatchedCount", module="components.batched_metrics")
    metric.config = '{"name": "count"}'
    metric.threshold.value_threshold.lower_bound.value = 0.5
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(name="integer", label_key="label"),
            config_pb2.ModelSpec(name="float", label_key="label", is_baseline=True),
        ],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=["kind"])],
        metrics_specs=[config_pb2.MetricsSpec(metrics=[metric], model_names=["integer", "float"])],
    )


def _metrics() -> list[tuple[Any, dict[Any, float]]]:
    keys = [metric_types.MetricKey(name="count", model_name=model) for model in _MODELS]
    cuts: list[Any] = [(), (("kind", "a"),), (("kind", "b"),)]
    return [(cut, {key: 10.0 * row + column for column, key in enumerate(keys)}) for row, cut in enumerate(cuts)]


def _validations(are_valid: bool) -> list[validation_result_pb2.ValidationResult]:
    found = []
    for valid, (cut, _) in zip((True, are_valid, True), _metrics(), strict=True):
        one = validation_result_pb2.ValidationResult(validation_ok=valid)
        details = one.validation_details.slicing_details.add(num_matching_slices=1)
        details.slicing_spec.feature_keys.extend(key for key, _ in cut)
        if not valid:
            of_slice = one.metric_validations_per_slice.add()
            of_slice.failures.add().message = "too low"
        found.append(one)
    return found


@pytest.mark.parametrize("are_valid", [True, False])
def test_files_read_by_tfma_say_the_same_as_those_of_its_own_writers(tmp_path: Path, are_valid: bool) -> None:
    config, paths = _config(), (tmp_path / "ours", tmp_path / "theirs")
    ours = EvaluationFiles(path=str(paths[0]), config=config, model_paths=_MODELS, confidence=0.95).transform()
    shared = [
        tfma.EvalSharedModel(model_name=name, model_path=path, model_type=constants.TF_GENERIC)
        for name, path in _MODELS.items()
    ]
    theirs = tfma.default_writers(str(paths[1]), eval_config=config, eval_shared_model=shared)
    with beam.Pipeline(options=ParsedOptions([_RUNNER])) as pipeline:
        evaluation = {
            constants.METRICS_KEY: pipeline | "Metrics" >> beam.Create(_metrics()),
            constants.VALIDATIONS_KEY: pipeline | "Validations" >> beam.Create(_validations(are_valid)),
        }
        _ = {**evaluation, "sums": pipeline | "Sums" >> beam.Create([])} | ours
        _ = evaluation | tfma.WriteResults(writers=theirs)
    for model in _MODELS:
        found, expected = (tfma.load_eval_result(str(path), model_name=model) for path in paths)
        assert sorted(found.slicing_metrics) == sorted(expected.slicing_metrics)
        assert len(found.slicing_metrics) == 3
        assert (found.config, found.model_location) == (expected.config, expected.model_location)
    found, expected = (tfma.load_validation_result(str(path)) for path in paths)
    assert found.validation_ok is expected.validation_ok is are_valid
    assert [len(one.metric_validations_per_slice) for one in (found, expected)] == [int(not are_valid)] * 2
    assert {str(one) for one in found.validation_details.slicing_details} == {
        str(one) for one in expected.validation_details.slicing_details
    }


def test_files_of_nothing_are_valid_for_nobody(tmp_path: Path) -> None:
    EvaluationFiles(path=str(tmp_path), config=_config(), model_paths=_MODELS, confidence=0.95).write([])
    result = tfma.load_validation_result(str(tmp_path))
    assert not result.validation_ok
    assert list(result.missing_slices) == [config_pb2.SlicingSpec()]  # all examples, of which the threshold is
    assert tfma.load_eval_result(str(tmp_path), model_name="integer").slicing_metrics == []


def test_parsed_options_say_the_same_as_beam_s_and_share_their_values() -> None:
    arguments = [_RUNNER, "--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    options = ParsedOptions(arguments)
    assert options.get_all_options() == PipelineOptions(arguments).get_all_options()
    assert options.view_as(DirectOptions) is options.view_as(DirectOptions)
    assert options.view_as(DirectOptions).direct_num_workers == 2
    options.view_as(StandardOptions).runner = "another"
    assert options.get_all_options()["runner"] == "another"
    assert options.view_as(DirectOptions).get_all_options()["runner"] == "another"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), 4),
        ((_RUNNER, "--direct_running_mode=in_memory"), 4),
        ((_RUNNER, "--direct_num_workers=2", "--direct_running_mode=multi_processing"), 2),
        (("--runner=directrunner", "--direct_num_workers=3", "--direct_running_mode=multi_threading"), 1),
        (("--direct_num_workers=8", "--direct_running_mode=multi_processing"), 1),
        (("--direct_num_workers=0", "--direct_running_mode=multi_processing"), 1),  # as many as there are cores
        (("--direct_num_workers=2",), 4),  # in memory there is one
        (("--runner=FlinkRunner",), 1),
    ],
)
def test_workers_together_use_each_core_once(
    arguments: tuple[str, ...], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)
    assert threads_of_worker(arguments) == expected
