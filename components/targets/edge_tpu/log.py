r"""What edgetpu_compiler writes, as dataclasses: standard output and operation logs of versions 1.0 to 16.0.

It reads single, co-compiled and segmented models, delegate searches (`-d`) and failures, needs the standard library
alone, and never raises: a line or a status that it does not know is kept, and what does not add up is among
`problems`.

>>> log = parse("Edge TPU Compiler version 16.0.384591198\nCompilation failed! \n")
>>> log.compiler_version, log.succeeded, log.failures
('16.0.384591198', False, ('Compilation failed!',))
"""

import collections
import dataclasses
import re
from collections.abc import Mapping

MAPPED = "Mapped to Edge TPU"
STATUSES = (
    MAPPED,
    "More than one subgraph is not supported",
    "Operation is otherwise supported, but not mapped due to some unspecified limitation",
    "Operation is working on an unsupported data type",
    "Operation not supported",
    "Operation version not supported",
    "Tensor has unsupported rank (up to 3 innermost dimensions mapped)",
    "Filter, bias, or other param is not constant at compile-time",
    # What is left of a message of several lines.
    "For example, a fully-connected or softmax layer with 2D output",
)
"""The statuses that compilers up to 16.0 were seen to give."""

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_FIELDS = {
    "Input size": "input_size",
    "Output model": "output_model",
    "Output size": "output_size",
    "On-chip memory available for caching model parameters": "on_chip_available",
    "On-chip memory used for caching model parameters": "on_chip_used",
    "On-chip memory remaining for caching model parameters": "on_chip_remaining",
    "Off-chip memory used for streaming uncached model parameters": "off_chip_streamed",
    "Number of Edge TPU subgraphs": "subgraphs",
    "Total number of operations": "total_operations",
    "Operation log": "operation_log",
    "Number of operations that will run on Edge TPU": "ops_on_tpu",
    "Number of operations that will run on CPU": "ops_on_cpu",
    "Output": "output_model",
}
# What standard output says of every model; the rest depends on the version and on the model.
_ALWAYS = (
    *("input_size", "output_model", "output_size", "on_chip_used", "off_chip_streamed"),
    *("subgraphs", "total_operations", "operation_log"),
)
_ON_CHIP_BYTES = 8 * 2**20  # https://coral.ai/docs/edgetpu/compiler/#parameter-data-caching
_VERSION = re.compile(r"Edge TPU Compiler version ([0-9]{1,9}[0-9.]{0,40})")
_FIELD = re.compile(rf"({'|'.join(map(re.escape, _FIELDS))}): (\S.*)")
_INPUT = re.compile(r"(Input model|Input): (\S.*)")
_HEADER = re.compile(r"Operator( +)Count( +)Status")
_ROW = re.compile(r"([A-Z]\w*)( +)([0-9]{1,9})( +)(\S.*)")
_SIZE = re.compile(r"([0-9]{1,9}\.[0-9]{2})(B|KiB|MiB|GiB)")
_DONE = re.compile(r"Model(s?) compiled successfully in ([0-9]{1,12}) ms\.")
_NOT_ALL = "Model successfully compiled but not all operations"
_NOTES = re.compile(
    r"Started a compilation timeout timer of \d+ seconds\."
    rf"|{_NOT_ALL} .*"
    r"|See the operation log file for individual operation details\."
    r"|Compilation child process completed within timeout period\.|Compilation succeeded!"
    r"|Searching for valid delegate with step \d+|Try to compile segment with \d+ ops|Intermediate tensors: .*"
)
_ATTEMPT = re.compile(r"Try to compile segment with ([0-9]{1,9}) ops")
_GIVES_UP = re.compile(
    r"Compilation failed|Compilation timeout|Internal compiler error|Invalid model:|Model not quantized"
    r"|Model could not be parsed|.*(Segmentation fault|Aborted \(core dumped\)|terminate called|std::bad_alloc"
    r"|Cannot allocate memory|No space left on device)|Killed"
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """A size as it is written, such as 4.21MiB, and in bytes, to its two decimals."""

    text: str
    bytes: float

    @property
    def error_bytes(self) -> float:
        """How far it may be off at most: half of its last decimal."""
        return 0.005 * _UNITS[self.text.lstrip("0123456789.")]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OperationRow:
    """A row of the table of operations: how many of one kind share a status."""

    op: str
    count: int
    status: str

    @property
    def on_tpu(self) -> bool:
        """Whether they run on the Edge TPU."""
        return self.status == MAPPED


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelLog:
    """What is said of one model, or one segment of it; None where nothing is.

    Attributes:
      input_model: Path of the model, as it was passed.
      output_model: Name of the compiled file.
      input_size: Size of the model.
      output_size: Size of the compiled file.
      on_chip_available: Memory for parameters before this model; versions 1.0 to 2.0.
      on_chip_used: Parameters that stay in the Edge TPU's memory.
      on_chip_remaining: Memory for parameters after this model; versions 2.1 and later.
      off_chip_streamed: Parameters that are sent for each inference.
      subgraphs: How many ops of the compiled file run on the Edge TPU.
      total_operations: How many operations the model has.
      operation_log: Path of the operation log.
      ops_on_tpu: How many operations run on the Edge TPU; said only where some do not.
      ops_on_cpu: How many operations do not.
      rows: The table of operations.
      has_table: Whether there is one.
      problems: What does not add up, in sentences; empty for a log as the compiler writes it.
    """

    input_model: str | None = None
    output_model: str | None = None
    input_size: Size | None = None
    output_size: Size | None = None
    on_chip_available: Size | None = None
    on_chip_used: Size | None = None
    on_chip_remaining: Size | None = None
    off_chip_streamed: Size | None = None
    subgraphs: int | None = None
    total_operations: int | None = None
    operation_log: str | None = None
    ops_on_tpu: int | None = None
    ops_on_cpu: int | None = None
    rows: tuple[OperationRow, ...] = ()
    has_table: bool = False
    problems: tuple[str, ...] = ()

    @property
    def rows_on_tpu(self) -> int | None:
        """Operations of the table that run on the Edge TPU; None without a table."""
        return sum(row.count for row in self.rows if row.on_tpu) if self.has_table else None

    @property
    def rows_on_cpu(self) -> int | None:
        """Operations of the table that do not; None without a table."""
        return sum(row.count for row in self.rows if not row.on_tpu) if self.has_table else None

    @property
    def rows_total(self) -> int | None:
        """Operations of the table; None without a table."""
        return sum(row.count for row in self.rows) if self.has_table else None

    def differences(self, op_counts: Mapping[str, int]) -> tuple[str, ...]:
        """Compares with the model that was compiled: an operation log alone does not show that a row is missing.

        Args:
          op_counts: How many operations of each kind the model has.

        Returns:
          Sentences; none if all agree.

        >>> ModelLog(total_operations=3).differences({"ADD": 1, "MUL": 1})
        ('3 operations, but the model has 2',)
        """
        total = sum(op_counts.values())
        counts: collections.Counter[str] = collections.Counter()
        for row in self.rows:
            counts[row.op] += row.count
        wrong = [] if self.total_operations in (None, total) else [(self.total_operations, "operations", total)]
        if self.has_table:
            kinds = sorted({*counts, *op_counts})
            wrong += [(counts[op], op, op_counts.get(op, 0)) for op in kinds if counts[op] != op_counts.get(op, 0)]
        return tuple(f"{said} {what}, but the model has {there}" for said, what, there in wrong)

    @property
    def segment(self) -> tuple[int, int] | None:
        """Which segment this is, from 0, and of how many; None for a whole model."""
        match = re.search(r"_segment_(\d{1,4})_of_(\d{1,4})\.tflite$", self.input_model or "")
        return (int(match[1]), int(match[2])) if match else None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CompilerLog:
    """What was written by one run.

    Attributes:
      compiler_version: For example "16.0.384591198"; None if it is not said.
      compile_ms: Time to compile; None if it is not said.
      succeeded: What it says at last: True, False, or None where it says neither, as in an operation log.
      models: One for each model or segment, in order.
      search_ops: How many ops each attempt of a delegate search took; empty without one.
      failures: Errors and what it gave up with, in order. Attempts that failed leave theirs in a search that succeeds.
      notes: Sentences without figures.
      unknown_lines: Lines of no known form.
      problems: What does not add up: of the run, then of each model.
    """

    compiler_version: str | None
    compile_ms: int | None
    succeeded: bool | None
    models: tuple[ModelLog, ...]
    search_ops: tuple[int, ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    unknown_lines: tuple[str, ...]
    problems: tuple[str, ...]


def parse(text: str) -> CompilerLog:
    """Reads standard output or an operation log, or several in one text."""
    reader = _Reader()
    for line in text.split("\n"):
        reader.read(line.rstrip())
    return reader.result()


def parse_size(text: str) -> Size | None:
    """Reads a size; None if it is none.

    >>> parse_size("1.50KiB").bytes
    1536.0
    """
    match = _SIZE.fullmatch(text)
    return Size(text=text, bytes=float(match[1]) * _UNITS[match[2]]) if match else None


class _Reader:
    """Goes through the lines; `_block` is the model that they are about."""

    def __init__(self) -> None:
        self._version: str | None = None
        self._compile_ms: int | None = None
        self._several = False
        self._succeeded: bool | None = None
        self._finished = True
        self._blocks: list[_Block] = []
        self._table: _Table | None = None
        self._search_ops: list[int] = []
        self._failures: list[str] = []
        self._notes: list[str] = []
        self._unknown: list[str] = []

    def read(self, line: str) -> None:
        text = line.strip()
        if not text:
            if self._table is not None and self._table.rows:
                self._table = None
        elif header := _HEADER.fullmatch(text):
            self._begin_table(header, indent=len(line) - len(line.lstrip()))
        elif self._table is not None and (row := _ROW.fullmatch(text)):
            self._table.add(row, indent=len(line) - len(line.lstrip()))
        elif not self._read_sentence(text):
            self._read_stray(text)

    def _read_sentence(self, text: str) -> bool:
        """Reads a line of a known form other than the table's."""
        if version := _VERSION.search(text):
            self._version = self._version or version[1].rstrip(".")
        elif done := _DONE.fullmatch(text):
            self._compile_ms, self._succeeded = int(done[2]), True
            self._several = bool(done[1])
        elif given := _INPUT.fullmatch(text):
            self._blocks.append(_Block(given[2], summary=given[1] == "Input model"))
        elif field := _FIELD.fullmatch(text):
            self._block().set(_FIELDS[field[1]], field[2])
        elif _NOTES.fullmatch(text):
            self._note(text)
        elif _GIVES_UP.match(text) or text.startswith("ERROR: "):
            self._failures.append(text)
            if _GIVES_UP.match(text):
                self._succeeded = False
                self._finished = self._finished or text == "Compilation failed!"
        else:
            return False
        self._table = None
        return True

    def _note(self, text: str) -> None:
        self._notes.append(text)
        if text == "Compilation succeeded!":
            self._succeeded = self._finished = True
        elif text.startswith("Started a compilation timeout timer"):
            self._finished = False
        elif attempt := _ATTEMPT.fullmatch(text):
            self._search_ops.append(int(attempt[1]))
        elif text.startswith(_NOT_ALL):
            self._block().some_on_cpu = True

    def _read_stray(self, text: str) -> None:
        """Keeps a line of no known form; in a table, or like a row of one, it may have cost a count."""
        row = _ROW.fullmatch(text)
        if row and len(row[2]) > 1 and row[1].isupper():
            self._block().table().add(row, indent=0)
            self._block().problems.append(f"a row outside of the table: {text!r}")
            return
        self._unknown.append(text)
        if self._table is not None:
            self._table.problems.append(f"a row that cannot be read: {text!r}")

    def _block(self) -> "_Block":
        if not self._blocks:
            self._blocks.append(_Block(None, summary=False))
            self._blocks[-1].problems.append("figures of a model that is not named")
        return self._blocks[-1]

    def _begin_table(self, header: "re.Match[str]", indent: int) -> None:
        if self._block().has_table:
            self._block().problems.append("two tables of operations")
        self._table = self._block().table()
        self._table.columns = (indent, indent + header.start(2) - 5, indent + header.end(2))

    def result(self) -> CompilerLog:
        models = tuple(block.result() for block in self._blocks)
        problems: list[str] = []
        if not self._finished:
            problems.append("the log ends before the compiler says whether it succeeded")
        if self._version is None and (models or self._failures):
            problems.append("the compiler's version is not said")
        if self._compile_ms is not None and not models:
            problems.append("it says that a model was compiled, but not which")
        outputs = collections.Counter(block.summary_of for block in self._blocks if block.summary_of)
        problems += [f"two summaries of {name}" for name, count in outputs.items() if count > 1]
        if self._several and len(outputs) < 2:
            problems.append("it says that several models were compiled, but not which")
        for model in models:
            problems += [f"{model.input_model or 'unnamed model'}: {problem}" for problem in model.problems]
        return CompilerLog(
            compiler_version=self._version,
            compile_ms=self._compile_ms,
            succeeded=self._succeeded,
            models=models,
            search_ops=tuple(self._search_ops),
            failures=tuple(self._failures),
            notes=tuple(self._notes),
            unknown_lines=tuple(self._unknown),
            problems=tuple(problems),
        )


class _Table:
    """A table of operations while it is read."""

    def __init__(self) -> None:
        self.columns: tuple[int, int, int] | None = None
        self.rows: list[OperationRow] = []
        self.problems: list[str] = []

    def add(self, row: "re.Match[str]", indent: int) -> None:
        self.rows.append(OperationRow(op=row[1], count=int(row[3]), status=row[5]))
        # A name or number that fills its column pushes the others out of theirs.
        starts = (indent, indent + row.start(3), indent + row.start(5))
        if self.columns is not None and len(row[2]) > 1 and len(row[4]) > 1 and starts != self.columns:
            self.problems.append(f"a row whose columns are out of place: {row[0]!r}")


class _Block:
    """What was read of a model so far."""

    def __init__(self, name: str | None, summary: bool) -> None:
        self._name = name
        self._summary = summary  # as standard output has it, not the operation log
        self._values: dict[str, str | int | Size] = {}
        self._tables: list[_Table] = []
        self.some_on_cpu = False
        self.problems: list[str] = []

    @property
    def has_table(self) -> bool:
        return bool(self._tables)

    @property
    def summary_of(self) -> str:
        """Name of the output that standard output speaks of; "" of an operation log."""
        return str(self._values.get("output_model", "")) if self._summary else ""

    def table(self) -> _Table:
        if not self._tables:
            self._tables.append(_Table())
        return self._tables[0]

    def set(self, name: str, text: str) -> None:
        value: str | int | Size | None = text
        if name in ("subgraphs", "total_operations", "ops_on_tpu", "ops_on_cpu"):
            value = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None
        elif name not in ("output_model", "operation_log"):
            value = parse_size(text)
        if value is None:
            self.problems.append(f"{name} cannot be read: {text!r}")
        elif name in self._values:
            self.problems.append(f"{name} is given twice: {self._values[name]!r} and {value!r}")
        else:
            self._values[name] = value

    def result(self) -> ModelLog:
        rows = tuple(row for table in self._tables for row in table.rows)
        model = ModelLog(
            input_model=self._name,
            rows=rows,
            has_table=self.has_table,
            **self._values,  # type: ignore[arg-type]
        )
        problems = [*self.problems, *(problem for table in self._tables for problem in table.problems)]
        expected = _ALWAYS if self._summary else ("output_model",)
        problems += [f"{name} is not said" for name in expected if name not in self._values]
        if (self.has_table and not rows) or not (self.has_table or self._summary):
            problems.append("there is no row of the table of operations")
        if self.some_on_cpu and not model.ops_on_cpu:
            problems.append("some operations run on the CPU, but how many is not said")
        return dataclasses.replace(model, problems=(*problems, *_table_problems(model), *_sum_problems(model)))


def _table_problems(model: ModelLog) -> list[str]:
    keys = collections.Counter((row.op, row.status) for row in model.rows)
    problems = [f"two rows of {op} with the status {status!r}" for (op, status), count in keys.items() if count > 1]
    unknown = dict.fromkeys(row.status for row in model.rows if row.status not in STATUSES)
    problems += [f"unknown status {status!r}, counted as on the CPU" for status in unknown]
    problems += [f"a row of 0 {row.op}" for row in model.rows if not row.count]
    return problems


def _sum_problems(model: ModelLog) -> list[str]:
    """Figures that contradict one another."""
    on_tpu, on_cpu, total = model.ops_on_tpu, model.ops_on_cpu, model.total_operations
    problems = []
    if (on_tpu is None) != (on_cpu is None):
        problems.append("operations on only one of Edge TPU and CPU are counted")
    if on_tpu is not None and on_cpu is not None and total is not None and on_tpu + on_cpu != total:
        problems.append(f"{on_tpu} operations on the Edge TPU and {on_cpu} on the CPU are not {total}")
    figures = (
        (total, model.rows_total, "operations"),
        (on_tpu, model.rows_on_tpu, "operations on the Edge TPU"),
        (on_cpu, model.rows_on_cpu, "operations on the CPU"),
    )
    problems += [
        f"{said} {what}, but {n} in the table" for said, n, what in figures if None not in (said, n) and said != n
    ]
    there = next((n for n in (on_tpu, model.rows_on_tpu, total) if n is not None), 0)
    if model.subgraphs is not None and total is not None and bool(model.subgraphs) != bool(there):
        problems.append(f"{model.subgraphs} subgraphs with {there} operations on the Edge TPU")
    if model.subgraphs is not None and total is not None and model.subgraphs > there > 0:
        problems.append(f"{model.subgraphs} subgraphs of {there} operations on the Edge TPU")
    return problems + _memory_problems(model)


def _memory_problems(model: ModelLog) -> list[str]:
    """Sizes that the Edge TPU or the file cannot have."""
    used, available, remaining = model.on_chip_used, model.on_chip_available, model.on_chip_remaining
    problems = []
    if used and available and used.bytes > available.bytes + used.error_bytes + available.error_bytes:
        problems.append(f"{used.text} used of {available.text} of on-chip memory")
    told = [size for size in (used, remaining) if size]
    if sum(size.bytes - size.error_bytes for size in told) > _ON_CHIP_BYTES:
        problems.append(f"{' and '.join(size.text for size in told)} of 8 MiB of on-chip memory")
    streamed, file = model.off_chip_streamed, model.output_size
    if streamed and file and streamed.bytes - streamed.error_bytes > file.bytes + file.error_bytes:
        problems.append(f"{streamed.text} streamed of a file of {file.text}")
    return problems
