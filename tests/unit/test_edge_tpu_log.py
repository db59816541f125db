"""The parser of edgetpu_compiler's output, held against real logs and against damaged ones."""

import collections
import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

from components.targets.edge_tpu import statuses
from components.targets.edge_tpu.log import MAPPED, STATUSES, CompilerLog, ModelLog, Size, parse

# Names of ours, and of the reference parses.
_FIELDS = {
    **{name: name for name in ("input_model", "output_model", "input_size", "output_size", "operation_log")},
    **{name: name for name in ("on_chip_available", "on_chip_used", "on_chip_remaining", "off_chip_streamed")},
    **{name: name for name in ("total_operations", "ops_on_tpu", "ops_on_cpu")},
    "subgraphs": "edge_tpu_subgraphs",
}
_HEAD = "Edge TPU Compiler version 16.0.384591198\nInput: a.tflite\nOutput: a_edgetpu.tflite\n\n"
_TABLE = "Operator                       Count      Status\n\n"
_ADD = "ADD                            2          Mapped to Edge TPU\n"
_SUMMARY = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 20 ms.

Input model: a.tflite
Input size: 3.00KiB
Output model: a_edgetpu.tflite
Output size: 4.00KiB
On-chip memory used for caching model parameters: 1.50KiB
On-chip memory remaining for caching model parameters: 7.96MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 3
Operation log: a_edgetpu.log

Number of operations that will run on Edge TPU: 2
Number of operations that will run on CPU: 1
See the operation log file for individual operation details.

Operator                       Count      Status

ADD                            2          Mapped to Edge TPU
CAST                           1          Operation is working on an unsupported data type
Compilation child process completed within timeout period.
Compilation succeeded! \n"""


def _as_reference(model: ModelLog) -> dict[str, Any]:
    """The model in the reference's terms."""
    values = {theirs: getattr(model, ours) for ours, theirs in _FIELDS.items()}
    found: dict[str, Any] = {
        name: {"text": value.text, "bytes": value.bytes} if isinstance(value, Size) else value
        for name, value in values.items()
        if value is not None
    }
    found["rows"] = [[row.op, row.count, row.status] for row in model.rows]
    if model.has_table:
        found |= {"has_table": True, "rows_on_tpu": model.rows_on_tpu, "rows_on_cpu": model.rows_on_cpu}
        found["rows_total"] = model.rows_total
    return found


def _logs(shared: Path) -> list[Path]:
    found = sorted((shared / "edgetpu" / "logs").glob("*.log"))
    assert len(found) > 200
    return found


def test_parse_equals_the_reference_for_every_real_log(shared: Path) -> None:
    for path in _logs(shared):
        expected = json.loads(path.with_suffix(".json").read_text())
        log = parse(path.read_text(errors="replace"))
        assert [_as_reference(model) for model in log.models] == expected["models"], path
        assert (log.compiler_version, log.compile_ms) == (expected["compiler_version"], expected["compile_ms"]), path
        assert list(log.failures) == expected["failures"], path
        assert list(log.notes) == expected["notes"], path
        assert (log.succeeded is True) == expected.get("success", False), path
        assert log.problems == (), path


def test_parse_knows_every_quoted_failure(shared: Path) -> None:
    entries = json.loads((shared / "edgetpu" / "logs" / "failures" / "failures.json").read_text())["entries"]
    failures = [entry for entry in entries if "compiled successfully" not in entry["text"]]
    assert len(failures) >= 10
    for entry in failures:
        log = parse(entry["text"])
        assert log.succeeded is False, entry
        assert log.failures, entry
        assert log.unknown_lines == (), entry
        assert log.compiler_version in (entry["version"], None)


def _totals(log: CompilerLog) -> list[tuple[int | None, ...]]:
    return [
        (model.rows_total, model.rows_on_tpu, model.total_operations, model.ops_on_tpu, model.ops_on_cpu)
        for model in log.models
    ]


def _contradict(log: CompilerLog, damaged: CompilerLog) -> bool:
    """Whether a total is another; one that is None is not a wrong one, it says that it is not known."""
    before, after = _totals(log), _totals(damaged)
    if len(before) != len(after):
        return True
    pairs = [pair for old, new in zip(before, after, strict=True) for pair in zip(old, new, strict=True)]
    return any(new not in (None, old) for old, new in pairs)


def _op_counts(model: ModelLog) -> dict[str, int]:
    counts: collections.Counter[str] = collections.Counter()
    for row in model.rows:
        counts[row.op] += row.count
    return counts if model.has_table else {"any": model.total_operations or 0}


def _damaged(text: str, chance: random.Random) -> str:
    """A log as it is after a full disk, two writers, a bad copy or an editor."""
    lines = text.split("\n")
    at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    kind = chance.randrange(9)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(other, lines[at])
    elif kind == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 3:
        lines[at : at + 2] = ["".join(lines[at : at + 2])]
    elif kind == 4:
        del lines[at:]
    elif kind == 5:
        lines.insert(at, "".join(chance.choice("\t\x00\x85ÿ٣ aZ9:.\x1b") for _ in range(chance.randrange(60))))
    elif kind == 6:
        del lines[at : at + chance.randrange(5)]
    else:
        line = lines[at]
        position = chance.randrange(len(line) + 1)
        new = chance.choice("0123456789 AZaz:.\t") if chance.randrange(4) else ""
        lines[at] = line[:position] + new + line[position + chance.randrange(2) :]
    return "\n".join(lines)


@pytest.mark.slow
def test_parse_never_raises_nor_accepts_other_totals_when_10000_logs_are_damaged(shared: Path) -> None:
    texts = [path.read_text(errors="replace") for path in _logs(shared)]
    chance = random.Random(7)
    wrong = cut = 0
    for number in range(10_000):
        text = texts[number % len(texts)]
        log, damaged = parse(text), parse(_damaged(text, chance))
        if not _contradict(log, damaged):
            continue
        if len(damaged.models) < len(log.models) and damaged.models == log.models[: len(damaged.models)]:
            # Ends between two models, or before the first: nothing in it shows that. Who compiled knows of which models
            # it must speak, and the driver reports those of which it does not.
            cut += 1
            continue
        wrong += 1
        reported = bool(damaged.problems)
        for before, after in zip(log.models, damaged.models, strict=False):
            reported = reported or bool(after.differences(_op_counts(before)))
        assert reported, (number, _totals(log), _totals(damaged))
    assert wrong > 1000
    assert cut < 200


def test_parse_reads_all_figures_of_a_summary_with_a_table() -> None:
    log = parse(_SUMMARY)
    (model,) = log.models
    assert (log.succeeded, log.compile_ms, log.problems, log.unknown_lines) == (True, 20, (), ())
    assert (model.rows_on_tpu, model.rows_total, model.ops_on_tpu, model.ops_on_cpu) == (2, 3, 2, 1)
    assert model.on_chip_used == Size(text="1.50KiB", bytes=1536.0)
    assert model.on_chip_remaining is not None
    assert model.on_chip_remaining.error_bytes == pytest.approx(0.005 * 2**20)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("operations: 3", "operations: 4", "4 operations, but 3 in the table"),
        ("Edge TPU: 2", "Edge TPU: 3", "3 operations on the Edge TPU and 1 on the CPU are not 3"),
        ("CPU: 1", "CPU: x", "ops_on_cpu cannot be read: 'x'"),
        ("subgraphs: 1", "subgraphs: 0", "0 subgraphs with 2 operations on the Edge TPU"),
        ("Input size: 3.00KiB\n", "", "input_size is not said"),
        ("3.00KiB", "3.00XiB", "input_size cannot be read: '3.00XiB'"),
        ("Compilation succeeded! \n", "", "the log ends before the compiler says whether it succeeded"),
        (_ADD, _ADD + _ADD, "two rows of ADD with the status 'Mapped to Edge TPU'"),
        ("CAST   ", "CAST  ", "a row whose columns are out of place"),
        ("CAST                           1 ", "CAST                           one ", "a row that cannot be read"),
        (_TABLE, "", "a row outside of the table"),
        ("unsupported data", "unsuported data", "unknown status 'Operation is working on an unsuported data type'"),
        ("Input model: a.tflite\n", "", "figures of a model that is not named"),
        ("Model compiled", "Models compiled", "it says that several models were compiled, but not which"),
        (_SUMMARY[_SUMMARY.index("Input model") :], 2 * _SUMMARY[_SUMMARY.index("Input model") :], "two summaries of "),
        ("Output size: 4.00KiB", "Output size: 4.00KiB\nOutput size: 5.00KiB", "output_size is given twice"),
    ],
)
def test_parse_reports_what_does_not_add_up(old: str, new: str, problem: str) -> None:
    problems = parse(_SUMMARY.replace(old, new)).problems
    assert any(problem in found for found in problems), problems


def test_parse_keeps_unknown_lines_and_statuses_verbatim() -> None:
    log = parse(
        f"{_HEAD}{_TABLE}{_ADD}SPARKLE                        1          Mapped to Edge TPU 2\n\nhello  there\n"
    )
    assert log.models[0].rows[1].status == "Mapped to Edge TPU 2"
    assert not log.models[0].rows[1].on_tpu
    assert log.unknown_lines == ("hello  there",)


def test_differences_names_the_row_that_a_table_lacks() -> None:
    (model,) = parse(f"{_HEAD}{_TABLE}{_ADD}").models
    assert model.problems == ()
    assert model.differences({"ADD": 2}) == ()
    assert model.differences({"ADD": 2, "CAST": 1}) == ("0 CAST, but the model has 1",)


def test_parse_takes_the_last_word_of_a_delegate_search() -> None:
    failed = (
        "Try to compile segment with 20 ops\nStarted a compilation timeout timer of 180 seconds.\n"
        "Compilation timeout. This is usually caused by large activations.\nCompilation failed! \n"
    )
    start = "Edge TPU Compiler version 16.0.384591198\nSearching for valid delegate with step 10\n"
    found = "Try to compile segment with 10 ops\nIntermediate tensors: a,b\n" + _SUMMARY.partition("\n")[2]
    log = parse(start + failed + found)
    assert (log.search_ops, log.succeeded, log.problems) == ((20, 10), True, ())
    assert "Intermediate tensors: a,b" in log.notes
    assert parse(start + failed).succeeded is False


def test_parse_says_which_segment_a_block_is_of() -> None:
    block = _SUMMARY[_SUMMARY.index("Input model") :]
    text = block.replace("a.tflite", "a_segment_1_of_3.tflite", 1)
    assert parse(text).models[0].segment == (1, 3)
    assert parse(block).models[0].segment is None


def test_parse_takes_time_in_proportion_when_a_number_is_absurd() -> None:
    digits = "9" * 100_000
    log = parse(
        f"{_HEAD}{_TABLE}ADD {digits} {MAPPED}\nTotal number of operations: {digits}\nInput size: {digits}.00B\n"
    )
    assert log.problems


def test_statuses_are_told_apart() -> None:
    assert len(set(STATUSES)) == len(STATUSES)
    assert dataclasses.is_dataclass(CompilerLog)


def test_parser_knows_the_statuses_that_the_predictor_gives() -> None:
    """The parser stands alone, so that its texts are written a second time."""
    texts = {text for name, text in vars(statuses).items() if name.isupper() and isinstance(text, str)}
    assert set(STATUSES) == texts - statuses.OF_MODELS


@pytest.mark.parametrize(
    ("said", "instead", "problem"),
    [
        ("subgraphs: 1", "subgraphs: 3", "3 subgraphs of 2 operations on the Edge TPU"),
        (
            "remaining for caching model parameters: 7.96MiB",
            "remaining for caching model parameters: 97.96MiB",
            "8 MiB",
        ),
        ("used for caching model parameters: 1.50KiB", "used for caching model parameters: 9.00MiB", "8 MiB"),
        (
            "uncached model parameters: 0.00B",
            "uncached model parameters: 5.00KiB",
            "5.00KiB streamed of a file of 4.00KiB",
        ),
    ],
)
def test_parse_says_so_when_a_figure_is_impossible(said: str, instead: str, problem: str) -> None:
    assert parse(_SUMMARY).problems == ()
    (found,) = parse(_SUMMARY.replace(said, instead)).problems
    assert problem in found
