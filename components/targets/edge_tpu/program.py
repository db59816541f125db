"""The compiler as a program: found on this machine or in a container image, run with a limit, and stopped whole."""

import contextlib
import dataclasses
import hashlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from components.targets import CompileError
from components.targets._directories import work_directory
from components.targets._failures import explaining
from components.targets._run import Run, communicate
from components.targets.edge_tpu.failures import KINDS
from components.targets.edge_tpu.log import parse
from components.targets.edge_tpu.options import CompilerOptions

OUTPUT = "out"
"""Folder of the output, below that which the compiler runs in."""
_SHORT_S = 60  # for programs that only say who they are, or stop another


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """Where the compiler is.

    Attributes:
      path: The compiler, or the program that runs containers.
      image: The container image; "" without one.
      compiler: The compiler's name in the image.
    """

    path: str
    image: str = ""
    compiler: str = ""

    def command(self, arguments: list[str], directory: Path, container: str = "") -> tuple[str, ...]:
        """Returns the command line.

        Args:
          arguments: Of the compiler; paths in them are relative to the directory.
          directory: Where the compiler runs; a container sees it as /models, and nothing else of this machine.
          container: Name of the container.
        """
        if not self.image:
            return (self.path, *arguments)
        # What it writes must belong to whoever runs this. Podman without root maps users itself.
        user = f"{os.getuid()}:{os.getgid()}"
        owner = ("--userns", "keep-id") if Path(self.path).name == "podman" and os.getuid() else ("--user", user)
        return (
            *(self.path, "run", "--rm", "--name", container, "--network", "none", "--platform", "linux/amd64", *owner),
            *("--volume", f"{directory}:/models", "--workdir", "/models", "--entrypoint", self.compiler, self.image),
            *arguments,
        )

    def version(self) -> str:
        """Returns the compiler's version, such as "16.0.384591198"; "" if it does not say."""
        with contextlib.suppress(CompileError), work_directory(KINDS) as directory:
            run = self.run(["--version"], {}, _SHORT_S, directory)
            return parse(run.output).compiler_version or ""
        return ""

    def identity(self) -> str:
        """Returns version, "unknown" if it does not say it, and what tells builds apart: sha256, or the image's id."""
        if not self.image:
            unique = hashlib.sha256(Path(self.path).read_bytes()).hexdigest()
        else:
            unique = f"{self.image} {self._ask('image', 'inspect', '--format', '{{.Id}}', self.image)}".strip()
        return f"{self.version() or 'unknown'} {unique}".strip()

    def run(self, arguments: list[str], models: Mapping[str, bytes], limit_s: float, directory: Path) -> Run:
        """Runs the compiler and stops it, with all that it started, at the limit.

        Args:
          arguments: Options.
          models: The models by file name, in the order of the command line.
          limit_s: Limit of time.
          directory: An empty folder to run in.

        Raises:
          CompileError: If the disk is full or cannot be written, or the program cannot be started.
        """
        container = f"tfx-qat-{secrets.token_hex(8)}" if self.image else ""
        arguments = [*arguments, *(("--out_dir", OUTPUT) if models else ()), *models]
        command = self.command(arguments, directory, container)
        started = time.monotonic()
        with explaining(f"directory {directory}", KINDS, "unwritable"):
            (directory / OUTPUT).mkdir()
            for name, content in models.items():
                (directory / name).write_bytes(content)
        with explaining(" ".join(command), KINDS, "broken_install"):
            status, output = self._communicate(command, limit_s, directory, container)
        with explaining(f"directory {directory}", KINDS, "unwritable"):
            files = {path.name: path.read_bytes() for path in sorted((directory / OUTPUT).iterdir()) if path.is_file()}
        seconds = time.monotonic() - started
        return Run(command=command, seconds=seconds, exit_status=status, output=output, files=files)

    def _communicate(
        self, command: tuple[str, ...], limit_s: float, directory: Path, container: str
    ) -> tuple[int | None, str]:
        # The container is no child of the program that started it.
        stop = (self.path, "kill", container) if container else ()
        status = None
        try:
            status, output = communicate(command, limit_s, directory, stop)
        finally:
            if status is None and stop:
                self._ask(*stop[1:])
        return status, output

    def _ask(self, *arguments: str) -> str:
        """Returns what the program that runs containers says; "" if it does not answer."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            command = [self.path, *arguments]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=_SHORT_S, check=False)
            return answer.stdout.strip()
        return ""


def find_program(options: CompilerOptions) -> Program | None:
    """Returns where the compiler is, None if it is not on this machine."""
    path = shutil.which(options.container_runtime if options.image else options.compiler)
    if path is None:
        return None
    return Program(path=os.path.abspath(path), image=options.image, compiler=options.compiler)
