"""The Edge TPU predictor against compiled models in public: `python -m infra.bench.edge_tpu_predictor`.

Ground truth is beside the repository: models before and after edgetpu_compiler, and its logs. Counted are models whose
ops are all placed as the compiler placed them, ops, rows of the logs (operator, count and status), and models whose
parameter memory is within 2 %. All but the memory twice: with the limits of sizes as in `limits`, and cross-validated,
each family of models with limits derived from the other families alone: the middle, in ratio, between the largest size
that these show to be mapped and the smallest refused; no limit if they show none refused. The rules without numbers are
not derived again: they are the documents' or hold for all families.
"""

import collections
import dataclasses
import gzip
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from components.quantization.conversion import flatbuffer
from components.targets._operation import Operation, read_operations
from components.targets.edge_tpu import mapping, statuses
from components.targets.edge_tpu.generations import Generation
from components.targets.edge_tpu.limits import LIMITS, Limit
from components.targets.edge_tpu.parameter_memory import parameter_memory
from components.targets.edge_tpu.rules import decide
from infra.bench import results, shared_data

_TOLERANCE = 0.02
_WITH_MEMORY = ("14.1", "16.0")
_UNSURE = 0.5
_SCORES = ("shipped", "cross_validated")
_DEFAULT_COMPILER = "16.0"
# Constants of more bytes are zeroed in the models here.
_KEPT_BYTES = 1024


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A model and what the compiler did with it.

    Attributes:
      entry: Its entry in oracle.json.
      tflite: The model, its large weights zeroed, its large biases 1, 2, 3 and so on.
      rows: The rows of its log: operator, count and status; empty without one.
    """

    entry: dict[str, Any]
    tflite: bytes
    rows: tuple[tuple[str, int, str], ...]

    @property
    def family(self) -> str:
        """Models of one family have one structure, whatever their sizes."""
        return str(self.entry.get("family") or self.entry["repo"])

    @property
    def is_pair(self) -> bool:
        """Whether the compiled file is known, not only the log."""
        return "cpu_indices" in self.entry

    @property
    def options(self) -> dict[str, Any]:
        """How it was compiled."""
        # Of models without a compiled file it is not recorded: those here have several subgraphs, or all ops mapped.
        several = self.entry.get("multiple_subgraphs", True)
        return {
            "compiler_version": self.entry.get("compiler_version") or _DEFAULT_COMPILER,
            "multiple_subgraphs": several,
        }


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What came out as the compiler has it, of how many."""

    pairs: tuple[int, int]
    ops: tuple[int, int]
    status_rows: tuple[int, int]


@click.command()
@shared_data.shared_option
def main(shared: Path) -> None:
    """Compares predictions with what the compiler did, into build/bench/edge_tpu_predictor.json."""
    shared_data.require_there(shared, ["edgetpu/oracle.json"])
    found = measure(read_cases(shared / "edgetpu"))
    path = results.write_result("edge_tpu_predictor", found)
    header = ("", "pairs exact", "ops exact", "status rows exact")
    lines = [(name, *(_share(*found[name][key]) for key in ("pairs", "ops", "status_rows"))) for name in _SCORES]
    click.echo(results.markdown_table(header, lines))
    click.echo(f"parameter memory within {_TOLERANCE:.0%}: {json.dumps(found['parameter_memory'])}\n{path}")


def measure(cases: Sequence[Case]) -> dict[str, Any]:
    """Returns all figures, as JSON can hold them."""
    points = list(evidence(cases))
    families = sorted({case.family for case in cases})
    held_out = [
        score([case for case in cases if case.family == family], derived(points, family)) for family in families
    ]
    return {
        "families": len(families),
        "shipped": dataclasses.asdict(score(cases, LIMITS)),
        "cross_validated": dataclasses.asdict(_sum(held_out)),
        "wrong_families": [
            family
            for family, of in zip(families, held_out, strict=True)
            if of.ops[0] < of.ops[1] or of.status_rows[0] < of.status_rows[1]
        ],
        "parameter_memory": memory(cases),
    }


def read_cases(folder: Path) -> list[Case]:
    """Reads the models and logs of a folder with an oracle.json."""
    oracle = json.loads((folder / "oracle.json").read_text())
    return [
        Case(
            entry=entry,
            tflite=_with_biases(gzip.decompress((folder / entry["skeleton"]).read_bytes())),
            rows=_rows(folder / "logs", entry),
        )
        for entry in (*oracle["pairs"], *oracle["log_only"])
    ]


def _with_biases(skeleton: bytes) -> bytes:
    """Puts numbers for the large biases, which are zeroed here: the compiler would store no bias of zeros."""
    model = bytearray(skeleton)
    for tensor in flatbuffer.read_subgraphs(model)[0].tensors:
        if tensor.constant is not None and tensor.dtype == "INT32" and len(tensor.constant) > _KEPT_BYTES:
            values = np.frombuffer(tensor.constant, np.int32)
            values[:] = np.arange(1, len(values) + 1)
    return bytes(model)


def _rows(logs: Path, entry: dict[str, Any]) -> tuple[tuple[str, int, str], ...]:
    if "rows" in entry:
        return tuple((op, count, status) for op, count, status in entry["rows"])
    for log in entry.get("logs", ()):
        models = json.loads((logs / log).with_suffix(".json").read_text())["models"]
        for model in models:
            if model.get("rows_total") == entry["n_ops"] and (len(models) == 1 or _is_log_of(model, entry)):
                return tuple((op, count, status) for op, count, status in model["rows"])
    return ()


def _is_log_of(model: dict[str, Any], entry: dict[str, Any]) -> bool:
    return Path(model.get("input_model", "")).name == Path(entry["source_path"]).name


def score(cases: Iterable[Case], limits: Iterable[Limit]) -> Score:
    """Predicts models with these limits and counts what is as the compiler has it."""
    scores = []
    for case in cases:
        ops = mapping.predict(case.tflite, limits=limits, **case.options).ops
        counts = collections.Counter((op.op.split(" ")[0], op.status) for op in ops)
        rows = sum(counts[op, status] == count for op, count, status in case.rows)
        wrong = {op.index for op in ops if not op.on_target} ^ set(case.entry["cpu_indices"]) if case.is_pair else set()
        pairs, of_pairs = (len(ops) - len(wrong), len(ops)) if case.is_pair else (0, 0)
        scores.append(
            Score(
                pairs=(int(case.is_pair and not wrong), int(case.is_pair)),
                ops=(pairs, of_pairs),
                status_rows=(rows, len(case.rows)),
            )
        )
    return _sum(scores)


def _sum(scores: Iterable[Score]) -> Score:
    totals = {name: [0, 0] for name in ("pairs", "ops", "status_rows")}
    for of in scores:
        for name, total in totals.items():
            right, count = getattr(of, name)
            total[0] += right
            total[1] += count
    return Score(**{name: (right, count) for name, (right, count) in totals.items()})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One op of known size and fate."""

    family: str
    limit: str
    size: int
    mapped: bool


def evidence(cases: Iterable[Case]) -> Iterator[Point]:
    """Yields what models show of the limits: sizes of ops that nothing else than a limit would refuse."""
    fates = {statuses.MAPPED: True, statuses.MORE_THAN_ONE_SUBGRAPH: True, statuses.UNSPECIFIED: False}
    for case in cases:
        generation = Generation.of(case.options["compiler_version"])
        operations = read_operations(case.tflite, flatbuffer.read_subgraphs(case.tflite)[0], Operation)
        for operation in operations:
            fate = fates.get(_status(case, operation.op.index))
            if fate is None or not decide(operation, generation, limits=()).supported:
                continue
            for limit in LIMITS:
                size = limit.measure(operation)
                if size is not None:
                    yield Point(family=case.family, limit=limit.name, size=size, mapped=fate)


def _status(case: Case, index: int) -> str:
    """What the compiler said of an op, as far as that is sure: empty if not."""
    op = case.entry["ops"][index]
    if op.get("where") == "tpu":
        return statuses.MAPPED
    if isinstance(op.get("status"), str):
        return str(op["status"])
    if op.get("cpu_class") == "cut":
        return statuses.UNSPECIFIED
    of_kind = {status for name, _, status in case.rows if name == op["op"]}
    return of_kind.pop() if not case.is_pair and len(of_kind) == 1 else ""


def derived(points: Iterable[Point], without: str) -> list[Limit]:
    """Returns the limits as the evidence has them without one family.

    Args:
      points: The evidence.
      without: The family.
    """
    mapped: dict[str, float] = collections.defaultdict(float)
    refused: dict[str, list[int]] = collections.defaultdict(list)
    for point in points:
        if point.family == without:
            continue
        if point.mapped:
            mapped[point.limit] = max(mapped[point.limit], point.size)
        else:
            refused[point.limit].append(point.size)
    found = []
    for limit in LIMITS:
        largest = mapped[limit.name]
        smallest = min((size for size in refused[limit.name] if size > largest), default=math.inf)
        value = math.sqrt(max(largest, 1) * smallest)
        found.append(dataclasses.replace(limit, mapped=largest, value=value, refused=smallest))
    return found


def memory(cases: Iterable[Case]) -> dict[str, tuple[int, int]]:
    """Returns how many models, of how many, have both kinds of parameter memory within the tolerance.

    "sure" and "unsure" tell them apart by the estimate's confidence. "families" are those that are right in all their
    models. "sums" are models right in the sum of both kinds: how the compiler divides it is a choice that the file of
    a model does not always show, as where it was compiled together with others.
    """
    within: dict[str, list[bool]] = collections.defaultdict(list)
    families: dict[str, list[bool]] = collections.defaultdict(list)
    for case in cases:
        if not case.is_pair or not str(case.entry.get("compiler_version", "")).startswith(_WITH_MEMORY):
            continue
        versions = {name: value for name, value in case.options.items() if name != "multiple_subgraphs"}
        estimate = parameter_memory(
            case.tflite, mapping.predict(case.tflite, **case.options), Generation.of(quiet=True, **versions)
        )
        programs = case.entry["edgetpu"]
        cached = sum(program["cached_parameter_bytes"] or 0 for program in programs)
        streamed = sum(program["off_chip_streamed_bytes"] or 0 for program in programs)
        right = _close(estimate.cached_bytes, cached) and _close(estimate.streamed_bytes, streamed)
        within["sure" if estimate.confidence > _UNSURE else "unsure"].append(right)
        within["sums"].append(_close(estimate.total_bytes, cached + streamed))
        families[case.family].append(right)
    within["families"] = [all(of) for of in families.values()]
    return {name: (sum(of), len(of)) for name, of in within.items()}


def _close(estimate: int, actual: int) -> bool:
    return abs(estimate - actual) <= _TOLERANCE * actual


def _share(right: int, count: int) -> str:
    return f"{right} of {count} ({right / max(count, 1):.1%})"


if __name__ == "__main__":
    main()
