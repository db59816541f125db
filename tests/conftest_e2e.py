"""Runs of the digits pipeline through the command line, each in a process of its own, as a user runs it."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: where it kept things, its exit status and what it printed."""

    root: Path
    status: int
    output: str

    @property
    def pushed(self) -> list[Path]:
        """The pushed files."""
        return sorted((self.root / "pushed").glob("*/tflite"))


def command(*arguments: str) -> list[str]:
    """The command line of the pipelines."""
    return [sys.executable, "-m", "pipelines", *arguments]


def run_digits(root: Path, *arguments: str) -> Run:
    """Runs the digits pipeline and waits for its end."""
    result = subprocess.run(
        command("run", "digits", "--root", str(root), *arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return Run(root, result.returncode, result.stdout + result.stderr)


@pytest.fixture(scope="session")
def local_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A first run by LocalDagRunner."""
    return run_digits(tmp_path_factory.mktemp("local"), "--runner", "local")
