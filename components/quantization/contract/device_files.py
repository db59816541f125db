"""Writes what a device needs beside the model."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from components.quantization.contract.c_header import c_header
from components.quantization.contract.golden import npz_bytes
from components.quantization.contract.schema import Contract

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


def python_snippet(contract: Contract) -> str:
    """Returns the contract as a Python module that needs NumPy alone: this package's own arithmetic, and constants."""
    source = _source(arithmetic).replace("from typing import Any\n", "import json\nfrom typing import Any\n", 1)
    return source + _SNIPPET.format(json=contract.to_json())


def _source(module: Any) -> str:
    return Path(module.__file__).read_text()
