"""What Vela says of ops that it leaves to the CPU."""

import dataclasses
import re
from collections.abc import Iterator

_OPERATOR = re.compile(r"Warning \([\w ]+\) operator: (?P<op>\w+), ofm: '(?P<output>.*)'$")
_REASON = "Reason: "
_TENSOR = re.compile(r"(.*?)(?: \(([^ ()]+)\))?", re.DOTALL)  # what a tensor's type is told of is named behind it
_COUNT = re.compile(r"^CPU operators = (\d+) ", re.MULTILINE)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CpuOperation:
    """An op that Vela leaves to the CPU.

    Attributes:
      op: Its name, for example "GATHER".
      output: The name of its output.
      status: Why, in one line, without the names of tensors.
      constraint: The whole constraint that it does not keep, as Vela prints it, lines joined; "" if it is one line.
    """

    op: str
    output: str
    status: str
    constraint: str = ""


def cpu_operations(output: str) -> tuple[CpuOperation, ...]:
    r"""Returns the ops that Vela gives a reason for, in the order of its output.

    >>> cpu_operations("Warning (supported operators) operator: GATHER, ofm: 'x'\nReason: Unsupported opType\n\n")
    (CpuOperation(op='GATHER', output='x', status='Unsupported opType', constraint=''),)
    """
    return tuple(_read(output.splitlines()))


def cpu_count(output: str) -> int | None:
    r"""Returns how many ops Vela says run on the CPU; None if it does not say.

    >>> cpu_count("CPU operators = 1 (3.1%)\nNPU operators = 31 (96.9%)\n")
    1
    """
    found = _COUNT.search(output)
    return int(found.group(1)) if found else None


def _read(lines: list[str]) -> Iterator[CpuOperation]:
    for number, line in enumerate(lines):
        found = _OPERATOR.match(line)
        if not found:
            continue
        told = []
        for following in lines[number + 1 :]:
            if not following.strip() or _OPERATOR.match(following):
                break
            told.append(following.strip())
        status, tensor = _TENSOR.fullmatch(told[0].removeprefix(_REASON) if told else "").groups()  # type: ignore[union-attr]
        constraint = " ".join(([tensor] if tensor else []) + told[1:]).replace(": - ", ": ").replace(" - ", "; ")
        yield CpuOperation(op=found["op"], output=found["output"], status=status, constraint=constraint)
