"""One run at a time in a root, and nothing left of a run that was killed."""

import contextlib
import logging
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from components.retraining.directory_lock import HeldError, directory_lock
from components.retraining.span_run import BUSY_STATUS
from pipelines.config import PipelineConfig
from pipelines.metadata_connection import parse_connection

if TYPE_CHECKING:
    from pipelines.metadata import MetadataStore

_LOGGER = logging.getLogger(__name__)
# What tells a root from all others, wherever it is moved.
_ROOT_ID_FILE = ".root-id"
# Which ML Metadata a root has; without it, its own.
_PLACE_FILE = ".metadata-place"


class _BusyError(click.UsageError):
    exit_code = BUSY_STATUS


@contextlib.contextmanager
def busy_status() -> Iterator[None]:
    """Ends the command with a status of its own if another run holds the root: later it may not."""
    try:
        yield
    except HeldError as error:
        raise _BusyError(str(error)) from error


@contextlib.contextmanager
def exclusive_root(config: PipelineConfig) -> Iterator[None]:
    """Holds a config's root for one run; the operating system lets go of it when the process ends, however it ends.

    With ML Metadata that is not the root's own, root and pipeline become each other's there, so that nothing but what
    holds this root runs the pipeline.

    Raises:
      HeldError: If another run holds it.
      ValueError: If it is no local directory, it has other ML Metadata, that cannot be opened, or the pipeline is
        another root's there.
    """
    if "://" in config.root:
        raise ValueError(
            f"root {config.root!r} is no local directory; the runners of this machine keep their files there"
        )
    root = Path(config.root)
    held = f"another run is using {root}; wait for it, or give this one another --root"
    with directory_lock(root, f"root {root}", "pass another --root", held):
        own = str(root.resolve() / "metadata.sqlite")
        place = parse_connection(config.metadata_url).place
        _require_place(root, own, place)
        if place != own or Path(own).is_file():
            _take_over(config, shared=place != own)
        if place != own:
            (root / _PLACE_FILE).write_text(f"{place}\n")
        yield


def _require_place(root: Path, own: str, place: str) -> None:
    """A root's artifacts are numbered by its ML Metadata: with another they would be written over."""
    file = root / _PLACE_FILE
    before = own if Path(own).exists() else place
    if file.exists():
        before = file.read_text().strip()
    if place != before:
        raise ValueError(
            f"root {root} has its ML Metadata at {before}, not at {place}; use that, or another --root"
            + (f"; if it was moved, remove {file}" if file.exists() else "")
        )


def _take_over(config: PipelineConfig, shared: bool) -> None:
    """Ends executions that a killed run left behind, and removes what they had begun to write."""
    from pipelines.metadata import MetadataStore  # not at the top: another run is to be noticed without delay

    store = MetadataStore(config.metadata_url, create=True)
    if shared:
        _claim(config, store)
    for execution in store.end_abandoned_executions(config.name):
        begun = Path(config.pipeline_root).glob(f"{execution.component}/*/{execution.id}")
        for directory in begun:
            shutil.rmtree(directory)
        _LOGGER.warning("removed what execution %d of %s left when it was killed", execution.id, execution.component)


def _claim(config: PipelineConfig, store: "MetadataStore") -> None:
    from pipelines.metadata import Owner

    file = Path(config.root) / _ROOT_ID_FILE
    if not file.exists():
        file.write_text(f"{uuid.uuid4().hex}\n")
    mine = Owner(root_id=file.read_text().strip(), root=f"{socket.gethostname()}:{Path(config.root).resolve()}")
    owner = store.claim(config.name, mine)
    if owner.root_id != mine.root_id:
        raise ValueError(
            f"pipeline {config.name!r} of {config.metadata_url} is that of root {owner.root}, not of {mine.root}; use"
            " that root, another --metadata, or a config of another name; if that root is gone, write"
            f" {owner.root_id} into {file}"
        )
