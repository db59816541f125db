"""Where files lie inside a Model artifact, and how they get in and out. The only code that handles model URIs.

{uri}/
  Format-Serving/         a SavedModel (saved_model.pb, variables/, ...) or one TFLite file called `tflite`, with what a
                          device needs beside it
  compile_report.json     of a compiled model: a CompileReport of components/targets
  mapping.json            of a compiled model, if it is known: where each op runs, by its index in the model before
  facts.json              what is known of the model; the same as the artifact's custom properties

{uri}.failed/             in place of a model that could not be made: what the program that failed wrote
"""

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.io import fileio
from tfx.types import standard_artifacts
from tfx.utils import io_utils, path_utils

from components.quantization.contract import CONTRACT_FILE

SERVING_DIR = path_utils.serving_model_dir("").strip("/")
TFLITE_FILE = "tflite"  # the name that TFX's rewriter writes and TFMA's loader reads
FACTS_FILE = "facts.json"
COMPILE_REPORT_FILE = "compile_report.json"
MAPPING_FILE = "mapping.json"
SHA256_OF = "sha256_of_"
"""Beginning of the property, of an artifact of several models, with the hash of `{name}/tflite`; the name follows."""
_PARTIAL_DIR = ".partial"

Fact = str | int | float


def serving_path(artifact: types.Artifact) -> str:
    """Returns the URI of the directory that holds the SavedModel or the TFLite file."""
    return path_utils.serving_model_path(artifact.uri, path_utils.is_old_model_artifact(artifact))


def read_tflite(artifact: types.Artifact) -> bytes:
    """Returns the TFLite flatbuffer of a Model artifact.

    Raises:
      ValueError: If it holds none.
    """
    path = os.path.join(serving_path(artifact), TFLITE_FILE)
    if not fileio.exists(path):
        raise ValueError(f"model artifact {artifact.uri} has no {SERVING_DIR}/{TFLITE_FILE}; connect a TFLite model")
    with fileio.open(path, "rb") as file:
        content: bytes = file.read()
    return content


def read_compile_report(artifact: types.Artifact) -> dict[str, Any] | None:
    """Returns the report beside a compiled model; None if its maker left none."""
    path = os.path.join(artifact.uri, COMPILE_REPORT_FILE)
    if not fileio.exists(path):
        return None
    report: dict[str, Any] = json.loads(io_utils.read_string_file(path))
    return report


def serving_directory(directory: Path) -> Path:
    """Makes the directory of what is served in a staged artifact, and returns it."""
    serving = directory / SERVING_DIR
    serving.mkdir()
    return serving


def read_contract(artifact: types.Artifact) -> str:
    """Returns the io_contract.json of a TFLite model; "" if it has none."""
    path = os.path.join(serving_path(artifact), CONTRACT_FILE)
    if not fileio.exists(path):
        return ""
    with fileio.open(path, "r") as file:
        content: str = file.read()
    return content


def float_model_of(artifact: types.Artifact) -> types.Artifact:
    """Returns the float model that a model was made from; a model that was made from none is one itself."""
    uri = artifact.get_string_custom_property("float_model_uri")
    if not uri:
        return artifact
    model = standard_artifacts.Model()
    model.uri = uri
    return model


@contextlib.contextmanager
def local_saved_model(artifact: types.Artifact) -> Iterator[Path]:
    """Gives the local path of the artifact's SavedModel, copied if its URI is remote.

    Raises:
      ValueError: If it holds none.
    """
    uri = serving_path(artifact)
    if not fileio.exists(os.path.join(uri, "saved_model.pb")):
        raise ValueError(f"model artifact {artifact.uri} has no {SERVING_DIR}/saved_model.pb; connect a SavedModel")
    with local_serving(artifact) as directory:
        yield directory


@contextlib.contextmanager
def local_serving(artifact: types.Artifact) -> Iterator[Path]:
    """Gives the local path of what the artifact serves, copied if its URI is remote."""
    with local_directory(serving_path(artifact)) as directory:
        yield directory


@contextlib.contextmanager
def local_directory(uri: str) -> Iterator[Path]:
    """Gives the local path of a directory, copied if its URI is remote."""
    if "://" not in uri:
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="tfx-qat-") as directory:
        io_utils.copy_dir(uri, directory)
        yield Path(directory)


@contextlib.contextmanager
def staged_output(artifact: types.Artifact) -> Iterator[Path]:
    """Gives a local directory whose content becomes the artifact's when the block ends well, and never else.

    The directory is seen by this machine alone: for what Beam's workers write, take `partial_output`.
    """
    with tempfile.TemporaryDirectory(prefix="tfx-qat-") as directory:
        yield Path(directory)
        with partial_output(artifact) as partial:
            io_utils.copy_dir(directory, partial)


@contextlib.contextmanager
def partial_output(artifact: types.Artifact) -> Iterator[str]:
    """Gives a URI below the artifact's, whose content becomes the artifact's when the block ends well, and never else.

    Whatever machine sees the artifact may write there. What an earlier attempt left is removed first; workers of it
    that still write have another URI.
    """
    _remove(artifact.uri)
    partial = os.path.join(artifact.uri, f"{_PARTIAL_DIR}-{uuid.uuid4().hex}")
    fileio.makedirs(partial)
    try:
        yield partial
    except BaseException:
        _remove(artifact.uri)
        raise
    for name in fileio.listdir(partial):
        name = name.rstrip("/")  # object stores list folders so
        fileio.rename(os.path.join(partial, name), os.path.join(artifact.uri, name))
    fileio.rmtree(partial)


def _remove(uri: str) -> None:
    if fileio.exists(uri):
        fileio.rmtree(uri)


def keep_failed(artifact: types.Artifact, directory: Path, log: str) -> str:
    """Copies what a program wrote before it failed beside the artifact's place, where nothing removes it.

    Args:
      artifact: What would have been made.
      directory: With what the program wrote; need not be there.
      log: All that it said; becomes `error.log`.

    Returns:
      The URI of the copy, `{uri}.failed`; what an earlier attempt left there is gone.
    """
    uri = f"{artifact.uri.rstrip('/')}.failed"
    _remove(uri)
    if directory.is_dir():
        io_utils.copy_dir(str(directory), uri)
    io_utils.write_string_file(os.path.join(uri, "error.log"), log)
    return uri


def record_facts(artifact: types.Artifact, directory: Path, facts: Mapping[str, Fact]) -> None:
    """Writes facts beside the model, in its staged directory, and into the artifact's custom properties."""
    (directory / FACTS_FILE).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    set_facts(artifact, facts)


def set_facts(artifact: types.Artifact, facts: Mapping[str, Fact]) -> None:
    """Writes facts into the artifact's custom properties."""
    for name, value in facts.items():
        if isinstance(value, str):
            artifact.set_string_custom_property(name, value)
        elif isinstance(value, float):
            artifact.set_float_custom_property(name, value)
        else:
            artifact.set_int_custom_property(name, value)


def read_facts(artifact: types.Artifact) -> dict[str, Fact]:
    """Returns what was recorded beside a model; empty for a model of another maker."""
    path = os.path.join(artifact.uri, FACTS_FILE)
    if not fileio.exists(path):
        return {}
    with fileio.open(path, "r") as file:
        facts: dict[str, Fact] = json.loads(file.read())
    return facts
