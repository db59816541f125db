"""What uv.lock pins for each stack, as what is installed: without the tools of developers, with all extras."""

import os
import shutil
import subprocess
from pathlib import Path

# Named as in README; each is chosen by Python's version.
STACKS = {"tfx-1.16": "3.10", "tfx-1.21": "3.13"}

_EXPORT = ("export", "--quiet", "--locked", "--no-default-groups", "--group", "image", "--all-extras")


def environment(stack: str) -> dict[str, str]:
    """The environment that the markers of uv.lock are evaluated in: Linux on x86-64, as TFX has wheels for."""
    python = STACKS[stack]
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }


def uv(*arguments: str, directory: Path = Path()) -> str:
    """Runs uv, the one that `make setup` found or installed; returns what it prints.

    Raises:
        ValueError: uv is not here, or it failed, which its output tells about.
    """
    local = Path(".uv/bin/uv")
    program = os.environ.get("UV") or (str(local.resolve()) if local.exists() else shutil.which("uv"))
    if program is None:
        raise ValueError("uv is not here; run `make setup`")
    result = subprocess.run((program, *arguments), capture_output=True, text=True, cwd=directory)
    if result.returncode:
        raise ValueError(f"uv {' '.join(arguments)}: exit status {result.returncode}\n{result.stderr.strip()}")
    return result.stdout


def export(form: str, *, directory: Path = Path()) -> str:
    """What uv.lock pins for all stacks, in a form that uv knows: requirements.txt or cyclonedx1.5."""
    return uv(*_EXPORT, "--format", form, directory=directory)
