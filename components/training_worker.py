"""What a machine runs when several train as one task: TFX's entry point, told what is this machine's to write.

python -m components.training_worker takes the arguments of TFX's kubeflow_v2_run_executor. It keeps two things from it:
the output parameters of the task's launcher, of which TFX knows nothing and refuses them, and, where this is not the
chief, the executor's output file, which says what the chief has published.
"""

import json
import runpy
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from components.quantization.qat.distribution import is_chief_task

RUN_EXECUTOR = "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"
_EXECUTOR_INPUT = "--json_serialized_invocation_args"


def worker_arguments(arguments: Sequence[str], is_chief: bool, scratch: Path) -> list[str]:
    """Returns the arguments of TFX's entry point on this machine.

    Args:
      arguments: Those of the task, which are the same on all machines.
      is_chief: Whether this one publishes.
      scratch: Local directory for what all others would write.
    """
    changed = list(arguments)
    place = changed.index(_EXECUTOR_INPUT) + 1
    told = json.loads(changed[place])
    told["outputs"].pop("parameters", None)
    if not is_chief:
        told["outputs"]["outputFile"] = str(scratch / "executor_output.json")
    changed[place] = json.dumps(told)
    return changed


def main() -> None:
    """Runs the task's executor on this machine."""
    is_chief = is_chief_task(tf.distribute.cluster_resolver.TFConfigClusterResolver())
    with tempfile.TemporaryDirectory(prefix="tfx-qat-") as scratch:
        sys.argv[1:] = worker_arguments(sys.argv[1:], is_chief, Path(scratch))
        runpy.run_module(RUN_EXECUTOR, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
