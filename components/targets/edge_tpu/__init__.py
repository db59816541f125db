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

from components.quantization.process_group import process_group
from components.targets import CompiledModel, CompileError, CompileReport, Mapping, OpCount, analysis
from components.targets.edge_tpu import mapping
from components.targets.edge_tpu.statuses import MAPPED

_LOGGER = logging.getLogger(__name__)

COMPILER = "edgetpu_compiler"
_TIMEOUT_S = 600
_CUSTOM_OP = b"edgetpu-custom-op"


class EdgeTpu:
    """The Edge TPU and edgetpu_compiler."""

    name = "edge_tpu"

    def inspect(
        self,
        tflite: bytes,
        *,
        compiler_version: str = "16.0",
        min_runtime_version: int | None = None,
        multiple_subgraphs: bool = False,
    ) -> Mapping:
        """Predicts the compiler's mapping: see `mapping.predict`."""
        return mapping.predict(
            tflite,
            compiler_version=compiler_version,
            min_runtime_version=min_runtime_version,
            multiple_subgraphs=multiple_subgraphs,
        )

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
