"""Coral Edge TPU: its compiler's driver, and a static analysis by the documented rules where there is no compiler.

Rules: https://coral.ai/docs/edgetpu/models-intro/ and what compiled models in public show. Status strings are those of
edgetpu_compiler 16.0.
"""

import hashlib
import logging
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from components.quantization.conversion import flatbuffer
from components.quantization.process_group import process_group
from components.targets import CompiledModel, CompileError, CompileReport, Mapping, OpCount, OpMapping, analysis

_LOGGER = logging.getLogger(__name__)

COMPILER = "edgetpu_compiler"
_TIMEOUT_S = 600
_CUSTOM_OP = b"edgetpu-custom-op"

MAPPED = "Mapped to Edge TPU"
_MORE_THAN_ONE_SUBGRAPH = "More than one subgraph is not supported"
_UNSPECIFIED = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
_DATA_TYPE = "Operation is working on an unsupported data type"
_NOT_SUPPORTED = "Operation not supported"
_VERSION = "Operation version not supported"
_RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
# The compiler's odd word for a split of the batch dimension.
_BATCH_SPLIT = "For example, a fully-connected or softmax layer with 2D output"

# https://coral.ai/docs/edgetpu/models-intro/#supported-operations
_SUPPORTED = frozenset(
    [
        "ADD",
        "AVERAGE_POOL_2D",
        "CONCATENATION",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "EXPAND_DIMS",
        "FULLY_CONNECTED",
        "L2_NORMALIZATION",
        "LOGISTIC",
        "MAXIMUM",
        "MAX_POOL_2D",
        "MEAN",
        "MINIMUM",
        "MUL",
        "PACK",
        "PAD",
        "PADV2",
        "PRELU",
        "QUANTIZE",
        "REDUCE_MAX",
        "REDUCE_MIN",
        "RELU",
        "RELU6",
        "RELU_N1_TO_1",
        "RESHAPE",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "RSQRT",
        "SLICE",
        "SOFTMAX",
        "SPACE_TO_DEPTH",
        "SPLIT",
        "SQUARED_DIFFERENCE",
        "SQUEEZE",
        "STRIDED_SLICE",
        "SUB",
        "SUM",
        "TANH",
        "TRANSPOSE",
        "TRANSPOSE_CONV",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
    ]
)
# The highest op versions of TensorFlow 2.6, when compiler 16.0 was built:
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/compiler/mlir/lite/tools/versioning/runtime_version.cc
_HIGHEST_VERSION = {
    "CONV_2D": 5,
    "DEPTHWISE_CONV_2D": 6,
    "FULLY_CONNECTED": 9,
    "TRANSPOSE_CONV": 3,
    "QUANTIZE": 2,
    "ADD": 4,
    "MUL": 5,
    "TRANSPOSE": 5,
    "STRIDED_SLICE": 6,
    "SLICE": 5,
    "CONCATENATION": 3,
    "PAD": 4,
    "PACK": 3,
    "RSQRT": 2,
}
_DATA_DTYPES = frozenset({"INT8", "UINT8"})
_LARGEST_TRANSPOSE = 57_600  # elements: the largest seen mapped in compiled models in public
_HIGHEST_RANK_OF_RESHAPES = 4


class EdgeTpu:
    """The Edge TPU and edgetpu_compiler."""

    name = "edge_tpu"

    def inspect(self, tflite: bytes) -> Mapping:
        """Predicts the compiler's mapping: each op by the rules, then the one part that the compiler keeps."""
        graph = flatbuffer.read_subgraphs(tflite)[0]
        reasons = [_reason_for_cpu(op, graph) for op in graph.ops]
        kept = _first_supported_part(graph, [reason is None for reason in reasons])
        ops = []
        for op, reason in zip(graph.ops, reasons, strict=True):
            on_target = op.index in kept
            ops.append(
                OpMapping(
                    index=op.index,
                    op=op.name,
                    on_target=on_target,
                    status=MAPPED if on_target else reason or _MORE_THAN_ONE_SUBGRAPH,
                )
            )
        return Mapping(target=self.name, ops=tuple(ops))

    def compiler_version(self) -> str:
        """Returns the sha256 of the edgetpu_compiler on PATH, empty without one."""
        compiler = shutil.which(COMPILER)
        return hashlib.sha256(Path(compiler).read_bytes()).hexdigest() if compiler else ""

    def compile(self, tflite: bytes, when_missing: str = "analyze") -> CompiledModel:
        """Runs edgetpu_compiler from PATH."""
        compiler = shutil.which(COMPILER)
        if compiler is None:
            if when_missing == "fail":
                raise CompileError(
                    f"{COMPILER} is not on PATH; install it (https://coral.ai/docs/edgetpu/compiler/, x86-64 Linux) or"
                    ' set when_missing="analyze"'
                )
            _LOGGER.info("%s is not on PATH: the model is analysed, not compiled", COMPILER)
            return CompiledModel(tflite=tflite, report=analysis(self.inspect(tflite)))
        with tempfile.TemporaryDirectory(prefix="tfx-qat-") as directory:
            return _run_compiler(compiler, tflite, Path(directory))


TARGET = EdgeTpu()


def _reason_for_cpu(op: flatbuffer.Op, graph: flatbuffer.Subgraph) -> str | None:
    """Returns the status of an op that cannot run on the Edge TPU, None if it can."""
    data = [graph.tensors[i] for i in (*op.inputs, *op.outputs) if graph.tensors[i].constant is None]
    if any(tensor.dtype not in _DATA_DTYPES for tensor in data):
        return _UNSPECIFIED if op.code == "QUANTIZE" else _DATA_TYPE
    if op.code not in _SUPPORTED:
        return _NOT_SUPPORTED
    if op.version > _HIGHEST_VERSION.get(op.code, op.version):
        return _VERSION
    if any(_outer_dimensions(tensor.shape) for tensor in data):
        return _RANK
    if op.code in ("RESHAPE", "TRANSPOSE") and any(len(t.shape) > _HIGHEST_RANK_OF_RESHAPES for t in data):
        return _RANK
    if op.code == "SPLIT" and _splits_batch(op, graph):
        return _BATCH_SPLIT
    if op.code == "TRANSPOSE" and _elements(graph.tensors[op.outputs[0]].shape) > _LARGEST_TRANSPOSE:
        return _UNSPECIFIED
    return None


def _outer_dimensions(shape: tuple[int, ...]) -> bool:
    """Whether a dimension outside the three innermost is above 1."""
    return any(size > 1 for size in shape[:-3])


def _elements(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _splits_batch(op: flatbuffer.Op, graph: flatbuffer.Subgraph) -> bool:
    axis = graph.tensors[op.inputs[0]].values
    rank = len(graph.tensors[op.inputs[-1]].shape)
    return axis is not None and int(axis.item()) % rank == 0


def _first_supported_part(graph: flatbuffer.Subgraph, supported: list[bool]) -> frozenset[int]:
    """Returns the ops of the first supported part, as TFLite's delegate partitioner cuts the graph.

    It grows parts of one kind in turn, each by all ops whose inputs are known; the compiler keeps the first that is
    supported.
    https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/graph_info.cc
    """
    made = {i: op.index for op in graph.ops for i in op.outputs}
    done: set[int] = set()
    while len(done) < len(graph.ops):
        part: set[int] = set()
        kind: bool | None = None
        grown = True
        while grown:
            grown = False
            for op in graph.ops:
                if op.index in done or op.index in part or (kind is not None and supported[op.index] != kind):
                    continue
                if all(i not in made or made[i] in done or made[i] in part for i in op.inputs):
                    kind = supported[op.index]
                    part.add(op.index)
                    grown = True
        if kind:
            return frozenset(part)
        done |= part
    return frozenset()


def _run_compiler(compiler: str, tflite: bytes, directory: Path) -> CompiledModel:
    (directory / "model.tflite").write_bytes(tflite)
    command = [compiler, "--show_operations", "--out_dir", str(directory), str(directory / "model.tflite")]
    try:
        with process_group(command, stderr=subprocess.STDOUT) as process:  # the compiler forks
            log, _ = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise CompileError(f"{' '.join(command)} did not end within {_TIMEOUT_S} s and was stopped") from error
    output = directory / "model_edgetpu.tflite"
    # Its success message is no proof: it is printed for models of which nothing was mapped.
    compiled = output.read_bytes() if output.exists() else b""
    if process.returncode != 0 or _CUSTOM_OP not in compiled:
        what = "with a compiled op" if _CUSTOM_OP in compiled else "without a compiled op"
        last = "\n".join(log.strip().splitlines()[-10:])
        raise CompileError(f"{' '.join(command)} exited with {process.returncode}, {what}; it said:\n{last}")
    version = re.search(r"Edge TPU Compiler version (\S+)", log)
    tool = f"{COMPILER} {version.group(1) if version else 'of unknown version'}"
    report = CompileReport(target=EdgeTpu.name, compiled=True, tool=tool, ops=parse_operations(log), log=log)
    return CompiledModel(tflite=compiled, report=report)


def parse_operations(log: str) -> tuple[OpCount, ...]:
    """Returns the rows of the operation table in the compiler's output or log file."""
    rows = re.findall(r"^[ \t]*([A-Z][A-Z0-9_]*)[ ]+(\d+)[ ]+(\S.*?)\s*$", log, re.MULTILINE)
    return tuple(OpCount(op=op, count=int(n), on_target=status == MAPPED, status=status) for op, n, status in rows)
