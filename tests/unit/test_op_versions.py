"""What op versions demand of a runtime."""

import json
from pathlib import Path

import pytest

from components.quantization.conversion import op_versions
from components.quantization.conversion.op_runtimes import RUNTIMES
from components.quantization.conversion.profiles import load_profile


@pytest.mark.parametrize(
    ("code", "version", "runtime"),
    [
        ("CONV_2D", 3, (1, 14, 0)),
        ("CONV_2D", 6, (2, 9, 0)),
        ("DEPTHWISE_CONV_2D", 7, (2, 11, 0)),
        ("FULLY_CONNECTED", 9, (2, 3, 0)),
        ("FULLY_CONNECTED", 12, (2, 17, 0)),
        ("TRANSPOSE_CONV", 4, (2, 13, 0)),
        ("QUANTIZE", 3, (2, 7, 0)),
        ("EXP", 2, (2, 12, 0)),
        ("BROADCAST_TO", 2, (2, 5, 0)),
        ("TRANSPOSE", 7, (2, 14, 4)),
        ("STABLEHLO_CASE", 1, (2, 17, 0)),
    ],
)
def test_minimum_runtime_is_that_of_tensorflows_table(code: str, version: int, runtime: tuple[int, int, int]) -> None:
    assert op_versions.minimum_runtime(code, version) == runtime


@pytest.mark.parametrize(("code", "version"), [("BROADCAST_TO", 1), ("CONV_2D", 9), ("NO_SUCH_OP", 1), ("CUSTOM", 1)])
def test_minimum_runtime_is_none_when_the_table_has_no_such_pair(code: str, version: int) -> None:
    assert op_versions.minimum_runtime(code, version) is None


def test_later_versions_need_no_older_runtimes() -> None:
    for (code, version), runtime in RUNTIMES.items():
        assert RUNTIMES.get((code, version - 1), (0, 0, 0)) <= runtime, (code, version)


def test_minimum_runtime_of_all_is_the_newest_by_number() -> None:
    assert op_versions.minimum_runtime_of_all([("GELU", 1), ("UNSORTED_SEGMENT_SUM", 1)]) == "2.10.0"
    assert op_versions.minimum_runtime_of_all([("CUSTOM", 1)]) == ""


@pytest.mark.parametrize(
    ("code", "version", "reason", "fix"),
    [
        ("CONV_2D", 6, "is a grouped convolution, known since TensorFlow 2.9.0", "one CONV_2D per group"),
        ("CONV_2D", 7, "is a convolution with 4-bit weights, known since TensorFlow 2.11.0", "8-bit weights"),
        ("TRANSPOSE_CONV", 4, "with a fused activation, known since TensorFlow 2.13.0", "an op of its own"),
        ("QUANTIZE", 3, "with a scale per channel, computed when the model runs", "full_int8_per_tensor"),
        ("DEQUANTIZE", 5, "with a scale per channel, known since TensorFlow 2.7.0", "integer scheme"),
        ("EXP", 2, "is an integer exponential, known since TensorFlow 2.12.0", "replace exp in the model"),
        ("GELU", 2, "is an integer GELU, known since TensorFlow 2.9.0", "replace GELU in the model"),
        ("RELU_0_TO_1", 1, "is a clip to", "relu6"),
        ("ATAN2", 1, "is an op of its own, known since TensorFlow 2.10.0", "replace ATAN2"),
        ("RELU", 9, "newer than the TensorFlows known here", "replace what becomes RELU"),
    ],
)
def test_version_problem_names_op_cause_ceiling_and_fix_when_above_it(
    code: str, version: int, reason: str, fix: str
) -> None:
    problem = load_profile("edge_tpu").version_problem(code, version)
    assert problem is not None
    assert problem.reason.startswith(f"{code} version {version} is ")
    assert problem.reason.endswith("target 'edge_tpu' knows ops up to TensorFlow 2.6.0")
    assert reason in problem.reason
    assert fix in problem.fix


@pytest.mark.parametrize(
    ("code", "version"), [("CONV_2D", 5), ("RELU", 2), ("QUANTIZE", 2), ("TRANSPOSE_CONV", 3), ("CUSTOM", 1)]
)
def test_version_problem_is_none_when_the_device_knows_the_op(code: str, version: int) -> None:
    assert load_profile("edge_tpu").version_problem(code, version) is None


@pytest.mark.parametrize("profile", ["cpu", "nnapi", "tflm", "a311d", "ethos_u"])
def test_version_problem_is_none_when_the_profile_has_no_ceiling(profile: str) -> None:
    assert load_profile(profile).version_problem("CONV_2D", 99) is None


def test_ceiling_refuses_nothing_that_the_edge_tpu_compiler_parsed(shared: Path) -> None:
    profile = load_profile("edge_tpu")
    evidence = json.loads((shared / "edgetpu" / "evidence.json").read_text())
    parsed = {
        (op, version) for op, of in evidence.items() for version in (*of["versions_tpu"], *of["versions_cpu"])
    } - {("PosenetDecoderOp", 1), ("TFLite_Detection_PostProcess", 1)}  # custom ops, by their own names
    assert ("RESIZE_NEAREST_NEIGHBOR", 3) in parsed
    assert [pair for pair in sorted(parsed) if profile.version_problem(*pair)] == []
