"""Who a TFLite file is, written into the file: an entry of its metadata that interpreters ignore.

The entry is a buffer of JSON, as https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/schema/schema.fbs
provides for. The packed "labels.txt" of TFLite's task library, a zip file behind the flatbuffer, is not written: it
needs a description of the model by a second schema, and compilers for accelerators drop or refuse it.
"""

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.tflite_schema import schema

ENTRY = "tfx_qat"
_VERSION = 1
_ENTRY_START = b'{"content_sha256":"'  # the first of its fields, as `with_metadata` sorts them
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelIdentity:
    """What a file says of itself.

    Attributes:
      run_id: The pipeline run that made it; empty if none did.
      parent_sha256: Hash of the trained model that it was converted from; empty if unknown.
      scheme: The scheme as canonical JSON.
      labels: The names of the last axis of each output that has some, by the output's name.
      versions: What it was made with, by distribution.
    """

    run_id: str = ""
    parent_sha256: str = ""
    scheme: str = ""
    labels: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FileMetadata:
    """What was found in a file.

    Attributes:
      model_uuid: Made of `content_sha256`: models that compute the same bit by bit have the same.
      content_sha256: Hash of the file without the entry.
      identity: The rest.
    """

    model_uuid: str
    content_sha256: str
    identity: ModelIdentity


def with_metadata(tflite: bytes, identity: ModelIdentity) -> bytes:
    """Returns the file with an entry that says who it is, in place of an earlier one; other entries stay.

    Deterministic. The file is packed anew, so bytes differ from the converter's; see `without_metadata`.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer.
    """
    plain = without_metadata(tflite)
    sha256 = hashlib.sha256(plain).hexdigest()
    fields = {
        "version": _VERSION,
        "model_uuid": str(uuid.uuid5(_NAMESPACE, sha256)),
        "content_sha256": sha256,
        **dataclasses.asdict(identity),
    }
    model = flatbuffer.read_object(plain)
    entry, buffer = schema.MetadataT(), schema.BufferT()
    content = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    buffer.data = np.frombuffer(content, np.uint8)
    entry.name, entry.buffer = ENTRY.encode(), len(model.buffers)
    model.buffers = [*model.buffers, buffer]
    model.metadata = [*(model.metadata or []), entry]
    return flatbuffer.write_object(model)


def without_metadata(tflite: bytes) -> bytes:
    """Returns the file without the entry, packed in one way.

    Two files are equal so if and only if they are but for the entry and the order in which their parts lie; so
    without_metadata(with_metadata(x, anything)) == without_metadata(x) for every x.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer.
    """
    model = _read(tflite)
    kept = [entry for entry in model.metadata or [] if _name(entry) != ENTRY]
    dropped = {entry.buffer for entry in model.metadata or [] if _name(entry) == ENTRY}
    # Buffers are referred to by index: only the last can go.
    used = {tensor.buffer for graph in model.subgraphs or [] for tensor in graph.tensors or []}
    used |= {entry.buffer for entry in kept}
    while len(model.buffers or []) - 1 in dropped - used:
        model.buffers = model.buffers[:-1]
    for index in dropped - used:
        if index < len(model.buffers or []):
            model.buffers[index].data = None
    model.metadata = kept or None
    return flatbuffer.write_object(model)


def content_sha256(tflite: bytes) -> str:
    """Returns the sha256 of a file without the entry, as the entry itself holds it.

    Raises:
      ValueError: As `read_metadata`.
    """
    found = read_metadata(tflite)
    return found.content_sha256 if found else hashlib.sha256(without_metadata(tflite)).hexdigest()


def read_metadata(tflite: bytes) -> FileMetadata | None:
    """Returns what a file says of itself; None if it has no such entry.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer, or the entry is of another version or damaged.
    """
    model = _read(tflite)
    found = [entry.buffer for entry in model.metadata or [] if _name(entry) == ENTRY]
    if not found:
        return None
    try:
        return _from_fields(json.loads(bytes(bytearray(model.buffers[found[0]].data))))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"TFLite metadata {ENTRY!r} cannot be read: {error}") from error


def find_metadata(content: bytes) -> FileMetadata | None:
    """Returns what the bytes of a file say of it, though they may be no TFLite flatbuffer any more; None for nothing.

    It is a hint of a damaged file. Of a whole one `read_metadata` tells more surely.
    """
    at = content.find(_ENTRY_START)
    if at < 0:
        return None
    try:
        fields, _ = json.JSONDecoder().raw_decode(content[at:].decode("latin-1"))
        return _from_fields(fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _from_fields(fields: dict[str, Any]) -> FileMetadata:
    version = fields.pop("version")
    if version != _VERSION:
        raise ValueError(f"version {version!r}, expected {_VERSION}")
    uuid_, sha256 = fields.pop("model_uuid"), fields.pop("content_sha256")
    fields["labels"] = {name: tuple(labels) for name, labels in fields["labels"].items()}
    return FileMetadata(model_uuid=uuid_, content_sha256=sha256, identity=ModelIdentity(**fields))


def _read(tflite: bytes) -> Any:
    try:
        return flatbuffer.read_object(tflite)
    except ValueError:
        raise
    except Exception as error:  # flatbuffers raises what its reader stumbles over: struct, index or type errors
        raise ValueError(f"TFLite flatbuffer of {len(tflite)} bytes cannot be parsed: {error}") from error


def _name(entry: Any) -> str:
    return str((entry.name or b"").decode(errors="replace"))
