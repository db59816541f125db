"""What `doctor` asks a clean process: run by `python -I -m pipelines.probe`, so that only what is installed is found.

Reads one JSON list of questions from standard input; writes one JSON line [index, answer, error] for each, to the
descriptor that stdout was, while libraries may print what they like to stderr.
"""

import importlib
import json
import os
import platform
import sys
import uuid
import warnings
from importlib import metadata
from typing import Any


def import_name(path: str) -> str:
    """Imports a module or a class by its dotted path; returns the file it is from."""
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        parent, _, name = path.rpartition(".")
        if error.name != path or not parent:
            raise
        module = importlib.import_module(parent)
        getattr(module, name)
    return str(module.__file__)


def versions(_: str) -> dict[str, str]:
    """Returns versions of what decides a result, and "python", "editable"."""
    from components.quantization import toolchain

    origin = json.loads(metadata.distribution("tfx-qat").read_text("direct_url.json") or "{}")
    editable = origin.get("url", "") if origin.get("dir_info", {}).get("editable") else ""
    return {**toolchain.versions(), "python": platform.python_version(), "editable": editable}


def compiler(target_and_options: str) -> str:
    """Returns the version of a target's compiler here, empty without one; after the target, JSON of its options."""
    from components.targets import load_target

    target, _, options = target_and_options.partition(" ")
    return load_target(target).compiler_version(options)


def writable(directory: str) -> str:
    """Writes, reads and removes a file under a directory in object storage.

    Makes no directories: there are none, and TensorFlow asks for those of a missing bucket without end.
    """
    from tfx.dsl.io import fileio

    file = os.path.join(directory, f".tfx-qat-{uuid.uuid4().hex}")
    with fileio.open(file, "w") as stream:
        stream.write("probe")
    with fileio.open(file, "r") as stream:
        if stream.read() != "probe":
            raise OSError("what was written is not what is read")
    try:
        fileio.remove(file)
    except Exception as error:
        raise OSError(f"{file} was written but cannot be removed: {error}") from error
    return ""


def files(directory: str) -> int:
    """Returns how many files a directory has, 0 if it is not there."""
    from tfx.dsl.io import fileio

    # Not `isdir` or `listdir`, which take every error for an answer.
    return len(fileio.listdir(directory)) if fileio.exists(directory) else 0


_QUESTIONS = {"import": import_name, "versions": versions, "compiler": compiler, "writable": writable, "files": files}


def main() -> None:
    """Answers the questions on standard input."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for index, (kind, argument) in enumerate(json.loads(sys.stdin.read())):
        answer: Any = None
        error = ""
        try:
            answer = _QUESTIONS[kind](argument)
        except BaseException as caught:  # whatever user code does, SystemExit included, is the answer
            error = f"{type(caught).__name__}: {caught}".split("\n")[0]
        print(json.dumps([index, answer, error]), file=answers, flush=True)


if __name__ == "__main__":
    main()
