"""Writes what a device needs beside the model."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.quantization.contract import (
    CONTRACT_FILE,
    HEADER_FILE,
    SELFTEST_FILE,
    SNIPPET_FILE,
    TFLITE_FILE,
    VECTORS_FILE,
    arithmetic,
    selftest,
)
from components.quantization.contract.build import Knowledge, build_contract
from components.quantization.contract.c_header import c_header
from components.quantization.contract.file_metadata import ModelIdentity, with_metadata
from components.quantization.contract.golden import golden_vectors, npz_bytes, pipeline_inputs
from components.quantization.contract.schema import Contract

# How many golden vectors are made.
GOLDEN_EXAMPLES = 32

Features = Mapping[str, npt.NDArray[Any]]

_SNIPPET = '''

CONTRACT: dict[str, Any] = json.loads(
    r"""{json}"""
)


def quantize_inputs(sources: dict[str, Any]) -> dict[str, Any]:
    """Makes the model's inputs, by name, of arrays of (examples, *source_shape[1:]) by name of the input."""
    return {{entry["name"]: quantize(entry, sources[entry["name"]]) for entry in CONTRACT["inputs"]}}


def dequantize_outputs(outputs: dict[str, Any]) -> dict[str, Any]:
    """Returns the real values, by name, of the model's outputs."""
    return {{entry["name"]: dequantize(entry, outputs[entry["name"]]) for entry in CONTRACT["outputs"]}}
'''


def deploy(
    directory: Path, tflite: bytes, identity: ModelIdentity, knowledge: Knowledge, features: Features | None
) -> bytes:
    """Writes a model with its metadata, its contract, and golden vectors, which are made here.

    Args:
      directory: Where to; it must exist.
      tflite: The flatbuffer.
      identity: Who it is.
      knowledge: What is known of it; golden vectors are of its raw examples, if there are any.
      features: Examples as the model takes them, in real values by input name, to make golden vectors of otherwise;
        None for none.

    Returns:
      The flatbuffer that was written, metadata included.

    Raises:
      ValueError: As `build_contract`.
    """
    tflite = with_metadata(tflite, identity)
    built = build_contract(tflite, knowledge)
    inputs = built.inputs
    if not inputs and features is not None:
        few = {entry.name: features[entry.name][:GOLDEN_EXAMPLES] for entry in built.contract.inputs}
        inputs = pipeline_inputs(built.contract, few)
    vectors = golden_vectors(tflite, built.contract, inputs, built.sources) if inputs else None
    write_device_files(directory, tflite, built.contract, vectors)
    return tflite


def labels_by_output(
    labels: Sequence[str] | Mapping[str, Sequence[str]], outputs: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Returns the names of classes by name of the output.

    Args:
      labels: Those of the only output, those by name of several, or none.
      outputs: Names of the outputs.

    Raises:
      ValueError: If there are several outputs and labels without names.

    >>> labels_by_output(["cat", "dog"], ["scores"])
    {'scores': ('cat', 'dog')}
    """
    if isinstance(labels, Mapping):
        return {name: tuple(classes) for name, classes in labels.items()}
    if labels and len(outputs) > 1:
        raise ValueError(f"labels: got a list for outputs {', '.join(outputs)}, expected a dict by name of the output")
    return {outputs[0]: tuple(labels)} if labels else {}


def write_device_files(
    directory: Path, tflite: bytes, contract: Contract, vectors: Mapping[str, npt.NDArray[Any]] | None = None
) -> tuple[Path, ...]:
    """Writes the model, its contract and all that is made of them; what is there is overwritten.

    Args:
      directory: Where to; it must exist.
      tflite: The flatbuffer.
      contract: The contract of that very file.
      vectors: Of `golden_vectors`; None if there are no examples, and then there is no self-test either.

    Returns:
      The paths of the files.

    Raises:
      ValueError: If the contract is of another file, or an array of the vectors is of objects.
    """
    sha256 = hashlib.sha256(tflite).hexdigest()
    if sha256 != contract.tflite_sha256:
        raise ValueError(
            f"write_device_files: got a contract of {contract.tflite_sha256[:12]}, expected one of {sha256[:12]};"
            " build it of the bytes that are written, metadata included"
        )
    contents = {
        TFLITE_FILE: tflite,
        CONTRACT_FILE: contract.to_json().encode(),
        HEADER_FILE: c_header(contract).encode(),
        SNIPPET_FILE: python_snippet(contract).encode(),
    }
    if vectors is not None:
        contents |= {VECTORS_FILE: npz_bytes(vectors), SELFTEST_FILE: _source(selftest).encode()}
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    return tuple(directory / name for name in contents)


def carry_device_files(source: Path, tflite: bytes, directory: Path) -> None:
    """Writes another form of a model, such as a compiled one, with the device files of the one it was made of.

    Inputs and outputs are the same, so contract and golden vectors still hold.

    Args:
      source: Where those files are, next to the model's; some or all may be missing.
      tflite: The other form.
      directory: Where to; it must exist.

    Raises:
      ValueError: If the contract there cannot be read.
    """
    if not (source / CONTRACT_FILE).exists():
        (directory / TFLITE_FILE).write_bytes(tflite)
        return
    contract = Contract.from_json((source / CONTRACT_FILE).read_text())
    contract = dataclasses.replace(contract, tflite_sha256=hashlib.sha256(tflite).hexdigest())
    vectors = None
    if (source / VECTORS_FILE).exists():
        with np.load(source / VECTORS_FILE, allow_pickle=False) as content:
            vectors = {name: content[name] for name in content.files}
    write_device_files(directory, tflite, contract, vectors)


def python_snippet(contract: Contract) -> str:
    """Returns the contract as a Python module that needs NumPy alone: this package's own arithmetic, and constants."""
    source = _source(arithmetic).replace("from typing import Any\n", "import json\nfrom typing import Any\n", 1)
    return source + _SNIPPET.format(json=contract.to_json())


def _source(module: Any) -> str:
    return Path(module.__file__).read_text()
