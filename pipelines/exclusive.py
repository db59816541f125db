"""One run at a time in a root, and nothing left of a run that was killed."""

import contextlib
import fcntl
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipelines.config import PipelineConfig

_LOGGER = logging.getLogger(__name__)


@contextlib.contextmanager
def exclusive_root(config: PipelineConfig) -> Iterator[None]:
    """Holds a config's root for one run; the operating system lets go of it when the process ends, however it ends.

    Raises:
      ValueError: If another run holds it, or it is no local directory.
    """
    if "://" in config.root:
        raise ValueError(
            f"root {config.root!r} is no local directory; the runners of this machine keep SQLite files there"
        )
    root = Path(config.root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("w")
    except OSError as error:
        raise ValueError(f"root {root} cannot be written: {error.strerror}; pass another --root") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another run is using {root}; wait for it, or give this one another --root") from error
        if Path(config.metadata_path).is_file():
            _remove_abandoned(config)
        yield


def _remove_abandoned(config: PipelineConfig) -> None:
    """Ends executions that a killed run left behind, and removes what they had begun to write."""
    from pipelines.metadata import MetadataStore  # not at the top: another run is to be noticed without delay

    for execution in MetadataStore(config.metadata_path).end_abandoned_executions():
        begun = Path(config.pipeline_root).glob(f"{execution.component}/*/{execution.id}")
        for directory in begun:
            shutil.rmtree(directory)
        _LOGGER.warning("removed what execution %d of %s left when it was killed", execution.id, execution.component)
