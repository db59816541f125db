"""Target tflm: kernels, arena, and the source that a program is built of."""

import shutil
import subprocess
from pathlib import Path

import pytest

from components.quantization.conversion import flatbuffer
from components.targets import load_target
from components.targets.tflm import OPS_HEADER, TARGET, arena
from components.targets.tflm.c_array import c_array
from components.targets.tflm.resolver import CALLS

from edge_tpu_graphs import Net, chain, loop, unary

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def _dense(scales: int) -> bytes:
    net = Net()
    source, result = net.tensor(1, 8), net.tensor(1, 4)
    weights = net.tensor(4, 8, values=1, scales=scales)
    net.op("FULLY_CONNECTED", [source, weights, net.tensor(4, dtype="INT32", values=0)], [result], 4)
    return net.tflite()


def test_status_is_the_call_that_registers_the_op() -> None:
    mapping = TARGET.inspect(chain("RELU", "GELU", "PADV2"))
    assert [(op.on_target, op.status) for op in mapping.ops][:2] == [
        (True, "AddRelu"),
        (False, "Didn't find op for builtin opcode"),
    ]
    assert len(set(CALLS.values())) == len(CALLS)


def test_dense_is_refused_when_its_weights_have_a_scale_per_channel() -> None:
    assert TARGET.inspect(_dense(1)).on_target == 1
    (op,) = TARGET.inspect(_dense(4)).ops
    assert (op.on_target, op.reason) == (False, "Weights of a FULLY_CONNECTED have one scale. Got 4 scales.")


def test_unsigned_data_are_refused_but_by_quantize() -> None:
    (op,) = TARGET.inspect(unary("RELU", 1, 8, dtype="UINT8")).ops
    assert (op.on_target, op.status) == (False, "Input type not supported")
    assert TARGET.inspect(unary("QUANTIZE", 1, 8, dtype="UINT8")).on_target == 1


@pytest.mark.parametrize(
    ("code", "data", "weights", "supported"),
    [
        ("FULLY_CONNECTED", "FLOAT32", "INT8", False),
        ("TRANSPOSE_CONV", "FLOAT32", "INT8", False),
        ("FULLY_CONNECTED", "INT8", "INT16", False),
        ("FULLY_CONNECTED", "FLOAT32", "FLOAT32", True),
        ("CONV_2D", "INT8", "INT8", True),
        ("DEPTHWISE_CONV_2D", "INT16", "INT8", True),
    ],
)
def test_hybrid_models_are_refused(code: str, data: str, weights: str, supported: bool) -> None:
    net = Net()
    source, result = net.tensor(1, 8, 8, 4, dtype=data), net.tensor(1, 8, 8, 4, dtype=data)
    operands = [source, net.tensor(4, 1, 1, 4, dtype=weights, values=1)]
    if code == "TRANSPOSE_CONV":
        operands = [net.tensor(4, dtype="INT32", values=[1, 8, 8, 4]), operands[1], source]
    net.op(code, operands, [result])
    (op,) = TARGET.inspect(net.tflite()).ops
    status = "Hybrid models are not supported on TFLite Micro"
    assert (op.on_target, op.status == status) == (supported, not supported)


def test_loop_is_refused_when_its_body_has_an_op_without_kernel() -> None:
    assert TARGET.inspect(loop("RELU")).on_target == 2
    mapping = TARGET.inspect(loop("RELU", "GELU"))
    assert [op.on_target for op in mapping.ops] == [True, False]
    assert mapping.ops[1].reason.endswith("Got GELU: Didn't find op for builtin opcode.")


def test_arena_is_unknown_when_an_op_runs_other_subgraphs() -> None:
    tflite = loop()
    report = TARGET.report(tflite, TARGET.inspect(tflite))
    assert report.memory.arena_bytes is None
    assert "WHILE" in report.problems[0]


def test_arena_holds_what_lives_at_the_same_time() -> None:
    # 8 bytes, aligned to 16: input and output of each op, and no more.
    graph = flatbuffer.read_subgraphs(chain("RELU", "RELU", "RELU"))[0]
    found = arena.estimate(graph)
    assert found is not None
    assert found.activation_bytes == 2 * 16
    # Two of 100 bytes are never there together; the one of 50 fits behind.
    assert arena.plan([(100, 0, 1), (50, 1, 2), (100, 2, 3)]) == 112 + 64
    assert arena.plan([]) == 0


def test_arena_is_unknown_when_a_size_is() -> None:
    net = Net()
    net.op("RELU", [net.tensor(-1, 8)], [net.tensor(-1, 8)])
    tflite = net.tflite()
    assert TARGET.report(tflite, TARGET.inspect(tflite)).memory.arena_bytes is None


@pytest.mark.parametrize(
    ("name", "activations", "total"),
    [
        # What tflite_micro 0.dev20261023182759 reports of its arena (RecordingMicroAllocator): head, and total.
        ("models/mlperf_tiny/kws_ref_model.tflite", 16_000, 24_272),
        ("models/mlperf_tiny/pretrainedResnet_quant.tflite", 49_152, 55_984),
        ("edgetpu/models/keras_lstm_mnist_ptq.tflite", 1_568, 4_480),
    ],
)
def test_arena_is_that_of_tflite_micro(name: str, activations: int, total: int, shared: Path) -> None:
    tflite = (shared / name).read_bytes()
    report = load_target("tflm").compile(tflite).report
    assert report.measurements["activation_bytes"] == activations
    assert report.memory.arena_bytes == pytest.approx(total, rel=0.01)
    assert report.memory.basis.startswith("estimate: ")
    assert not report.compiled


def test_compile_writes_source_with_the_bytes_of_the_model(tmp_path: Path) -> None:
    tflite = chain("RELU", "LOGISTIC", "RELU")
    model = TARGET.compile(tflite, options='{"array_name": "net"}', directory=tmp_path / "kept")
    assert model.tflite == tflite
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"model.h", "model.cc", OPS_HEADER}
    header = (tmp_path / "kept" / OPS_HEADER).read_text()
    assert "tflite::MicroMutableOpResolver<2>" in header
    assert [line.split("(")[1] for line in header.splitlines() if "resolver.Add" in line] == [
        "resolver.AddLogistic",
        "resolver.AddRelu",
    ]


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
def test_source_compiles_to_the_bytes_of_the_model(tmp_path: Path) -> None:
    tflite = chain(*["RELU"] * 20)
    for name, content in c_array(tflite, "g_model").items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "main.cc").write_text(
        '#include <cstdint>\n#include <cstdio>\n#include "model.h"\nint main() {\n'
        "  std::fwrite(g_model, 1, g_model_size, stdout);\n"
        "  return reinterpret_cast<std::uintptr_t>(g_model) % 16 != 0;\n}\n"
    )
    sources = [str(tmp_path / name) for name in ("main.cc", "model.cc")]
    flags = ["-std=c++11", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([str(COMPILER), *flags, "-o", str(tmp_path / "main"), *sources], check=True)
    assert subprocess.run([str(tmp_path / "main")], check=True, capture_output=True).stdout == tflite


@pytest.mark.parametrize("name", ["2net", "a b", "", "x;", "ä", "int", "std"])
def test_options_are_refused_when_the_name_is_no_identifier(name: str) -> None:
    with pytest.raises(ValueError, match="array_name"):
        TARGET.require_options(f'{{"array_name": "{name}"}}')


def test_resolver_names_an_op_without_kernel_in_a_comment(tmp_path: Path) -> None:
    TARGET.compile(chain("GELU"), directory=tmp_path)
    assert "// No kernel of TFLite Micro: GELU\n" in (tmp_path / OPS_HEADER).read_text()
