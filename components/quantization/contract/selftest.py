"""Checks a model, its I/O contract and its golden vectors on the device where it runs.

This file is copied as it is beside the model, with `io_contract.py`: it needs NumPy and any interpreter that is like
tf.lite.Interpreter, and runs on Python 3.8. `python selftest.py` checks the directory that it lies in.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib
import json
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

if __package__:
    from components.quantization.contract import arithmetic
else:  # on the device, where the directory stays as it was pushed
    sys.dont_write_bytecode = True
    import io_contract as arithmetic  # type: ignore[import-not-found,no-redef]

INTERPRETERS = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite")
_KERNELS = ("reference", "default")
_SCHEMA_VERSION = 1
_FILES = ("tflite", "io_contract.json", "golden_vectors.npz")


@dataclasses.dataclass(frozen=True)
class Check:
    """One check: its name, whether it passed, and what was found."""

    name: str
    passed: bool
    found: str


@dataclasses.dataclass(frozen=True)
class SelfTest:
    """What a self-test found.

    Attributes:
      interpreter: Dotted path of the module of the interpreter; empty if none was run.
      checks: In order; a failed one may end the test early.
    """

    interpreter: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        lines = ["{}  {:<{}}  {}".format("ok  " if c.passed else "FAIL", c.name, width, c.found) for c in self.checks]
        verdict = "passed" if self.passed else "FAILED"
        return "\n".join([*lines, "self-test {} with {}".format(verdict, self.interpreter or "no interpreter")])


def selftest(
    directory: str | Path, interpreter: str = "auto", max_lsb: float = 0.0, delegate: str | None = None
) -> SelfTest:
    """Checks a directory that holds a model with its contract and golden vectors.

    In order: the files are there and fit each other (sha256), the inputs and outputs are those of the contract, raw
    values become the golden inputs, and golden inputs become outputs that are bit by bit those of TFLite's reference
    kernels or those of its default kernels, or no more than `max_lsb` steps from the nearer of both.

    Args:
      directory: Where "tflite", "io_contract.json" and "golden_vectors.npz" are.
      interpreter: Dotted path of a module with a class Interpreter; "auto" for the first of `INTERPRETERS` there is.
      max_lsb: Largest difference of an output that passes, in steps of its integers (of a float32 output, in float32
        steps at the largest value).
      delegate: Path of a delegate's shared library, which the interpreter's module loads; None for none.

    Raises:
      ValueError: If there is no such interpreter.
    """
    directory = Path(directory)
    checks, contract = _check_files(directory)
    if contract is None:
        return SelfTest("", tuple(checks))
    name, module = _interpreter_module(interpreter)
    options = {"experimental_delegates": [_load_delegate(module, delegate)]} if delegate else {}
    try:
        model = module.Interpreter(model_path=str(directory / _FILES[0]), **options)
        model.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        return SelfTest(name, (*checks, Check("load", False, str(error))))
    try:
        with (directory / _FILES[2]).open("rb") as content, np.load(content, allow_pickle=False) as file:
            vectors = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        return SelfTest(name, (*checks, Check("golden vectors", False, f"cannot be read: {error}")))
    try:
        edges = _check_edges(model, contract)
        checks += edges
        checks += check_preparation(contract, vectors)
        if all(check.passed for check in edges):
            checks += _check_outputs(model, contract, vectors, max_lsb)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        checks.append(Check("run", False, f"contract or golden vectors do not fit: {error!r}"))
    return SelfTest(name, tuple(checks))


def _check_files(directory: Path) -> tuple[list[Check], Any]:
    missing = [name for name in _FILES if not (directory / name).is_file()]
    checks = [Check("files", not missing, "missing: {}".format(", ".join(missing)) if missing else "all are there")]
    if missing:
        return checks, None
    try:
        contract = json.loads((directory / _FILES[1]).read_text())
        version = contract["schema_version"]
        expected = str(contract["tflite_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        return [*checks, Check("contract", False, f"cannot be read: {error!r}")], None
    if version != _SCHEMA_VERSION:
        found = f"schema_version {version!r}, expected {_SCHEMA_VERSION}"
        return [*checks, Check("contract", False, found)], None
    sha256 = hashlib.sha256((directory / _FILES[0]).read_bytes()).hexdigest()
    same = sha256 == expected
    found = sha256[:12] if same else f"{sha256[:12]} is not the contract's {expected[:12]}"
    # A file that is not the contract's may be corrupt, and an interpreter may crash on it.
    return [*checks, Check("sha256", same, found)], contract if same else None


def _interpreter_module(name: str) -> tuple[str, Any]:
    tried = []
    for path in INTERPRETERS if name == "auto" else (name,):
        try:
            module = _module(path)
        except ImportError as error:
            tried.append(f"{path} ({error})")
            continue
        if hasattr(module, "Interpreter"):
            return path, module
        tried.append(f"{path} (has no Interpreter)")
    raise ValueError("selftest: no TFLite interpreter; tried {}; install one of them".format(", ".join(tried)))


def _module(path: str) -> Any:
    """A module, or what its package offers under that name: tensorflow.lite is both, and only the latter will do."""
    package, _, name = path.rpartition(".")
    offered = getattr(importlib.import_module(package), name, None) if package else None
    return offered if hasattr(offered, "Interpreter") else importlib.import_module(path)


def _load_delegate(module: Any, path: str) -> Any:
    loader = getattr(module, "load_delegate", None) or module.experimental.load_delegate
    return loader(path)


def _check_edges(model: Any, contract: dict[str, Any]) -> list[Check]:
    checks = []
    sides = (("inputs", model.get_input_details()), ("outputs", model.get_output_details()))
    for side, details in sides:
        by_index = {int(detail["index"]): detail for detail in details}
        for entry in contract[side]:
            detail = by_index.get(entry["tensor_index"])
            wrong = ["there is no such tensor"] if detail is None else _differences(detail, entry)
            name = "{} {}".format(side[:-1], entry["name"])
            found = "; ".join(wrong) or "{} {}".format(entry["dtype"], list(entry["shape"]))
            checks.append(Check(name, not wrong, found))
    return checks


def _differences(detail: dict[str, Any], entry: dict[str, Any]) -> list[str]:
    scale, zero_point = detail["quantization"]
    pairs = (
        ("shape", [int(size) for size in detail["shape"]], list(entry["shape"])),
        ("dtype", np.dtype(detail["dtype"]).name, entry["dtype"]),
        ("scale", float(scale) or None, entry["scale"]),
        ("zero_point", int(zero_point), entry["zero_point"]),
    )
    return ["{}: the model has {}, the contract {}".format(*pair) for pair in pairs if pair[1] != pair[2]]


def check_preparation(contract: dict[str, Any], vectors: dict[str, Any]) -> list[Check]:
    """Returns for each input whose raw values are known whether they become the golden input by the contract."""
    checks = []
    for entry in contract["inputs"]:
        key = "source/{}".format(entry["name"])
        if key not in vectors:
            continue
        name = "prepare {}".format(entry["name"])
        try:
            made = arithmetic.quantize(entry, vectors[key])
            different = int(np.sum(made != vectors["input/{}".format(entry["name"])]))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            checks.append(Check(name, False, str(error)))
            continue
        found = "{}: {} of {} integers differ".format(entry["preparation"]["kind"], different, made.size)
        checks.append(Check(name, not different, found))
    return checks


def _check_outputs(model: Any, contract: dict[str, Any], vectors: dict[str, Any], max_lsb: float) -> list[Check]:
    outputs = contract["outputs"]
    lacking = [
        key
        for key in (
            *("input/{}".format(entry["name"]) for entry in contract["inputs"]),
            *("{}/{}".format(kernels, entry["name"]) for kernels in _KERNELS for entry in outputs),
        )
        if key not in vectors
    ]
    if lacking:
        return [Check("golden vectors", False, "lack {}".format(", ".join(lacking)))]
    made = run_vectors(model, contract, vectors)
    steps = {
        kernels: {e["name"]: steps_apart(made[e["name"]], vectors["{}/{}".format(kernels, e["name"])]) for e in outputs}
        for kernels in _KERNELS
    }
    nearest = min(_KERNELS, key=lambda kernels: max(steps[kernels].values()))
    count = len(next(iter(made.values())))
    return [
        Check(
            "golden {}".format(entry["name"]),
            steps[nearest][entry["name"]] <= max_lsb,
            "{} examples: at most {:g} {} from the reference kernels, {:g} from the default".format(
                count,
                steps["reference"][entry["name"]],
                "float32 steps" if entry["dtype"] == "float32" else "steps",
                steps["default"][entry["name"]],
            ),
        )
        for entry in outputs
    ]


def run_vectors(model: Any, contract: dict[str, Any], vectors: dict[str, Any]) -> dict[str, Any]:
    """Returns the outputs by name that a loaded model gives for golden inputs, one example at a time."""
    rows: dict[str, list[Any]] = {entry["name"]: [] for entry in contract["outputs"]}
    inputs = {entry["tensor_index"]: vectors["input/{}".format(entry["name"])] for entry in contract["inputs"]}
    for row in range(len(next(iter(inputs.values())))):
        if hasattr(model, "reset_all_variables"):
            model.reset_all_variables()
        for index, values in inputs.items():
            model.set_tensor(index, values[row : row + 1])
        model.invoke()
        for entry in contract["outputs"]:
            rows[entry["name"]].append(np.array(model.get_tensor(entry["tensor_index"])))
    return {name: np.concatenate(values) for name, values in rows.items()}


def steps_apart(made: Any, expected: Any) -> float:
    """Returns the largest difference of an output in steps of its integers, infinite if shapes or types differ."""
    if made.shape != expected.shape or made.dtype != expected.dtype:
        return float("inf")
    difference = np.abs(made.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)
    if made.dtype.kind == "f":
        difference /= np.spacing(np.abs(expected).max(initial=np.float32(0)))
    return float("inf") if np.isnan(difference) else float(difference)


def main() -> int:
    """Runs the self-test of a directory; returns 0 if it passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", default=str(Path(__file__).parent))
    parser.add_argument("--interpreter", default="auto", help="dotted path of its module")
    parser.add_argument("--max-lsb", type=float, default=0.0, help="largest difference that passes, in integer steps")
    parser.add_argument("--delegate", help="path of a delegate's shared library")
    arguments = parser.parse_args()
    try:
        found = selftest(arguments.directory, arguments.interpreter, arguments.max_lsb, arguments.delegate)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{found}\n")
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main())
