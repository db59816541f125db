"""Every member of every plug-in folder keeps its folder's contract; a new one is tested without touching this."""

import dataclasses
import importlib
import inspect
import json
import sys
from pathlib import Path

import jsonschema
import pytest
import tensorflow as tf

from components import targets
from components.quantization import audit, convert, schemes
from components.quantization.conversion import profiles
from components.quantization.plugins import member_names
from pipelines import beam_runners, configs, runners, tasks
from pipelines.pipeline import create_pipeline

import small_models as models


@pytest.mark.parametrize("name", schemes.scheme_names())
def test_scheme_survives_its_json_and_has_the_name_of_its_file(name: str) -> None:
    scheme = schemes.load_scheme(name)
    assert scheme.name == name
    assert schemes.QuantizationScheme.from_json(scheme.to_json()) == scheme


@pytest.mark.slow
@pytest.mark.parametrize("name", schemes.scheme_names())
def test_scheme_converts_to_a_model_of_its_widths(name: str) -> None:
    scheme = schemes.load_scheme(name)
    tflite = convert(models.convolutional(), scheme, representative_dataset=[models.images(4)], profile="cpu")
    assert audit(tflite, profile="cpu").integer_only == scheme.integer_only
    interpreter = tf.lite.Interpreter(model_content=tflite)
    interpreter.allocate_tensors()
    interpreter.invoke()


@pytest.mark.parametrize("name", targets.target_names())
def test_target_has_a_profile_and_the_name_of_its_file(name: str) -> None:
    target = targets.load_target(name)
    assert target.name == name
    assert profiles.load_profile(name).name == name
    assert isinstance(target.compiler_version(), str)
    with pytest.raises(ValueError, match="TFLite flatbuffer"):
        target.inspect(b"no model")


@pytest.mark.slow
@pytest.mark.parametrize("name", targets.target_names())
def test_target_accounts_for_every_op(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")  # no compiler
    monkeypatch.delenv("TFX_QAT_VELA", raising=False)
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))  # beside which there is none
    tflite = convert(models.convolutional(), representative_dataset=[models.images(4)], profile=name)
    target = targets.load_target(name)
    mapping = target.inspect(tflite)
    model = target.compile(tflite, when_missing="analyze")
    assert [op.index for op in mapping.ops] == list(range(len(mapping.ops)))
    assert all(op.status for op in mapping.ops)
    assert model.tflite == tflite
    assert not model.report.compiled
    assert model.report.ops_on_target + model.report.ops_on_cpu == len(mapping.ops)
    report = json.loads(model.report.to_json())
    jsonschema.validate(report, targets.report_schema())
    assert report["target"] == name
    assert report["on_target"]["macs"] + report["on_cpu"]["macs"] > 0
    target.check(schemes.load_scheme("full_int8"))
    written = target.require_options("")
    assert target.require_options(written) == written
    with pytest.raises(ValueError, match="options"):
        target.require_options('{"nonsense": 1}')


@pytest.mark.parametrize("name", runners.runner_names())
def test_runner_takes_a_pipeline_or_compiles_a_config(name: str) -> None:
    module = importlib.import_module(f"pipelines.runners.{name}")
    functions = {
        function: list(inspect.signature(call).parameters)
        for function, call in vars(module).items()
        if inspect.isfunction(call)
    }
    service = {"compile_job": ["config"], "package": ["job"], "submit": ["job", "destination"]}
    assert functions in ({"run": ["pipeline"]}, service)


@pytest.mark.parametrize("name", beam_runners.beam_runner_names())
def test_beam_runner_has_the_name_of_its_file_and_a_class_of_typed_settings(name: str) -> None:
    runner = beam_runners.load_beam_runner(name)
    assert issubclass(runner, beam_runners.BeamRunner)
    assert dataclasses.is_dataclass(runner)
    assert runner.__module__ == f"pipelines.beam_runners.{name}"
    assert runner.OWN_ARGS


@pytest.mark.parametrize("name", member_names("pipelines.tasks"))
def test_task_builds_a_compiled_model_of_its_features(name: str) -> None:
    task = tasks.load_task(name)
    assert task.build_model({}).loss
    assert set(task.RAW_FEATURE_SPEC)


@pytest.mark.parametrize("name", configs.config_names())
def test_config_makes_a_pipeline_of_its_own_name(name: str) -> None:
    config = configs.load_config(name)
    assert config.name == name
    if config.spans:  # as a run selects them, which looks for what is complete
        config = dataclasses.replace(config, spans=dataclasses.replace(config.spans, selected=(1,)))
    pipeline = create_pipeline(config)
    pushers = [component.id for component in pipeline.components][-len(config.plans) :]
    assert sorted(pushers) == sorted(f"Pusher{plan.suffix}" for plan in config.plans)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (schemes.load_scheme, "unknown scheme 'nothing': there are dynamic_range, float16, full_int8, "),
        (
            targets.load_target,
            "unknown target 'nothing': there are cpu, edge_tpu, .*nnapi, tflm; to add one, create components/targets",
        ),
        (profiles.load_profile, "unknown target 'nothing': there are a311d, cpu, edge_tpu, ethos_u, nnapi, tflm"),
        (runners.load_runner, "unknown runner 'nothing': there are beam, kubeflow, local, vertex"),
        (beam_runners.load_beam_runner, "unknown Beam runner 'nothing': there are dataflow, direct, flink, portable"),
        (configs.load_config, "unknown config 'nothing': there are devices, digits"),
        (tasks.load_task, "unknown task 'nothing': there are digits"),
        (lambda name: tasks.load_task(f"no.such.{name}"), "module 'no.such.nothing' cannot be imported"),
        (lambda name: tasks.load_task("pipelines.inputs"), "does not define RAW_FEATURE_SPEC, preprocessing_fn, "),
    ],
)
def test_loader_lists_what_there_is_when_the_name_is_unknown(load: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load("nothing")  # type: ignore[operator]
