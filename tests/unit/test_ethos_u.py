"""The Ethos-U target without Vela: options, rules, what is read of its output, and programs in place of it."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras

from components.quantization import convert
from components.targets import CompileError, load_target
from components.targets.ethos_u import VARIABLE, VelaOptions, statistics
from components.targets.ethos_u.failures import classify
from components.targets.ethos_u.log import cpu_operations
from components.targets.ethos_u.options import ACCELERATORS

from edge_tpu_graphs import Net

TARGET = load_target("ethos_u")


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_options_fill_in_what_vela_takes_and_survive_their_json(accelerator: str) -> None:
    options = VelaOptions(accelerator_config=accelerator)
    assert VelaOptions.from_json(options.to_json()) == options
    assert options.system_config.lower().replace("_", "-").startswith(options.family)
    expected = "Shared_Sram" if options.family == "ethos-u55" else "Dedicated_Sram_384KB"
    assert options.memory_mode == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"accelerator_config": "ethos-u55-512"},
            "accelerator_config: got 'ethos-u55-512', expected one of ethos-u55-32",
        ),
        ({"system_config": "Ethos_U85_SYS_DRAM_Mid"}, "system_config of ethos-u55-256: got 'Ethos_U85_SYS_DRAM_Mid'"),
        ({"memory_mode": "Dedicated_Sram"}, "keeps feature maps in DRAM, and Ethos_U55_High_End_Embedded has none"),
        (
            {
                "accelerator_config": "ethos-u65-256",
                "memory_mode": "Dedicated_Sram",
                "system_config": "Ethos_U65_Embedded",
            },
            "Dedicated_Sram keeps feature maps in DRAM, and Ethos_U65_Embedded has none",
        ),
        ({"config_file": "board.txt"}, "ends with .ini; system_config: got '', .*; memory_mode: got ''"),
        ({"optimise": "Speed", "timeout_sec": 0}, "optimise: got 'Speed'.*; timeout_sec: got 0"),
        ({"arena_cache_size": 0}, "arena_cache_size: got 0, expected 1 to 4294967296 bytes"),
        ({"arena_cache_size": "384K"}, "arena_cache_size: got '384K', expected a number of bytes or None"),
        ({"compiler": "-c"}, "compiler: got '-c'"),
        ({"nonsense": 1}, "not options of Vela.*there are accelerator_config, system_config"),
    ],
)
def test_options_raise_with_all_violations_when_they_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TARGET.require_options(json.dumps(changes))


def test_options_take_sections_of_a_file_of_ones_own() -> None:
    options = VelaOptions(config_file="board.ini", system_config="Board", memory_mode="Mine", arena_cache_size=4096)
    arguments = options.arguments(per_layer=False)
    assert arguments[-6:] == ["--config", "board.ini", "--optimise", "Performance", "--arena-cache-size", "4096"]


_LOG = """
Warning (supported operators) operator: RESIZE_BILINEAR, ofm: 'up, "2"'
Reason: Scaling matches and operation has unsupported scale-factor=16
IF not (IFM H == IFM W == 1):
  - IF half pixel centers:
    - Scale-factor needs to be 2x

Warning (supported operators) operator: CONV_2D, ofm: 'c'
Reason: Operation has tensor with unsupported DataType Float32 (model/conv;x_act)
"""


def test_cpu_operations_are_those_that_vela_gives_a_reason_for() -> None:
    resize, conv = cpu_operations(_LOG)
    assert (resize.op, resize.output) == ("RESIZE_BILINEAR", 'up, "2"')
    assert resize.status == "Scaling matches and operation has unsupported scale-factor=16"
    assert resize.constraint.startswith("IF not (IFM H == IFM W == 1): IF half pixel centers:")
    assert conv.status == "Operation has tensor with unsupported DataType Float32"
    assert conv.constraint == "model/conv;x_act"


def test_layers_keep_a_name_with_commas_when_vela_does_not_quote_it() -> None:
    content = b"Original Operator,NNG Operator,Target,Op Cycles,Util% (MAC),Name\nConv2D,Conv2D,NPU,12,1.5,a,b;c\n"
    (layer,) = statistics.read_layers({"model_per-layer.csv": content})
    assert (layer.name, layer.op) == ("a,b;c", "Conv2D/Conv2D on NPU")
    assert layer.measurements == {"cycles": 12.0, "mac_utilization_percent": 1.5}


def test_slowest_keeps_the_order_of_the_table() -> None:
    content = b"Op Cycles,Name\n" + b"\n".join(b"%d,l%d" % (cycles, i) for i, cycles in enumerate((5, 1, 9, 7)))
    layers = statistics.read_layers({"model_per-layer.csv": content})
    assert [layer.name for layer in statistics.slowest(layers, most=2)] == ["l2", "l3"]


def test_measurements_leave_out_what_vela_cannot_divide() -> None:
    figures = statistics.measurements({"inferences_per_second": "nan", "cycles_dram_access": "7", "new": "1"})
    assert figures == {"dram_access_cycles": 7.0, "new": 1.0}


@pytest.mark.parametrize(
    ("output", "status", "kind"),
    [
        ("Failed to load TfLite model. Buffer contents inconsistent", 139, "not_parsed"),
        ("", -11, "crash"),
        ("", -9, "out_of_memory"),
        ("", None, "timeout"),
        ("sh: 1: exec: /opt/vela: Permission denied", 126, "broken_install"),
        ("", 127, "broken_install"),
        ("", 0, "no_output"),
        ("vela: error: unrecognized arguments: --frobnicate", 2, "refused_option"),
        ("ethosu.vela.errors.ConfigOptionError: 'Error: Invalid configuration of arena_mem_area=X'", 1, "config"),
        ("Error: Reading input file 'own.ini': File not found", 1, "config"),
        ("ModuleNotFoundError: No module named 'numpy'", 1, "broken_install"),
        ("OSError: [Errno 28] No space left on device", 1, "disk_full"),
        ("Traceback (most recent call last):\n  File stats_writer.py\nKeyError: '0'", 1, "statistics"),
    ],
)
def test_classify_names_the_kind_of_failure(output: str, status: int | None, kind: str) -> None:
    assert classify(output, status) == kind


def _program(directory: Path, text: str) -> str:
    """A program in place of Vela that says its version and otherwise runs some Python."""
    path = directory / "vela"
    path.write_text(
        f"#!{sys.executable} -S\nimport os, subprocess, sys, time\n"
        f"if sys.argv[1:] == ['--version']:\n    print('5.2.0')\n    sys.exit()\n{text}\n"
    )
    path.chmod(0o755)
    return str(path)


def test_compile_stops_vela_with_its_children_when_it_hangs(tmp_path: Path) -> None:
    child = tmp_path / "child"
    text = (
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(child)!r}, 'w').write(str(child.pid))\nprint('begun', flush=True)\ntime.sleep(60)"
    )
    options = VelaOptions(compiler=_program(tmp_path, text), timeout_sec=5)
    with pytest.raises(
        CompileError, match="Vela did not end in time: .* was stopped. To do: raise timeout_sec"
    ) as raised:
        TARGET.compile(_dense(), "fail", options.to_json())
    assert raised.value.kind == "timeout"
    assert raised.value.log == "begun\n"
    for _ in range(300):
        if not Path(f"/proc/{child.read_text()}").exists():
            return
        time.sleep(0.1)
    pytest.fail("a child of Vela survived")


def test_compile_does_without_the_layers_when_vela_fails_at_its_statistics(tmp_path: Path) -> None:
    model = tmp_path / "compiled.tflite"
    net = Net()
    net.op("CUSTOM", [net.tensor(1, 8)], [net.tensor(1, 8)])
    net._model.operatorCodes[0].customCode = "ethos-u"
    model.write_bytes(net.tflite())
    text = (
        "if '--verbose-performance' in sys.argv:\n"
        "    print('Traceback (most recent call last):\\n  File stats_writer.py')\n    sys.exit(1)\n"
        f"open('out/model_vela.tflite', 'wb').write(open({str(model)!r}, 'rb').read())"
    )
    report = TARGET.compile(_dense(), "fail", VelaOptions(compiler=_program(tmp_path, text)).to_json()).report
    assert [attempt.outcome for attempt in report.attempts] == ["statistics", "compiled"]
    assert report.layers == ()
    assert report.latency is None
    assert report.subgraphs == 1
    assert "Vela wrote no summary" in report.problems


def test_compile_raises_when_vela_writes_something_that_is_no_model(tmp_path: Path) -> None:
    text = "open('out/model_vela.tflite', 'w').write('nonsense')"
    with pytest.raises(CompileError, match="ended without a compiled file") as raised:
        TARGET.compile(_dense(), "fail", VelaOptions(compiler=_program(tmp_path, text)).to_json())
    assert raised.value.attempts[0].exit_status == 0


def test_compile_says_so_before_it_compiles_when_the_directory_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = VelaOptions(compiler=_program(tmp_path, "")).to_json()
    with pytest.raises(CompileError, match=f"directory {tmp_path}/file/kept: files cannot be written there") as raised:
        TARGET.compile(_dense(), "fail", options, tmp_path / "file" / "kept")
    assert (raised.value.kind, raised.value.attempts) == ("unwritable", ())


def test_error_has_what_was_run_when_the_directory_is_gone_afterwards(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    text = f"print('said')\nos.rmdir({str(kept)!r})\nopen({str(kept)!r}, 'w')\nsys.exit(1)"
    with pytest.raises(CompileError, match="files cannot be written there") as raised:
        TARGET.compile(_dense(), "fail", VelaOptions(compiler=_program(tmp_path, text)).to_json(), kept)
    assert (raised.value.kind, raised.value.log) == ("unwritable", "said\n")
    assert [attempt.outcome for attempt in raised.value.attempts] == ["no_reason"]


def test_compile_says_so_when_vela_is_of_another_machine(tmp_path: Path) -> None:
    path = tmp_path / "vela"
    path.write_bytes(b"\x7fELF of another processor")
    path.chmod(0o755)
    with pytest.raises(
        CompileError, match=r"Vela is there but does not start \(.*Exec format error.*ethos-u-vela==5.2.0"
    ):
        TARGET.compile(_dense(), "analyze", VelaOptions(compiler=str(path)).to_json())


def test_compile_says_so_when_a_script_finds_no_vela_to_start(tmp_path: Path) -> None:
    path = tmp_path / "vela"
    path.write_text(f'#!/bin/sh\nexec {tmp_path}/removed "$@"\n')
    path.chmod(0o755)
    with pytest.raises(
        CompileError, match="does not start: .* exited with 127. To do: install ethos-u-vela 5.2.0 anew"
    ) as raised:
        TARGET.compile(_dense(), "fail", VelaOptions(compiler=str(path)).to_json())
    assert raised.value.kind == "broken_install"


def test_compile_says_how_to_get_vela_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(CompileError, match="there is no Vela; install it with `pip install") as raised:
        TARGET.compile(_dense(), "fail")
    assert raised.value.kind == "missing_compiler"
    assert TARGET.compiler_version() == ""


def test_vela_is_where_the_variable_says_when_the_options_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, _program(tmp_path, ""))
    assert TARGET.compiler_version() == "5.2.0"
    assert TARGET.compiler_version(VelaOptions(compiler=str(tmp_path / "none")).to_json()) == ""


def test_compiler_version_changes_with_the_content_of_a_configuration_file(tmp_path: Path) -> None:
    own = tmp_path / "own.ini"
    options = VelaOptions(
        compiler=_program(tmp_path, ""), config_file=str(own), system_config="Board", memory_mode="Mine"
    ).to_json()
    found = set()
    for content in ("[System_Config.Board]\n", "[System_Config.Board]\ncore_clock=1e6\n"):
        own.write_text(content)
        found.add(TARGET.compiler_version(options))
    assert len(found) == 2
    assert {version.split()[0] for version in found} == {"5.2.0"}


def _dense() -> bytes:
    return _converted(tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))]))


def _converted(model: tf_keras.Model) -> bytes:
    examples = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype(np.float32)
    return convert(model, representative_dataset=[examples], profile="ethos_u")


@pytest.mark.parametrize(
    ("layer", "shape", "accelerator", "rule"),
    [
        (
            tf_keras.layers.AveragePooling2D(9, padding="same"),
            (16, 16, 4),
            "ethos-u85-256",
            "at most 8 x 8. Got 9 x 9.",
        ),
        (tf_keras.layers.AveragePooling2D(9, 1), (16, 16, 4), "ethos-u55-256", ""),
        (tf_keras.layers.MaxPooling2D(4, padding="same"), (15, 15, 4), "ethos-u55-256", "strides are at most 3"),
        (tf_keras.layers.MaxPooling2D(4, padding="same"), (16, 16, 4), "ethos-u55-256", ""),
        (tf_keras.layers.MaxPooling2D(4, padding="same"), (15, 15, 4), "ethos-u85-256", ""),
        (tf_keras.layers.Conv2DTranspose(3, 4, strides=3), (4, 4, 4), "ethos-u55-256", "Got a stride of 3 x 3."),
        (tf_keras.layers.Conv2DTranspose(3, 4, strides=3), (4, 4, 4), "ethos-u85-256", ""),
        (tf_keras.layers.DepthwiseConv2D(4, strides=4), (16, 16, 4), "ethos-u65-256", "Got a stride of 4."),
        (tf_keras.layers.UpSampling2D(16, interpolation="nearest"), (2, 2, 4), "ethos-u55-256", "Got by 16 and 16."),
        (tf_keras.layers.UpSampling2D(16, interpolation="nearest"), (2, 2, 4), "ethos-u85-256", ""),
    ],
)
def test_inspect_refuses_what_vela_documents(
    layer: tf_keras.layers.Layer, shape: tuple[int, ...], accelerator: str, rule: str
) -> None:
    model = tf_keras.Sequential([tf_keras.layers.InputLayer(shape), layer])
    mapping = TARGET.inspect(_converted(model), accelerator_config=accelerator)
    assert mapping.on_cpu == bool(rule)
    assert all(rule in op.reason for op in mapping.ops if not op.on_target)
    assert all(0.5 < op.confidence <= 1.0 for op in mapping.ops)


def test_inspect_takes_less_than_two_seconds_for_a_whole_network(shared: Path) -> None:
    name = "posenet_mobilenet_v1_075_353_481_quant_decoder.tflite"
    tflite = (shared / "edgetpu" / "models" / name).read_bytes()
    started = time.process_time()
    assert TARGET.inspect(tflite).on_cpu == 1
    assert time.process_time() - started < 2.0
    assert os.path.getsize(shared / "edgetpu" / "models" / name) > 1_000_000


def _dynamic(*unknown: int) -> bytes:
    """A RELU as converters write it: 1 in the shape, -1 in its signature, where a size is unknown."""
    net = Net()
    tensors = [net.tensor(1, 1, 8, 4), net.tensor(1, 1, 8, 4)]
    for index in tensors:
        net._graph.tensors[index].shapeSignature = [-1 if i in unknown else n for i, n in enumerate((1, 1, 8, 4))]
    net.op("RELU", tensors[:1], tensors[1:])
    return net.tflite()


@pytest.mark.parametrize("target", ["ethos_u", "edge_tpu"])
def test_inspect_takes_an_unknown_batch_but_no_other_unknown_size(target: str) -> None:
    assert load_target(target).inspect(_dynamic()).on_target == 1
    assert load_target(target).inspect(_dynamic(0)).on_target == 1
    (op,) = load_target(target).inspect(_dynamic(1)).ops
    assert not op.on_target
    assert op.reason


@pytest.mark.parametrize(("is_constant", "on_npu"), [(True, 1), (False, 0)])
def test_scalars_are_taken_as_constants_alone(is_constant: bool, on_npu: int) -> None:
    net = Net()  # as Vela 5.2.0 does it
    operands = [net.tensor(1, 8), net.tensor(values=1 if is_constant else None)]
    net.op("MUL", operands, [net.tensor(1, 8)])
    assert TARGET.inspect(net.tflite()).on_target == on_npu
