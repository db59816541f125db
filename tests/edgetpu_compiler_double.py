"""A double of edgetpu_compiler, which is proprietary and runs on x86-64 alone: it replays what was recorded.

Called with the path of a JSON script before the compiler's own arguments; needs the standard library alone. The script:

- "version": what `--version` says;
- "calls": a file to which each call's arguments are added, as a line of JSON;
- "steps": what the first, second, ... call does; the last repeats. Of a step: "output" is printed, "files" (name to
  path) are copied to `--out_dir`, "child" names a file for the id of a child process that ignores SIGTERM, has a
  session of its own and holds the output open, "hang" waits for ever, "signal" ends the process by one, "exit" is the
  exit status;
- "known": without steps, what becomes of models, by the sha256 of their content: "compiled" is the path of the
  compiled file, "rows" the table of operations, "parameter_bytes" what is to be cached. Models get "memory_bytes" in
  their order.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_MAPPED = "Mapped to Edge TPU"
_HANG = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
_NOT_ALL = (
    "Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will"
    " instead run on the CPU, which is slower. If possible, consider updating your model to use only operations"
    " supported by the Edge TPU. For details, visit g.co/coral/model-reqs.\n"
)


def main(script_path: str, arguments: list[str]) -> int:
    """Does what the script says; returns the exit status."""
    script = json.loads(Path(script_path).read_text())
    options = _parser().parse_args(arguments)
    if options.version:
        print(f"Edge TPU Compiler version {script['version']}")
        return 0
    with Path(script["calls"]).open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    if "steps" not in script:
        return _compile_known(script, options)
    number = len(Path(script["calls"]).read_text().splitlines()) - 1
    return _replay(script["steps"][min(number, len(script["steps"]) - 1)], options)


def _parser() -> argparse.ArgumentParser:
    """The options of version 16.0, and no others."""
    parser = argparse.ArgumentParser(prog="edgetpu_compiler", allow_abbrev=False)
    parser.add_argument("-v", "--version", action="store_true")
    parser.add_argument("-i", "--intermediate_tensors")
    parser.add_argument("-m", "--min_runtime_version", type=int, choices=(10, 11, 12, 13, 14), default=14)
    parser.add_argument("-n", "--num_segments", type=int, default=1)
    parser.add_argument("-o", "--out_dir", default=".")
    parser.add_argument("-s", "--show_operations", action="store_true")
    parser.add_argument("-d", "--search_delegate", action="store_true")
    parser.add_argument("-k", "--delegate_search_step", type=int, default=1)
    parser.add_argument("-t", "--timeout_sec", type=int, default=180)
    parser.add_argument("-a", "--enable_multiple_subgraphs", action="store_true")
    parser.add_argument("models", nargs="*")
    return parser


def _replay(step: dict[str, Any], options: argparse.Namespace) -> int:
    if "child" in step:
        child = subprocess.Popen([sys.executable, "-S", "-c", _HANG], start_new_session=True)
        Path(step["child"]).write_text(str(child.pid))
    print(step.get("output", ""), end="", flush=True)
    for name, path in step.get("files", {}).items():
        shutil.copyfile(path, Path(options.out_dir) / name)
    if "signal" in step:
        os.kill(os.getpid(), step["signal"])
    if step.get("hang"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    return int(step.get("exit", 0))


def _compile_known(script: dict[str, Any], options: argparse.Namespace) -> int:
    known = [script["known"].get(hashlib.sha256(Path(model).read_bytes()).hexdigest()) for model in options.models]
    print(f"Edge TPU Compiler version {script['version']}")
    if not all(known):
        path = options.models[known.index(None)]
        print(f"Invalid model: {path}\nModel could not be parsed")
        return 1
    print("Started a compilation timeout timer of 180 seconds.\n")
    print(f"Model{'s' if len(known) > 1 else ''} compiled successfully in 12 ms.\n")
    left = script.get("memory_bytes", 2**23)
    for path, model in zip(options.models, known, strict=True):
        for segment in range(options.num_segments):
            suffix = f"_segment_{segment}_of_{options.num_segments}" if options.num_segments > 1 else ""
            left = _compile_one(f"{Path(path).stem}{suffix}", model, left, options)
    print("Compilation child process completed within timeout period.\nCompilation succeeded! ")
    return 0


def _compile_one(stem: str, model: dict[str, Any], left: int, options: argparse.Namespace) -> int:
    """Writes one file and its block; returns the memory that is left."""
    output = Path(options.out_dir) / f"{stem}_edgetpu.tflite"
    shutil.copyfile(model["compiled"], output)
    used = min(model["parameter_bytes"], left)
    counts = [sum(n for _, n, status in model["rows"] if (status == _MAPPED) == on_tpu) for on_tpu in (True, False)]
    table = "".join(f"{op:31}{n:<11}{status}\n" for op, n, status in model["rows"])
    header = f"{'Operator':31}{'Count':11}Status\n\n"
    print(f"Input model: {stem}.tflite\nInput size: 1.00KiB\nOutput model: {output.name}")
    print(f"Output size: {_size(output.stat().st_size)}")
    print(f"On-chip memory used for caching model parameters: {_size(used)}")
    print(f"On-chip memory remaining for caching model parameters: {_size(left - used)}")
    streamed = _size(model["parameter_bytes"] - used)
    print(f"Off-chip memory used for streaming uncached model parameters: {streamed}")
    print(f"Number of Edge TPU subgraphs: 1\nTotal number of operations: {sum(counts)}")
    print(f"Operation log: {output.with_suffix('.log').name}\n")
    if counts[1]:
        print(_NOT_ALL + f"Number of operations that will run on Edge TPU: {counts[0]}")
        print(f"Number of operations that will run on CPU: {counts[1]}")
    if options.show_operations:
        print(f"\n{header}{table}")
    else:
        print("See the operation log file for individual operation details.")
    output.with_suffix(".log").write_text(
        f"Edge TPU Compiler version 16.0.384591198\nInput: {stem}.tflite\nOutput: {output.name}\n\n{header}{table}"
    )
    return left - used


def _size(count: int) -> str:
    for unit, name in ((2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.2f}{name}"
    return f"{count:.2f}B"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
