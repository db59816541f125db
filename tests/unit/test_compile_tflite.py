"""`python -m pipelines compile-tflite`: files of one compilation, of several models, of segments; and mistakes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from components.targets._compiled_file import compiled_parts
from pipelines.__main__ import main

from edge_tpu_compilers import Double, knowing, replaying

_MOBILENET = "mobilenet_v1_0.25_128_quant"
_LARGER = "mobilenet_v1_0.5_160_quant"


def _compile(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compile-tflite", *map(str, arguments)])


def _file(shared: Path, name: str) -> Path:
    return shared / "edgetpu" / "models" / f"{name}.tflite"


def _option(double: Double) -> tuple[str, str]:
    return "--option", f"compiler={double.path}"


def test_file_is_compiled_with_its_report_and_what_the_compiler_wrote(shared: Path, tmp_path: Path) -> None:
    output = tmp_path / "made" / "compiled"
    result = _compile(_file(shared, _MOBILENET), "-o", output, *_option(knowing(tmp_path / "double", shared)))
    assert result.exit_code == 0, result.output
    assert "compiled by edgetpu_compiler" in result.output
    name = _MOBILENET.replace(".", "_")
    assert compiled_parts((output / f"{name}_edgetpu.tflite").read_bytes(), "edgetpu-custom-op")
    report = json.loads((output / f"{name}_report.json").read_text())
    assert report["compiled"]
    assert report["log"] == (output / "compiler" / "attempt_1.txt").read_text()
    assert f"{report['memory']['cached_bytes']:,}" in result.output


def test_models_are_compiled_together_the_one_that_runs_most_first(shared: Path, tmp_path: Path) -> None:
    double = knowing(tmp_path / "double", shared, memory_bytes=600_000)
    output = tmp_path / "group"
    files = [_file(shared, name) for name in (_LARGER, _MOBILENET)]
    result = _compile(*files, "-o", output, "--calls", f"{_LARGER}=1000", *_option(double))
    assert result.exit_code == 0, result.output
    group = json.loads((output / "group.json").read_text())
    first, second = group["members"]
    assert first["name"] == _LARGER.replace(".", "_")
    assert len(group["orders"]) == 2
    sent = 1000 * first["streamed_bytes"] + second["streamed_bytes"]
    assert group["traffic_bytes_per_second"] == sent == min(one["traffic_bytes_per_second"] for one in group["orders"])
    for member in group["members"]:
        assert compiled_parts((output / member["file"]).read_bytes(), "edgetpu-custom-op")
    assert f"{group['traffic_bytes_per_second']:,.0f}" in result.output


def test_segments_are_files_of_their_own(shared: Path, tmp_path: Path) -> None:
    double, output = knowing(tmp_path / "double", shared), tmp_path / "segments"
    result = _compile(_file(shared, _MOBILENET), "-o", output, "--segments", 2, *_option(double))
    assert result.exit_code == 0, result.output
    names = [f"model_segment_{i}_of_2" for i in range(2)]
    assert [member["name"] for member in json.loads((output / "group.json").read_text())["members"]] == names
    assert all((output / f"{name}_edgetpu.tflite").is_file() for name in names)


def test_nothing_but_what_the_compiler_wrote_is_left_when_it_fails(shared: Path, tmp_path: Path) -> None:
    output = tmp_path / "compiled"
    double = replaying(tmp_path / "double", [{"output": "ERROR: Got unexpected things.\n", "exit": 1}])
    result = _compile(_file(shared, _MOBILENET), "-o", output, *_option(double))
    assert result.exit_code == 1
    (kept,) = tmp_path.glob("compiled.failed.*")
    assert str(kept) in result.output
    assert "Got unexpected things" in (kept / "attempt_1.txt").read_text()
    assert "Got unexpected things" in (kept / "error.log").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [kept.name, "double"]


def test_vela_compiles_for_real(shared: Path, tmp_path: Path) -> None:
    output = tmp_path / "vela"
    arguments = ("--target", "ethos_u", "--option", "accelerator_config=ethos-u65-256")
    result = _compile(_file(shared, _MOBILENET), "-o", output, *arguments)
    assert result.exit_code == 0, result.output
    assert "compiled by Vela 5.2.0" in result.output
    assert "Ethos_U65_256" in result.output
    assert compiled_parts((output / f"{_MOBILENET.replace('.', '_')}_ethosu.tflite").read_bytes(), "ethos-u")


def test_target_without_a_compiler_gets_the_file_as_it_is_and_what_goes_with_it(shared: Path, tmp_path: Path) -> None:
    source, output = _file(shared, _MOBILENET), tmp_path / "tflm"
    result = _compile(source, "-o", output, "--target", "tflm")
    assert result.exit_code == 0, result.output
    assert "not compiled" in result.output
    assert (output / f"{_MOBILENET.replace('.', '_')}.tflite").read_bytes() == source.read_bytes()
    assert (output / "compiler" / "model.cc").is_file()


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        ((_MOBILENET, _LARGER), ("--target", "tflm"), "tflm compiles one model"),
        ((_MOBILENET, _LARGER), ("--segments", "2"), "--segments: got 2 models"),
        ((_MOBILENET,), ("--segments", "2", "--target", "nnapi"), "nnapi compiles one model, to one file"),
        ((_MOBILENET,), ("--option", "num_segments=2"), "give --segments instead"),
        ((_MOBILENET, _MOBILENET), (), "more than once"),
        ((_MOBILENET, _LARGER), ("--calls", "posenet=3"), f"expected some of {_MOBILENET}, {_LARGER}"),
        ((_MOBILENET, _LARGER), ("--calls", f"{_LARGER}=often"), "--calls: got often, expected numbers"),
        ((_MOBILENET,), ("--calls", f"{_MOBILENET}=3"), "and several models"),
        ((_MOBILENET,), ("--calls", "3"), "--calls: got 3, expected NAME=VALUE"),
        ((_MOBILENET,), ("--option", "timeout_sec=soon"), "timeout_sec: got 'soon'"),
        ((_MOBILENET,), ("--target", "edgetpu"), "edgetpu"),
    ],
)
def test_mistake_is_one_sentence_before_anything_runs(
    shared: Path, tmp_path: Path, names: tuple[str, ...], arguments: tuple[str, ...], message: str
) -> None:
    output = tmp_path / "compiled"
    result = _compile(*(_file(shared, name) for name in names), "-o", output, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


def test_output_that_is_there_already_is_left_alone(shared: Path, tmp_path: Path) -> None:
    result = _compile(_file(shared, _MOBILENET), "-o", tmp_path, "--target", "tflm")
    assert result.exit_code == 2
    assert "exists already" in result.output


def test_missing_compiler_is_said_with_what_to_do(shared: Path, tmp_path: Path) -> None:
    output = tmp_path / "compiled"
    result = _compile(_file(shared, _MOBILENET), "-o", output, "--option", "compiler=no_such_compiler")
    assert result.exit_code == 1
    assert "no_such_compiler is not on PATH" in result.output
    assert list(tmp_path.iterdir()) == []
