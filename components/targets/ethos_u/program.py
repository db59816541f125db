"""Vela as a program: found on this machine, run with a limit, and stopped whole."""

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import sys
import time
from pathlib import Path

from components.targets import CompileError
from components.targets._directories import work_directory
from components.targets._failures import explaining
from components.targets._run import Run, communicate
from components.targets.ethos_u.failures import KINDS
from components.targets.ethos_u.options import COMPILER, VelaOptions

VARIABLE = "TFX_QAT_VELA"
"""Name of the variable that says where Vela is, for options that do not."""
MODEL = "model"
"""Name of the model that Vela sees, and in the names of what it writes."""
_OUTPUT = "out"
_SHORT_S = 60  # for the version alone


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Vela:
    """Where Vela is.

    Attributes:
      command: The program, or a Python with the arguments that start the package.
    """

    command: tuple[str, ...]

    def version(self) -> str:
        """Returns Vela's version, such as "5.2.0"; "" if it does not say."""
        with contextlib.suppress(CompileError, OSError), work_directory(KINDS) as directory:
            status, output = communicate([*self.command, "--version"], _SHORT_S, directory)
            found = re.fullmatch(r"\d+\.\d+[\w.+-]*", (output.strip().splitlines() or [""])[-1])
            return found.group() if found and status == 0 else ""
        return ""

    def run(self, options: VelaOptions, tflite: bytes, directory: Path, *, per_layer: bool) -> Run:
        """Runs Vela and stops it, with all that it started, at the limit.

        Args:
          options: What it is asked for.
          tflite: The model.
          directory: An empty folder to run in.
          per_layer: Whether to ask for the table by layers.

        Raises:
          CompileError: If the disk is full or cannot be written, or the program cannot be started.
        """
        arguments = options.arguments(per_layer=per_layer)
        if options.config_file:
            arguments[arguments.index("--config") + 1] = os.path.abspath(options.config_file)
        command = (*self.command, *arguments, "--output-dir", _OUTPUT, f"{MODEL}.tflite")
        started = time.monotonic()
        with explaining(f"directory {directory}", KINDS, "unwritable"):
            (directory / _OUTPUT).mkdir()
            (directory / f"{MODEL}.tflite").write_bytes(tflite)
        with explaining(" ".join(command), KINDS, "broken_install"):
            status, output = communicate(command, options.timeout_sec, directory)
        with explaining(f"directory {directory}", KINDS, "unwritable"):
            files = {path.name: path.read_bytes() for path in sorted((directory / _OUTPUT).iterdir()) if path.is_file()}
        return Run(command=command, seconds=time.monotonic() - started, exit_status=status, output=output, files=files)


def find_vela(options: VelaOptions) -> Vela | None:
    """Returns where Vela is, None if it is not on this machine."""
    named = os.environ.get(VARIABLE, "") if options.compiler == COMPILER else ""
    name = named or options.compiler
    # The version that is pinned is beside this Python, whose environment need not be activated.
    beside = shutil.which(name, path=os.path.dirname(sys.executable)) if name == COMPILER else None
    path = beside or shutil.which(name)
    if path is None:
        return None
    path = os.path.abspath(path)
    is_python = re.fullmatch(r"python[\d.]*", Path(path).name)
    return Vela(command=(path, "-m", "ethosu.vela") if is_python else (path,))


def identity(options: VelaOptions) -> str:
    """Returns Vela's version, and the sha256 of a configuration file of one's own; "" without Vela."""
    vela = find_vela(options)
    if vela is None:
        return ""
    own = Path(options.config_file)
    digest = f" {hashlib.sha256(own.read_bytes()).hexdigest()}" if options.config_file and own.is_file() else ""
    return f"{vela.version() or 'unknown'}{digest}"
