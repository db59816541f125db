"""Which line of a user's code prevents something, and why: for errors that name it."""

import inspect
import re
import traceback
from pathlib import Path
from typing import Any

_NO_LINE = "an unknown line"
# Functions that run Python functions: TensorFlow cannot give these symbols of Keras, and TFLite runs no Python.
PYTHON = "numpy_function|py_func|py_function"
_OF_FUNCTIONS = (
    r"(?<![\w.])((tf|tensorflow|keras|ops)(\.\w+)*\.)?"
    rf"(case|cond|fori_loop|map_fn|{PYTHON}|scan|switch|switch_case|vectorized_map|while_loop)\("
)
_PACKAGE = str(Path(__file__).parent)


def blamed_line(error: BaseException) -> str:
    """Returns file, number and text of the innermost line of the user's code that an error went through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        library = re.search(r"[/\\](site|dist)-packages[/\\]", frame.filename) or frame.filename.startswith(_PACKAGE)
        if not library and Path(frame.filename).is_file():
            return f"{Path(frame.filename).name}:{frame.lineno} `{frame.line}`"
    return _NO_LINE


def blamed(error: BaseException, function: Any) -> tuple[str, str]:
    """Returns the line of the user's code, of a function where nothing else tells, that cannot be traced, and why."""
    line = blamed_line(error)
    if line == _NO_LINE:
        line = mention(function, _OF_FUNCTIONS).removeprefix(" at ") or line
    found = re.search(_OF_FUNCTIONS, line)
    if found:
        return line, f"{found[0]}) takes Python functions, whose operations do not become layers"
    if re.search(r"__len__|__bool__|as a (Python )?`?bool", str(error)):
        return line, "it takes the truth or the length of a tensor, whose values are not known yet"
    return line, reason(error)


def reason(error: BaseException) -> str:
    """Returns the first sentence of an error's message that says something."""
    text = str(error).rpartition("Exception encountered: ")[2]  # Keras wraps errors of deserialization
    noise = r"\x1b\[\d+m|\{\{\w+ [^}]*\}\}"  # colours, and where TensorFlow has the function from
    lines = [re.sub(noise, "", line).strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith("Exception encountered when calling")]
    return telling[0].split(". ")[0].rstrip(".:") if telling else type(error).__name__


def mention(function: Any, pattern: str) -> str:
    """Returns the first line of a function with a pattern in it, as " at file:line `text`"; empty if there is none."""
    function = inspect.unwrap(getattr(function, "python_function", function))
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError):
        return ""
    for number, line in enumerate(lines, start=first):
        if pattern and re.search(pattern, line):
            return f" at {Path(inspect.getfile(function)).name}:{number} `{line.strip()}`"
    return ""
