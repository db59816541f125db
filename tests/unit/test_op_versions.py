"""What op versions demand of a runtime."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from components.quantization.conversion import op_versions
from components.quantization.conversion.op_runtimes import RUNTIMES
from components.quantization.conversion.profiles import ConversionProfile, load_profile


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


# The TensorFlow that was released next after each compiler, as 2.6.0 was after the last one, version 16.
_RELEASED_NEXT = {"1.0": (1, 15, 0), "2.0": (2, 1, 0), "2.1": (2, 2, 0), "14.1": (2, 4, 0), "15.0": (2, 4, 0)}
_RELEASED_NEXT |= {"16.0": (2, 6, 0)}
_CUSTOM = {"PosenetDecoderOp", "TFLite_Detection_PostProcess"}  # by their own names


def _compiler(version: str) -> ConversionProfile:
    """The Edge TPU with the ceiling of a compiler, for example "16.0.384591198"; the last one's if it is not known."""
    ceiling = _RELEASED_NEXT[".".join(version.split(".")[:2])] if version else (2, 6, 0)
    return dataclasses.replace(load_profile("edge_tpu"), max_runtime=ceiling)


def test_ceiling_of_the_edge_tpu_is_that_of_the_last_compiler() -> None:
    assert load_profile("edge_tpu") == _compiler("16.0.384591198")


def test_ceiling_refuses_no_model_that_an_edge_tpu_compiler_parsed(shared: Path) -> None:
    oracle = json.loads((shared / "edgetpu" / "oracle.json").read_text())
    refused = {
        (model["id"], op["op"], op["ver"])
        for model in (*oracle["pairs"], *oracle["log_only"])
        for op in model["ops"]
        if op["op"] not in _CUSTOM
        and _compiler(model.get("compiler_version") or "").version_problem(op["op"], op["ver"]) is not None
    }
    assert len(oracle["pairs"]) == 243
    assert refused == set()


def test_ceiling_refuses_what_an_edge_tpu_compiler_could_not_parse(shared: Path) -> None:
    failures = json.loads((shared / "edgetpu" / "logs" / "failures" / "failures.json").read_text())["entries"]
    failed = {
        (entry["version"], code, int(version))
        for entry in failures
        for code, version in re.findall(r"builtin opcode '(\w+)' version '(\d+)'", entry["text"])
    } | {
        (compiler, code, int(version))
        for entry in failures
        for code, version, compiler in re.findall(r"([A-Z][A-Z0-9_]+) v(\d+) on ([\d.]+)", entry["source"])
    }
    assert failed == {
        ("2.1.302470888", "RESIZE_NEAREST_NEIGHBOR", 3),
        ("15.0", "REVERSE_V2", 3),
        ("2.0", "RESIZE_BILINEAR", 3),
    }
    for compiler, code, version in failed:
        assert _compiler(compiler).version_problem(code, version) is not None
