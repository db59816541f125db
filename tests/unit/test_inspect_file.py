"""`python -m pipelines inspect` of a .tflite file: what it says on each target, its exit status, and how fast it is."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.tflite_schema import schema
from components.targets import load_target, report_schema, target_names
from components.targets._inspection import option_names
from pipelines.__main__ import main

from edge_tpu_graphs import Net, chain, loop, unary

# The processor's time of a whole process, of which an idle machine takes a quarter at most.
_LONGEST_S = 4.0


def _inspect(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def _convolution() -> bytes:
    """Two convolutions of 4 x 4 x 8 x 4 = 512 MACs, with an op between them that the Edge TPU does not have."""
    net = Net()
    tensors = [net.tensor(1, 4, 4, channels) for channels in (8, 4, 4, 4)]
    for source, result, channels in ((0, 1, 8), (2, 3, 4)):
        weights = net.tensor(4, 1, 1, channels, values=1)
        net.op("CONV_2D", [tensors[source], weights, net.tensor(4, dtype="INT32", values=0)], [tensors[result]], 3)
    operators = net._graph.operators
    net.op("ABS", [tensors[1]], [tensors[2]])
    operators.insert(1, operators.pop())
    net._graph.inputs, net._graph.outputs = [tensors[0]], [tensors[3]]
    return net.tflite()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(_convolution())
    return path


def test_inspect_shows_each_op_and_the_first_that_breaks(model: Path) -> None:
    output = _inspect(model, "--target", "edge_tpu").output
    rows = [line.split() for line in output.splitlines() if line[:1].isdigit() and " ops run on " not in line]
    assert [row[:4] for row in rows] == [
        ["0", "CONV_2D", "edge_tpu", "512"],
        ["1", "ABS", "CPU", "0"],
        ["2", "CONV_2D", "CPU", "256"],
    ]
    assert "1 of 3 ops run on edge_tpu" in output
    assert (
        "multiplications: 512 on edge_tpu (66.7%), 256 on the CPU; parameters: 36 on edge_tpu, 20 on the CPU" in output
    )
    assert "first op not there: 1 ABS: Operation not supported; replace it" in output
    assert "parameters cached on the target: " in output


@pytest.mark.parametrize(("least", "status"), [("0.66", 0), ("0.67", 1)])
def test_inspect_ends_with_1_when_too_few_multiplications_are_mapped(model: Path, least: str, status: int) -> None:
    # Whatever else the audit says of a graph that no converter made: the two differ in the share alone.
    results = [_inspect(model, "--target", "edge_tpu", "--min-mapped-macs", share, "--json") for share in ("0", least)]
    assert results[1].exit_code == max(results[0].exit_code, status)
    text = _inspect(model, "--target", "edge_tpu", "--min-mapped-macs", least).output
    assert ("66.7% of the multiplications run on edge_tpu, expected" in text) is bool(status)


@pytest.mark.parametrize(("target", "custom_op"), [("edge_tpu", b"edgetpu-custom-op"), ("ethos_u", b"ethos-u")])
def test_inspect_ends_with_2_when_the_file_is_compiled_already(model: Path, target: str, custom_op: bytes) -> None:
    content = flatbuffer.read_object(model.read_bytes())
    code = content.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = custom_op
    model.write_bytes(flatbuffer.write_object(content))
    result = _inspect(model, "--target", target)
    assert result.exit_code == 2
    assert "compiled already" in result.output
    assert _inspect(model, "--target", "cpu").exit_code in (0, 1)


def test_inspect_does_not_know_the_share_when_a_loop_multiplies(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(loop())
    output = _inspect(path, "--target", "edge_tpu", "--min-mapped-macs", "0.1").output
    assert "multiplications: 0 on edge_tpu (an unknown share), an unknown number on the CPU" in output
    assert "an unknown share of the multiplications run on edge_tpu, expected 10.0%" in output
    result = _inspect(path, "--target", "edge_tpu", "--min-mapped-macs", "0.1", "--json")
    assert result.exit_code == 1
    assert json.loads(result.output)["mapped_macs"] is None


def _of_unknown_sizes(shape: tuple[int, ...], signature: tuple[int, ...] = ()) -> bytes:
    """A convolution by 1 x 1 from 3 to 4 channels, whose data has sizes that are unknown, -1."""
    net = Net()
    ends = [net.tensor(*shape[:-1], channels) for channels in (shape[-1], 4)]
    for index in ends:
        net._graph.tensors[index].shapeSignature = [*signature]
    weights = net.tensor(4, 1, 1, 3, values=1)
    net.op("CONV_2D", [ends[0], weights, net.tensor(4, dtype="INT32", values=0)], ends[1:], 3)
    net._graph.inputs, net._graph.outputs = ends[:1], ends[1:]
    return net.tflite()


@pytest.mark.parametrize("target", target_names())
@pytest.mark.parametrize(
    ("shape", "signature", "macs", "guessed"),
    [
        ((1, 8, 8, 3), (-1, 8, 8, 3), 8 * 8 * 4 * 3, False),  # the batch alone: 1
        ((1, 1, 1, 3), (-1, -1, -1, 3), 4 * 3, True),
        ((-1, 8, 8, 3), (), 8 * 8 * 4 * 3, True),
    ],
    ids=["batch", "sizes", "negative"],
)
def test_inspect_ends_with_1_and_says_why_when_sizes_are_unknown(
    tmp_path: Path, target: str, shape: tuple[int, ...], signature: tuple[int, ...], macs: int, guessed: bool
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(_of_unknown_sizes(shape, signature))
    result = _inspect(path, "--target", target)
    assert result.exit_code == 1
    last = result.output.rstrip().splitlines()[-1]
    assert last.startswith(f"not ready for {target}: breaks dynamic-shape ")
    assert last.endswith("first of all: convert from a function with a fixed batch and fixed dimensions")
    assert f"multiplications: {macs} on {target}" in result.output or f", {macs} on the CPU; " in result.output
    assert ("op 0, CONV_2D, has a size that is unknown until the model runs" in result.output) is guessed


@pytest.mark.parametrize("target", target_names())
@pytest.mark.parametrize("name", ["kws_ref_model", "pretrainedResnet", "pretrainedResnet_quant"])
def test_inspect_ends_with_1_and_says_why_when_the_model_is_of_mlperf_tiny(
    shared: Path, name: str, target: str
) -> None:
    result = _inspect(shared / "models" / "mlperf_tiny" / f"{name}.tflite", "--target", target)  # of any batch
    assert result.exit_code == 1
    last = result.output.rstrip().splitlines()[-1]
    assert last.startswith(f"not ready for {target}: breaks ")
    assert "dynamic-shape " in last


@pytest.mark.parametrize("target", target_names())
def test_inspect_writes_mapping_report_and_audit_as_json(model: Path, target: str) -> None:
    result = _inspect(model, "--target", target, "--json")
    found: dict[str, Any] = json.loads(result.output)
    jsonschema.validate(found["report"], report_schema())
    assert found["report"]["target"] == target
    assert not found["report"]["compiled"]
    assert [op["op"] for op in found["mapping"]] == ["CONV_2D", "ABS", "CONV_2D"]
    assert result.exit_code == int(not found["audit"]["ready"])


def test_inspect_takes_options_of_the_target(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(chain("RELU"))
    mapped = [
        json.loads(_inspect(path, "--target", "nnapi", "--json", "--option", f"api_level={level}").output)
        for level in (29, 30)
    ]
    assert [found["mapping"][0]["on_target"] for found in mapped] == [False, True]
    assert mapped[0]["options"] == {"api_level": "29"}
    path.write_bytes(chain("TRANSPOSE"))
    assert option_names(load_target("edge_tpu")) == ("compiler_version", "min_runtime_version", "multiple_subgraphs")
    options = ("--option", "compiler_version=14.1", "--option", "min_runtime_version=none")
    assert "target edge_tpu, compiler_version 14.1" in _inspect(path, *options).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--option", "api_level"], "--option: got api_level, expected NAME=VALUE"),
        (["--option", "a=1", "--option", "a=2"], "a twice"),
        (["--target", "tflm", "--option", "api_level=30"], "api_level is none of them: it has none"),
        (["--target", "nnapi", "--option", "api_level=old"], "api_level: got 'old', expected an integer"),
        (["--target", "nnapi", "--option", "api_level=12"], "api_level: got 12, expected one of 27"),
        (["--option", "multiple_subgraphs=yes"], "expected true or false"),
        (["--option", "min_runtime_version=x"], "expected an integer or none"),
        (["--min-mapped-macs", "2"], "min-mapped-macs"),
        (["--target", "moon"], "unknown target 'moon'"),
    ],
)
def test_inspect_ends_with_2_when_asked_for_what_is_not_there(model: Path, arguments: list[str], message: str) -> None:
    result = _inspect(model, *arguments)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize("content", [b"", b"no model at all", b"TFL3", b"\x1c\x00\x00\x00TFL3" + bytes(30)])
@pytest.mark.parametrize("target", target_names())
def test_inspect_ends_with_2_when_the_file_is_no_model(tmp_path: Path, content: bytes, target: str) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    assert _inspect(path, "--target", target).exit_code == 2


def test_inspect_ends_with_2_when_nothing_is_there(tmp_path: Path) -> None:
    result = _inspect(tmp_path / "model.tflite", "--target", "tflm")
    assert result.exit_code == 2
    assert "expected a .tflite file" in " ".join(result.output.replace("│", " ").split())


def test_inspect_ends_at_once_when_a_huge_file_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    with path.open("wb") as file:
        file.truncate(2**40)
    result = _inspect(path)
    assert result.exit_code == 2
    assert "not a TFLite flatbuffer" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scheme", "int16x8"], "got --scheme or --untrainable"),
        (["--untrainable", "fail"], "got --scheme or --untrainable"),
        (["--target", ""], "unknown target ''"),
        (["--min-mapped-macs", "nan"], "got nan, expected a share from 0 to 1"),
    ],
)
def test_inspect_ends_with_2_when_an_argument_means_nothing_for_a_file(
    model: Path, arguments: list[str], message: str
) -> None:
    result = _inspect(model, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_inspect_says_what_to_change_on_ethos_u(tmp_path: Path) -> None:
    net = Net()
    sizes = net.tensor(2, dtype="INT32", values=[12, 12])
    net.op("RESIZE_BILINEAR", [net.tensor(1, 4, 4, 8), sizes], [net.tensor(1, 12, 12, 8)], 3)
    path = tmp_path / "model.tflite"
    path.write_bytes(net.tflite())
    output = " ".join(_inspect(path, "--target", "ethos_u").output.split())
    assert "first op not there: 0 RESIZE_BILINEAR: " in output
    assert "; enlarge by 2, 4 or 8 at a time" in output


def test_inspect_says_to_convert_to_integers_on_ethos_u_when_a_model_is_float(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(unary("LOGISTIC", 1, 8, dtype="FLOAT32"))
    output = " ".join(_inspect(path, "--target", "ethos_u").output.split())
    assert "unsupported DataType; convert the model whole to integers" in output


def test_inspect_says_that_a_microcontroller_does_not_run_the_model_when_it_lacks_an_op(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(chain("LOGISTIC", "TOPK_V2"))
    output = " ".join(_inspect(path, "--target", "tflm").output.split())
    assert "TFLite Micro does not run this model: it refuses 1 of 2 ops" in output


def test_inspect_refuses_options_of_files_when_it_is_given_a_config() -> None:
    result = _inspect("digits", "--option", "api_level=30")
    assert result.exit_code == 2
    assert "are for a .tflite file" in result.output


@pytest.mark.parametrize("target", target_names())
def test_inspect_is_fast_and_imports_no_tensorflow(tmp_path: Path, target: str) -> None:
    net = Net()
    source, result = net.tensor(1, 2048), net.tensor(1, 2048)
    weights = net.tensor(2048, 2048, values=1)
    net.op("FULLY_CONNECTED", [source, weights, net.tensor(2048, dtype="INT32", values=0)], [result], 4)
    net._graph.inputs, net._graph.outputs = [source], [result]
    path = tmp_path / "model.tflite"
    path.write_bytes(net.tflite())
    assert path.stat().st_size > 4_000_000
    program = (
        "import sys; from pipelines.__main__ import main\n"
        "try: main()\n"
        "finally: print('heavy:', sorted({'tensorflow', 'keras', 'tf_keras', 'tfx', 'ethosu'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program, "inspect", str(path), "--target", target]
    times_s = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run = subprocess.run(command, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert run.returncode in (0, 1), run.stderr
        assert run.stdout.endswith("heavy: []\n"), run.stdout + run.stderr
    assert min(times_s) < _LONGEST_S
