"""Coral Edge TPU: its compiler's driver, and a static analysis by the documented rules where there is no compiler.

Rules: https://coral.ai/docs/edgetpu/models-intro/ and what compiled models in public show. Status strings are those of
edgetpu_compiler 16.0.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.profiles import load_profile
from components.quantization.schemes import QuantizationScheme
from components.targets import CompiledModel, CompileError, Mapping, OpMapping, analysis
from components.targets.edge_tpu import group
from components.targets.edge_tpu.driver import drive, output_names
from components.targets.edge_tpu.edits import edit
from components.targets.edge_tpu.failures import KINDS
from components.targets.edge_tpu.log import MAPPED
from components.targets.edge_tpu.options import COMPILER, CompilerOptions
from components.targets.edge_tpu.program import Program, find_program
from components.targets.edge_tpu.reporting import compiled_model

__all__ = ["COMPILER", "MAPPED", "TARGET", "CompilerOptions", "EdgeTpu"]

_LOGGER = logging.getLogger(__name__)

_MODEL = "model.tflite"
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

    def check(self, scheme: QuantizationScheme) -> None:
        """Checks the scheme by the profile of the same name."""
        load_profile(self.name).check(scheme)

    def require_options(self, options: str) -> str:
        """Reads `CompilerOptions`."""
        found = CompilerOptions.from_json(options)
        if found.num_segments > 1:
            raise ValueError("num_segments: makes several files, and a model is one; call compile_segments")
        return found.to_json()

    def compiler_version(self, options: str = "") -> str:
        """Returns version and sha256 of the compiler, or its container image, that the options name; "" without one."""
        program = find_program(CompilerOptions.from_json(options))
        return program.identity() if program else ""

    def compile(
        self, tflite: bytes, when_missing: str = "analyze", options: str = "", directory: Path | None = None
    ) -> CompiledModel:
        """Runs edgetpu_compiler, again or with a delegate search where that may help."""
        wanted = CompilerOptions.from_json(self.require_options(options))
        program = find_program(wanted)
        if program is None and when_missing == "analyze":
            _LOGGER.info("%s is not there: the model is analysed, not compiled", wanted.compiler)
            return CompiledModel(tflite=tflite, report=analysis(self.inspect(tflite), tflite, edit))
        predicted = self.inspect(tflite)
        outcome = drive(_present(program, wanted), wanted, {_MODEL: tflite}, directory)
        return compiled_model(outcome, 0, output_names({_MODEL: tflite})[0], tflite, predicted)

    def compile_group(
        self, members: Sequence[group.GroupMember], options: str = "", directory: Path | None = None
    ) -> group.CompiledGroup:
        """Compiles models together, so that their parameters share the Edge TPU's memory.

        The order decides who gets the memory: it is the one with the least traffic of parameters.

        Args:
          members: Two models or more.
          options: JSON of `CompilerOptions`, of which `budget_sec` is for each order.
          directory: Where to keep what the compiler wrote, in a folder for each order; None for nowhere.

        Raises:
          CompileError: If the compiler fails, or there is none.
          ValueError: If there are fewer than two models, or the options are none.
        """
        wanted = CompilerOptions.from_json(self.require_options(options))
        program = _present(find_program(wanted), wanted)
        predicted = {member.name: self.inspect(member.tflite) for member in members}
        tried: list[tuple[float, dict[str, CompiledModel]]] = []
        table: list[tuple[tuple[str, ...], float | None]] = []
        failure: CompileError | None = None
        for order in group.orders(members):
            files = {f"{member.name}.tflite": member.tflite for member in order}
            names = tuple(member.name for member in order)
            try:
                outcome = drive(program, wanted, files, directory / "-".join(names) if directory else None)
            except CompileError as error:
                table.append((names, None))
                failure = error
                continue
            compiled = {
                member.name: compiled_model(outcome, i, file_name, member.tflite, predicted[member.name])
                for i, (member, file_name) in enumerate(zip(order, output_names(files), strict=True))
            }
            bytes_per_second = group.traffic(compiled, order)
            table.append((names, bytes_per_second))
            tried.append((float("inf") if bytes_per_second is None else bytes_per_second, compiled))
        if not tried and failure is not None:
            raise failure
        least, models = min(tried, key=lambda one: one[0])
        return group.CompiledGroup(
            models=models,
            traffic_bytes_per_second=None if least == float("inf") else least,
            orders=tuple(table),
        )

    def compile_segments(self, tflite: bytes, options: str, directory: Path | None = None) -> group.CompiledGroup:
        """Compiles a model as several files, each for an Edge TPU of its own, in a pipeline.

        Args:
          tflite: An integer-only TFLite flatbuffer.
          options: JSON of `CompilerOptions`, with `num_segments`.
          directory: Where to keep what the compiler wrote; None for nowhere.

        Raises:
          CompileError: If the compiler fails, or there is none.
          ValueError: If the options are none, or of one segment.
        """
        wanted = CompilerOptions.from_json(options)
        if wanted.num_segments < 2:
            raise ValueError("num_segments: got 1, expected 2 or more; call compile for one file")
        outcome = drive(_present(find_program(wanted), wanted), wanted, {_MODEL: tflite}, directory)
        models = {}
        for i, file_name in enumerate(output_names({_MODEL: tflite}, wanted.num_segments)):
            part = outcome.run.files.get(file_name.replace("_edgetpu", ""), outcome.run.files[file_name])
            name = file_name.removesuffix("_edgetpu.tflite")
            models[name] = compiled_model(outcome, i, file_name, part, self.inspect(part))
        return group.CompiledGroup(models=models)


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


def _present(program: Program | None, options: CompilerOptions) -> Program:
    if program is None:
        name = options.container_runtime if options.image else options.compiler
        kind = KINDS["missing_compiler"]
        raise CompileError(f"{name} is not on PATH: {kind.sentence}; {kind.fix}", kind="missing_compiler")
    return program
