"""Checks the image's environment as its user: what its containers start is there, compiled, and of the environment.

Run it with the environment's Python, outside of the repository; it fails with everything that is wrong.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

_STARTED_BY_CONTAINERS = (
    "pipelines.__main__",
    "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor",  # Kubeflow and Vertex AI
    "apache_beam.runners.worker.sdk_worker_main",  # Dataflow's workers
)
_IMPORT_EVERYTHING = f"""
import importlib, pkgutil
names = list({_STARTED_BY_CONTAINERS!r})
for package in ("components", "pipelines"):
    names += [module.name for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + ".")]
for name in names:
    importlib.import_module(name)
"""
_COMMANDS = (
    ("-m", "pipelines", "--help"),
    ("-m", "pip", "show", "apache-beam"),  # Beam's boot program gives up if this fails
    ("-W", "ignore", "-c", _IMPORT_EVERYTHING),
    ("-m", "ethosu.vela", "--version"),  # target ethos_u
)


def main() -> None:
    """Checks everything; exits with 1 and a line for each problem if there is any."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment = Path(sys.prefix)
    problems = []
    if os.getuid() != 0 and os.access(environment, os.W_OK):
        problems.append(f"{environment}: the image's user may write there, got mode {environment.stat().st_mode:o}")
    for name in _STARTED_BY_CONTAINERS:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or not Path(spec.origin).is_relative_to(environment):
            problems.append(f"{name}: expected in {environment}, got {spec and spec.origin}")
        elif not Path(importlib.util.cache_from_source(spec.origin)).exists():
            problems.append(f"{name}: {spec.origin} has no compiled bytecode")
    for arguments in _COMMANDS:
        result = subprocess.run((sys.executable, *arguments), capture_output=True, text=True)
        if result.returncode:
            end = result.stderr.strip().splitlines()[-3:]
            command = " ".join(("python", *arguments)).strip()
            problems.append("\n    ".join([f"{command}: exit status {result.returncode}", *end]))
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
