"""Manifest: what a pushed version consists of, and the two hashes that say when two versions are the same.

`sha256` is made of the paths and bytes of all files, and names the directory: whoever writes a file of a version writes
the same bytes. So any number of pushes may write into it at once, die and be repeated, on a disk as in an object store,
without a lock.

`model_sha256` leaves out who made the model. A .tflite file of ours names its run in its metadata, and the files beside
it name the .tflite file by its hash, so each run makes other bytes even if it trains the same model again. Here the
file counts without that entry, and its hash in other files for what it then is. Versions that are equal so are the same
model, of which one is enough. The hash is computed, not taken from the entry, which a compiler may have carried over.
It cannot name the directory: two runs would write other bytes there, and files of one might lie under the manifest of
the other.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from components.quantization.contract.file_metadata import without_metadata

MANIFEST_FILE = "manifest.json"
REPORT_FILE = "report.html"
"""A page on the model, beside it: it tells of one run, so it counts for neither hash and is not in the manifest."""
VERSION_FORM = re.compile(r"[0-9a-f]{12}")
_FORMAT = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHORT = 12
_CHUNK_BYTES = 1 << 20
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/schema/schema.fbs (file_identifier)
_TFLITE_IDENTIFIER = slice(4, 8), b"TFL3"

Fact = str | int | float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FileDigest:
    """The bytes of a file: their sha256 in hexadecimal, and how many."""

    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, file: BinaryIO) -> "FileDigest":
        """Reads a file to its end."""
        found, size = hashlib.sha256(), 0
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
            size += len(chunk)
        return cls(sha256=found.hexdigest(), size_bytes=size)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a version is.

    Attributes:
      sha256: Hash of all files' paths and bytes.
      model_sha256: The same without what names the run.
      files: All files but the manifest itself and the report, by their path in the version's directory.
      facts: What is known of the model.
      run_id: The run that pushed it first; empty if unknown.
      pushed_at: When, in UTC, as 2026-11-25T13:36:52Z.
    """

    sha256: str
    model_sha256: str
    files: Mapping[str, FileDigest]
    facts: Mapping[str, Fact]
    run_id: str
    pushed_at: str

    @property
    def version(self) -> str:
        """The name of its directory."""
        return self.sha256[:_SHORT]

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return sum(digest.size_bytes for digest in self.files.values())

    def to_json(self) -> str:
        """Returns the text of the manifest's file."""
        return json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Reads the text of a manifest's file.

        Raises:
          ValueError: If it is none, of another format, or its hash is not that of its files.
        """
        try:
            fields = json.loads(text)
            if fields.pop("format") != _FORMAT:
                raise ValueError(f"its format is not {_FORMAT}")
            files = {path: FileDigest(**digest) for path, digest in fields.pop("files").items()}
            manifest = cls(files=files, **fields)
            if not all(_SHA256.fullmatch(text) for text in (manifest.sha256, manifest.model_sha256)):
                raise ValueError("a hash is no sha256")
            if manifest.sha256 != _sha256_of({path: digest.sha256 for path, digest in files.items()}):
                raise ValueError("its hash is not that of its files")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"manifest cannot be read: {error}; push the model again") from error
        if outside := [path for path in files if PurePosixPath(path).is_absolute() or ".." in path.split("/")]:
            raise ValueError(f"manifest names files outside of its directory: {', '.join(outside)}")
        return manifest

    def differences(self, found: Mapping[str, FileDigest | None]) -> list[str]:
        """Returns one sentence for each file that is not as it should be.

        Args:
          found: What lies there, for each of the manifest's files; None for what is missing.
        """
        sentences = []
        for path, expected in sorted(self.files.items()):
            actual = found[path]
            if actual is None:
                sentences.append(f"{path}: is missing")
            elif actual != expected:
                sentences.append(
                    f"{path}: got {actual.size_bytes:,} bytes of sha256 {actual.sha256[:_SHORT]}, expected"
                    f" {expected.size_bytes:,} of {expected.sha256[:_SHORT]}"
                )
        return sentences


def build_manifest(directory: Path, *, facts: Mapping[str, Fact], run_id: str, pushed_at: str) -> Manifest:
    """Returns the manifest of what lies in a directory, subdirectories included.

    Raises:
      ValueError: If nothing does, a file has the manifest's name, or a TFLite file is damaged.
    """
    paths = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    if not paths:
        raise ValueError(f"{directory}: got no files, expected a model; nothing can be pushed")
    if reserved := sorted({MANIFEST_FILE, REPORT_FILE} & set(paths)):
        raise ValueError(
            f"{directory}: got {' and '.join(reserved)}, which a push writes itself; rename what is called so"
        )
    files = {}
    for path in paths:
        with (directory / path).open("rb") as file:
            files[path] = FileDigest.of(file)
    digests = {path: digest.sha256 for path, digest in files.items()}
    return Manifest(
        sha256=_sha256_of(digests),
        model_sha256=_sha256_of(_without_run(directory, digests)),
        files=files,
        facts=dict(facts),
        run_id=run_id,
        pushed_at=pushed_at,
    )


def _sha256_of(digests: Mapping[str, str]) -> str:
    """The hash of what `sha256sum` prints of the files, sorted by path."""
    return hashlib.sha256("".join(f"{digests[path]}  {path}\n" for path in sorted(digests)).encode()).hexdigest()


def _without_run(directory: Path, digests: Mapping[str, str]) -> dict[str, str]:
    """The digests of a model's files as if its TFLite files did not name their run."""
    contents = {}
    for path, digest in digests.items():
        with (directory / path).open("rb") as file:
            is_tflite = file.read(_TFLITE_IDENTIFIER[0].stop)[_TFLITE_IDENTIFIER[0]] == _TFLITE_IDENTIFIER[1]
        if is_tflite:
            contents[digest] = hashlib.sha256(without_metadata((directory / path).read_bytes())).hexdigest()
    if not contents:
        return dict(digests)
    return {path: contents.get(digest) or _renamed(directory / path, contents) for path, digest in digests.items()}


def _renamed(path: Path, contents: Mapping[str, str]) -> str:
    """The digest of a file in which other files are called by their content."""
    read = path.read_bytes()
    for digest, content in contents.items():
        read = read.replace(digest.encode(), content.encode())
    return hashlib.sha256(read).hexdigest()
