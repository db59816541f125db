import collections
import hashlib
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tensorflow as tf
from tfx import types
from tfx.types import channel_utils, standard_artifacts

from components import target_compiler, tflite_int_converter
from components.edge_tpu_compiler import EdgeTPUCompiler
from components.quantization import audit
from components.quantization.conversion import flatbuffer
from components.quantization.origin_facts import ORIGIN_FACTS
from components.target_compiler import TargetCompiler
from components.targets import CompileError, report_schema
from components.targets._compiled_file import compiled_parts
from components.targets.edge_tpu import CompilerOptions
from components.targets.ethos_u import VelaOptions
from components.tflite_int_converter import TFLiteIntConverter

from conftest_components import Artifacts, new_models
from edge_tpu_compilers import Double
from vela_program import require_vela

pytestmark = pytest.mark.slow
_MODEL = channel_utils.as_channel([standard_artifacts.Model()])


def _convert(
    channel: Callable[[str], types.BaseChannel],
    standard: Artifacts,
    source: Any,
    directory: Path,
    *,
    float_model: Any = None,
    raw_examples: Any = None,
    **arguments: Any,
) -> types.Artifact:
    component = TFLiteIntConverter(
        model=_MODEL,
        float_model=_MODEL if float_model else None,
        raw_examples=channel("examples") if raw_examples else None,
        examples=channel("transformed_examples"),
        transform_graph=channel("transform_graph"),
        schema=channel("schema"),
        **arguments,
    )
    outputs = new_models(directory, "tflite_model")
    inputs = {
        "model": source,
        **({"float_model": float_model} if float_model else {}),
        **({"raw_examples": raw_examples} if raw_examples else {}),
        "examples": standard["transformed_examples"],
        "transform_graph": standard["transform_graph"],
        "schema": standard["schema"],
    }
    tflite_int_converter.Executor().Do(inputs, outputs, component.exec_properties)
    return outputs["tflite_model"][0]


@pytest.mark.parametrize("source", ["model", "float_model"], ids=["QAT", "PTQ"])
@pytest.mark.parametrize("io_dtype", ["int8", "uint8"])
def test_converter_publishes_an_integer_only_model(
    channel: Any, standard: Artifacts, trained: Artifacts, tmp_path: Path, source: str, io_dtype: str
) -> None:
    artifact = _convert(channel, standard, trained[source], tmp_path, io_dtype=io_dtype, representative_examples=50)
    content = (Path(artifact.uri) / "Format-Serving" / "tflite").read_bytes()
    assert audit(content, profile="edge_tpu").offenders == ()
    assert artifact.get_string_custom_property("sha256") == hashlib.sha256(content).hexdigest()
    parent = trained[source][0].get_string_custom_property("sha256")
    assert artifact.get_string_custom_property("parent_sha256") == parent
    assert artifact.get_int_custom_property("size_bytes") == len(content)
    accuracy = trained[source][0].get_float_custom_property("eval_accuracy")
    assert artifact.get_float_custom_property("parent_eval_accuracy") == accuracy
    facts = json.loads((Path(artifact.uri) / "facts.json").read_text())
    assert facts["io_dtype"] == io_dtype
    trained_with = json.loads((Path(trained[source][0].uri) / "facts.json").read_text())
    origin = {name: trained_with[name] for name in ORIGIN_FACTS if name in trained_with}
    assert {"seed", "training_examples_sha256", "schema_sha256"} <= set(origin)
    assert origin["training_python_version"] == platform.python_version()
    assert platform.machine() in origin["training_platform"]
    assert {name: facts[name] for name in origin} == origin
    calibrated_with = {"calibration": "min_max", "representative_examples": 50, "representative_seed": 1}
    # Ranges that were trained need no examples, whatever number was configured.
    assert {name: facts.get(name) for name in calibrated_with} == (
        calibrated_with if source == "float_model" else dict.fromkeys(calibrated_with)
    )
    assert artifact.get_int_custom_property("integer_only") == 1


def test_converter_notes_all_spans_when_the_examples_are_of_a_window(
    channel: Any, standard: Artifacts, trained: Artifacts, tmp_path: Path
) -> None:
    examples = standard_artifacts.Examples()
    examples.uri, examples.split_names = standard["examples"][0].uri, standard["examples"][0].split_names
    examples.set_int_custom_property("span", 5)  # as TFX's drivers note it
    window = {"spans": "[1, 2, 5]", "span_fingerprints": '["a", "b", "c"]'}
    for name, value in {**window, "input_fingerprint": "c"}.items():
        examples.set_string_custom_property(name, value)
    artifact = _convert(channel, standard, trained["float_model"], tmp_path, raw_examples=[examples])
    assert artifact.get_int_custom_property("examples_span") == 5
    assert {name: artifact.get_string_custom_property(f"examples_{name}") for name in window} == window


def test_converter_takes_the_scheme_that_the_model_was_trained_with_when_it_is_given_none(
    channel: Any, standard: Artifacts, trained: Artifacts, tmp_path: Path
) -> None:
    artifact = _convert(channel, standard, trained["model"], tmp_path, scheme=None)
    scheme = trained["model"][0].get_string_custom_property("scheme")
    assert artifact.get_string_custom_property("scheme") == scheme
    assert artifact.get_string_custom_property("io_dtype") == "int8"
    parent = trained["float_model"][0].uri
    assert artifact.get_string_custom_property("float_model_uri") == parent
    assert not (Path(artifact.uri) / "attribution.json").exists()  # nobody connected the float model
    stranger = new_models(tmp_path / "stranger", "model")["model"]
    with pytest.raises(ValueError, match="does not say by which scheme it was trained; pass scheme="):
        _convert(channel, standard, stranger, tmp_path, scheme=None)


def test_converter_raises_and_writes_nothing_when_the_split_does_not_exist(
    channel: Any, standard: Artifacts, trained: Artifacts, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="examples have no split 'calibration', only eval, train"):
        _convert(channel, standard, trained["model"], tmp_path, split="calibration")
    assert not (tmp_path / "tflite_model").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheme": "int7"}, "unknown scheme 'int7'"),
        ({"profile": "abacus"}, "unknown target 'abacus'"),
        ({"io_dtype": "int16"}, "expected one of int8, uint8"),
        ({"io_dtype": {"image": "int16"}}, "expected one of int8, uint8"),
        ({"io_dtype": {"image": "int3"}, "scheme": None}, "io_dtype: got 'int3', expected one of int8, uint8, int16"),
        (
            {"representative_examples": 0, "attribution_examples": -1, "cache_dir": "gs://b/c"},
            "representative_examples: got 0, expected at least 1; attribution_examples: got -1, expected at least 0;"
            " cache_dir: got 'gs://b/c', expected a local directory",
        ),
        ({"transform_graph": None, "schema": None}, "neither transform_graph nor schema given"),
    ],
)
def test_converter_constructor_raises_when_an_argument_is_wrong(
    channel: Any, changes: dict[str, Any], message: str
) -> None:
    arguments = {"model": _MODEL, "examples": channel("transformed_examples"), "schema": channel("schema")}
    with pytest.raises(ValueError, match=message):
        TFLiteIntConverter(**{**arguments, **changes})


@pytest.fixture(scope="session")
def integer_model(
    channel: Any, standard: Artifacts, trained: Artifacts, tmp_path_factory: pytest.TempPathFactory
) -> types.Artifact:
    return _convert(channel, standard, trained["model"], tmp_path_factory.mktemp("integer"))


def test_compiler_publishes_velas_file_and_figures_when_the_target_is_ethos_u(
    integer_model: types.Artifact, tmp_path: Path
) -> None:
    options = VelaOptions(compiler=require_vela(), accelerator_config="ethos-u55-64", optimise="Size")
    component = TargetCompiler(model=_MODEL, target="ethos_u", when_missing="fail", options=options)
    assert component.exec_properties["options"] == options.to_json()
    assert component.exec_properties["compiler"].startswith("5.")
    outputs = new_models(tmp_path, "compiled_model")
    target_compiler.Executor().Do({"model": [integer_model]}, outputs, component.exec_properties)
    artifact = outputs["compiled_model"][0]
    content = (Path(artifact.uri) / "Format-Serving" / "tflite").read_bytes()
    assert compiled_parts(content, "ethos-u") == 1
    report = json.loads((Path(artifact.uri) / "compile_report.json").read_text())
    jsonschema.validate(report, report_schema())
    assert (report["compiled"], report["problems"], report["latency"]["kind"]) == (True, [], "estimated")
    assert (Path(artifact.uri) / "compiler" / "attempt_1.txt").read_text() == report["log"]
    assert len(list((Path(artifact.uri) / "compiler").glob("attempt_1_*.csv"))) == 2
    assert artifact.get_int_custom_property("compiled") == 1
    assert artifact.get_int_custom_property("ops_on_cpu") == 0
    assert artifact.get_int_custom_property("target_subgraphs") == 1
    assert artifact.get_string_custom_property("kind") == "compiled"


@pytest.mark.parametrize(
    ("target", "tool"), [("edge_tpu", "static analysis"), ("cpu", f"TFLite interpreter of TensorFlow {tf.__version__}")]
)
def test_compiler_passes_the_model_on_and_says_that_it_is_not_compiled(
    integer_model: types.Artifact, tmp_path: Path, target: str, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    component = TargetCompiler(model=_MODEL, target=target)
    outputs = new_models(tmp_path, "compiled_model")
    target_compiler.Executor().Do({"model": [integer_model]}, outputs, component.exec_properties)
    artifact = outputs["compiled_model"][0]
    before = (Path(integer_model.uri) / "Format-Serving" / "tflite").read_bytes()
    assert (Path(artifact.uri) / "Format-Serving" / "tflite").read_bytes() == before
    report = json.loads((Path(artifact.uri) / "compile_report.json").read_text())
    assert (report["compiled"], report["tool"]) == (False, tool)
    jsonschema.validate(report, report_schema())
    assert not list(Path(artifact.uri).rglob("*_edgetpu*"))  # an analysis never claims to be a compilation
    assert artifact.get_int_custom_property("macs_on_target") == report["on_target"]["macs"] > 0
    assert artifact.get_int_custom_property("compiled") == 0
    assert artifact.get_int_custom_property("ops_on_target") == 7
    for fact in ("scheme", "tensorflow_version", "tf_keras_version", "compiler", "io_dtype"):
        assert artifact.get_string_custom_property(fact)
    assert artifact.get_string_custom_property("parent_sha256") == hashlib.sha256(before).hexdigest()


@pytest.mark.parametrize("runtime", [10, 14])
def test_compiler_publishes_where_each_op_runs_by_its_options(
    integer_model: types.Artifact, tmp_path: Path, runtime: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    component = EdgeTPUCompiler(model=_MODEL, options=CompilerOptions(min_runtime_version=runtime))
    outputs = new_models(tmp_path, "compiled_model")
    target_compiler.Executor().Do({"model": [integer_model]}, outputs, component.exec_properties)
    folder = Path(outputs["compiled_model"][0].uri)
    ops = json.loads((folder / "mapping.json").read_text())
    report = json.loads((folder / "compile_report.json").read_text())
    assert sum(op["on_target"] for op in ops) == report["on_target"]["ops"] == (7 if runtime == 14 else 0)
    assert [op["index"] for op in ops] == list(range(7))
    assert [op["layer"] for op in ops].count("") < 3


def test_compiler_publishes_file_report_and_log_when_the_compiler_is_there(
    integer_model: types.Artifact, tmp_path: Path, shared: Path
) -> None:
    tflite = (Path(integer_model.uri) / "Format-Serving" / "tflite").read_bytes()
    compiled = shared / "edgetpu" / "models" / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    counts = collections.Counter(op.code for op in flatbuffer.read_subgraphs(tflite)[0].ops)
    rows = [(op, count, "Mapped to Edge TPU") for op, count in counts.items()]
    known = {"compiled": str(compiled), "rows": rows, "parameter_bytes": 4096}
    double = Double(tmp_path / "double", known={hashlib.sha256(tflite).hexdigest(): known})
    options = CompilerOptions(compiler=str(double.path), timeout_sec=90)
    component = EdgeTPUCompiler(model=_MODEL, when_missing="fail", options=options)
    assert component.exec_properties["options"] == options.to_json()
    assert component.exec_properties["compiler"].startswith("16.0.384591198 ")
    outputs = new_models(tmp_path, "compiled_model")
    target_compiler.Executor().Do({"model": [integer_model]}, outputs, component.exec_properties)
    artifact = outputs["compiled_model"][0]
    assert (Path(artifact.uri) / "Format-Serving" / "tflite").read_bytes() == compiled.read_bytes()
    report = json.loads((Path(artifact.uri) / "compile_report.json").read_text())
    jsonschema.validate(report, report_schema())
    assert (report["compiled"], report["problems"]) == (True, [])
    assert (Path(artifact.uri) / "compiler" / "attempt_1.txt").read_text() == report["log"]
    assert artifact.get_int_custom_property("compiled") == 1
    assert artifact.get_int_custom_property("cached_bytes") == 4096
    assert "--timeout_sec 90" in " ".join(double.calls[0])


def test_edge_tpu_compiler_fails_when_the_compiler_is_missing_and_must_not_be(
    integer_model: types.Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    component = EdgeTPUCompiler(model=_MODEL, when_missing="fail")
    with pytest.raises(CompileError, match="edgetpu_compiler is not on PATH"):
        target_compiler.Executor().Do(
            {"model": [integer_model]}, new_models(tmp_path, "compiled_model"), component.exec_properties
        )
    assert not (tmp_path / "compiled_model").exists()


def test_compiler_raises_when_the_artifact_holds_no_tflite_model(trained: Artifacts, tmp_path: Path) -> None:
    component = TargetCompiler(model=_MODEL, target="cpu")
    with pytest.raises(ValueError, match="has no Format-Serving/tflite; connect a TFLite model"):
        target_compiler.Executor().Do(
            {"model": trained["model"]}, new_models(tmp_path, "compiled_model"), component.exec_properties
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "abacus"}, "unknown target 'abacus'"),
        ({"when_missing": "pray"}, "expected one of analyze, fail"),
        ({"options": CompilerOptions()}, "options of target 'cpu': got .*, expected some of measure_latency"),
        ({"target": "ethos_u", "options": CompilerOptions()}, "not options of Vela"),
        ({"target": "edge_tpu", "options": CompilerOptions(num_segments=2)}, "num_segments: makes several files"),
    ],
)
def test_compiler_constructor_raises_when_an_argument_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TargetCompiler(**{"model": _MODEL, "target": "cpu", **arguments})
