"""Predicts where every op of a model would run, and what the compiler would say of it, without the compiler."""

from collections.abc import Iterable, Sequence

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.op_versions import is_known
from components.targets import Mapping, OpMapping
from components.targets._operation import Operation, read_operations
from components.targets._partition import supported_parts
from components.targets.edge_tpu import generations, statuses
from components.targets.edge_tpu.generations import Generation
from components.targets.edge_tpu.limits import LIMITS, Limit
from components.targets.edge_tpu.rules import CERTAIN, DOCUMENTED, Decision, decide

NAME = "edge_tpu"
# Float ops that compilers before 16 take at the edges of a quantized model.
_FLOAT_EDGES = frozenset({"QUANTIZE", "DEQUANTIZE", "CUSTOM"})


def predict(
    tflite: bytes,
    *,
    compiler_version: str = "16.0",
    min_runtime_version: int | None = None,
    multiple_subgraphs: bool = False,
    limits: Iterable[Limit] = LIMITS,
) -> Mapping:
    """Predicts the compiler's mapping of the main subgraph.

    Each op is judged by itself (`rules`), then the compiler keeps the first part of supported ops. An op that fails by
    itself has its own status even where it stands behind the cut, as in the compiler's logs.

    Args:
      tflite: A TFLite flatbuffer.
      compiler_version: That of edgetpu_compiler, for example "16.0" or "2.1.302470888".
      min_runtime_version: The oldest runtime to support, as the compiler's option; None for the compiler's newest.
      multiple_subgraphs: Whether the compiler's `--enable_multiple_subgraphs` is set.
      limits: The limits of sizes.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer, or a version is none.
    """
    generation = Generation.of(compiler_version, min_runtime_version)
    graph = flatbuffer.read_subgraphs(tflite)[0]
    operations = read_operations(tflite, graph, Operation)
    refused = _of_refused_model(operations, generation)
    if refused is not None:
        return refused
    decisions = [decide(operation, generation, limits) for operation in operations]
    parts = supported_parts(graph, [decision.supported for decision in decisions])
    # Unsupported ops at the start run on the CPU before the first part.
    kept = frozenset().union(*(parts if multiple_subgraphs else parts[:1]))
    confidences = _confidences(graph, decisions, kept)
    cuts = _cuts(graph, decisions, kept)
    ops = []
    for op, decision in zip(graph.ops, decisions, strict=True):
        status, reason = decision.status, decision.reason
        if decision.supported and op.index not in kept:
            status, reason = statuses.MORE_THAN_ONE_SUBGRAPH, _behind(graph, cuts[op.index])
        ops.append(
            OpMapping(
                index=op.index,
                op=op.name,
                on_target=op.index in kept,
                status=status,
                reason=reason,
                confidence=confidences[op.index],
            )
        )
    return Mapping(target=NAME, ops=tuple(ops))


def _behind(graph: flatbuffer.Subgraph, cut: int | None) -> str:
    rule = "The compiler keeps the first part of the graph that it can map: what waits for the CPU stays on the CPU."
    return rule if cut is None else f"{rule} Got op {cut}, {graph.ops[cut].name}, before it."


def _before(graph: flatbuffer.Subgraph) -> list[list[int]]:
    """By op, the ops in front of it in the file that compute its operands."""
    makers = {tensor: op.index for op in graph.ops for tensor in op.outputs}
    return [[i for tensor in op.inputs if (i := makers.get(tensor, op.index)) < op.index] for op in graph.ops]


def _cuts(graph: flatbuffer.Subgraph, decisions: Sequence[Decision], kept: frozenset[int]) -> list[int | None]:
    """By op outside the kept part, the op that fails by itself and that it waits for, or that it is."""
    found: list[int | None] = []
    for index, before in enumerate(_before(graph)):
        causes = [found[i] for i in before if i not in kept and found[i] is not None]
        found.append(next(iter(causes), None) if decisions[index].supported else index)
    return found


def _confidences(graph: flatbuffer.Subgraph, decisions: Sequence[Decision], kept: frozenset[int]) -> list[float]:
    """How sure each op's place is: in the kept part as sure as all before it, behind it as what cut it off."""
    found: list[float] = []
    for index, (decision, before) in enumerate(zip(decisions, _before(graph), strict=True)):
        if not decision.supported:
            found.append(decision.confidence)
        elif index in kept:
            found.append(min([decision.confidence, *(found[i] for i in before)]))
        else:
            found.append(max((found[i] for i in before if i not in kept), default=decision.confidence))
    return found


def _first_float_op(operations: Iterable[Operation]) -> Operation | None:
    """The first op that computes with floats inside the model, not at its edges."""
    return next(
        (
            operation
            for operation in operations
            if operation.code not in _FLOAT_EDGES and any(tensor.dtype == "FLOAT32" for tensor in operation.data)
        ),
        None,
    )


def _of_refused_model(operations: Sequence[Operation], generation: Generation) -> Mapping | None:
    """The mapping of a model that the compiler does not take at all; None of others."""
    unreadable = next((o for o in operations if not is_known(o.code, o.op.version, generation.tensorflow)), None)
    if unreadable is not None:
        major, minor, _ = generation.tensorflow
        rule = f"The compiler reads ops as TensorFlow {major}.{minor} has them, not newer ones."
        got = f"version {unreadable.op.version} of op {unreadable.op.index}, {unreadable.op.name}"
        return _refused(operations, unreadable, statuses.NOT_PARSED, f"{rule} Got {got}.")
    float_op = _first_float_op(operations)
    if float_op is not None and generation.compiler < generations.FIRST_COMPILER_OF_FLOAT_PARTS:
        rule = "A compiler before 16 takes no model that computes in floats between its edges."
        got = f"op {float_op.op.index}, {float_op.op.name}"
        return _refused(operations, float_op, statuses.NOT_QUANTIZED, f"{rule} Got {got}.")
    return None


def _refused(operations: Iterable[Operation], culprit: Operation, status: str, reason: str) -> Mapping:
    """A model that the compiler does not take, for the reason of one op; the others wait for it."""
    ops = tuple(
        OpMapping(
            index=operation.op.index,
            op=operation.op.name,
            on_target=False,
            status=status,
            reason=reason if operation is culprit else "",
            confidence=CERTAIN if operation is culprit else DOCUMENTED,
        )
        for operation in operations
    )
    return Mapping(target=NAME, ops=ops)
