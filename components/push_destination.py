"""Where models are pushed: a directory on a disk or in an object store, and the only code that writes there.

{uri}/
  {version}/        the files of a model, and manifest.json, which comes last: without it a version is incomplete;
                    beside them perhaps report.html, which is for people and no part of the model
  latest            the name of the version to use, and a newline
  history/          one file for each move of `latest`, see components/delivery/history.py
  .incoming/        a directory for each push under way: all that it writes, before it puts it in place

Every file is put in place at once, by renaming it, and no complete version ever changes. A push copies all files into
its own directory, puts them in place, reads them back, makes the version complete, adds its entry to the history, and
then moves the pointer: killed at any point, it leaves the pointer at a complete version, and run again it goes on from
there. Pushes at the same time need no lock: they write the same bytes to the same places
(components/delivery/manifest.py), and each moves the pointer as components/latest_pointer.py says, so that the last of
them leaves it at the newest entry.

Nothing is ever removed of a version, as a push of it may begin at any moment. What a push that died has left is its own
directory: if all files were copied there, the version may have some of them, and gets the others; then it is removed.

Renaming is atomic on POSIX file systems; in an object store it copies one object, which is atomic too. Listing must
show what was written before, as it does there: https://cloud.google.com/storage/docs/consistency
"""

import contextlib
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfx.dsl.io import fileio

from components import latest_pointer, pushed_files
from components.delivery import history
from components.delivery.history import Entry
from components.delivery.manifest import MANIFEST_FILE, REPORT_FILE, VERSION_FORM, Manifest
from components.latest_pointer import INCOMING_DIR, LATEST_FILE

_HISTORY_DIR = "history"
# No push takes so long: what is older was left by one that died. One that lives on finds its files gone, and fails.
_ABANDONED_AFTER_S = 3600
_STAGE = re.compile(r"([0-9a-f]{12})\.(\d+)\.[0-9a-f]{32}")

_LOGGER = logging.getLogger(__name__)


class PushDestination:
    """The versions in one directory."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def path(self, version: str) -> str:
        """Returns the directory of a version."""
        return os.path.join(self.uri, version)

    def latest(self) -> str:
        """Returns the version that the pointer names; empty if it names none, as before the first push."""
        path = os.path.join(self.uri, LATEST_FILE)
        text = pushed_files.read(path).strip() if fileio.exists(path) else ""
        return text if VERSION_FORM.fullmatch(text) else ""

    def manifest(self, version: str) -> Manifest | None:
        """Returns the manifest of a version; None if the version is not there or incomplete.

        Raises:
          ValueError: If it cannot be read, or is that of another version.
        """
        if not self._is_complete(version):
            return None
        path = os.path.join(self.path(version), MANIFEST_FILE)
        try:
            manifest = Manifest.from_json(pushed_files.read(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if manifest.version != version:
            raise ValueError(f"{path}: got the manifest of {manifest.version}, expected that of {version}")
        return manifest

    def record(self, move: history.Entry) -> dict[str, Any]:
        """Returns what the file of a move says beside its name: "at", "run_id" of a push, "span" of some rollbacks."""
        return dict(json.loads(pushed_files.read(os.path.join(self.uri, _HISTORY_DIR, move.name))))

    def history(self) -> list[history.Entry]:
        """Returns all moves of the pointer, the newest last."""
        return history.entries(pushed_files.names(os.path.join(self.uri, _HISTORY_DIR)))

    def problems(self, version: str) -> list[str]:
        """Reads a version and returns what is wrong with it, one sentence each; empty if nothing is."""
        try:
            manifest = self.manifest(version)
        except ValueError as error:
            return [str(error)]
        if manifest is None:
            return [f"{self.path(version)}: got no {MANIFEST_FILE}, expected a complete version"]
        return self._differences(manifest)

    def not_as_pushed(self, version: str) -> list[str]:
        """Returns what is wrong with a version and the pointer to it, one sentence each; empty if nothing is.

        More than `problems`: a file that is too many, or a pointer that a killed push left behind, does no harm to who
        reads the version.
        """
        found = self.problems(version)
        with contextlib.suppress(ValueError):
            manifest = self.manifest(version)
            found += [f"{path}: got a file that was not pushed" for path in self._surplus(manifest)] if manifest else []
        latest, moves = self.latest(), self.history()
        if version == latest and moves and moves[-1].version != latest:
            found.append(f"latest: got {latest}, expected {moves[-1].version}, which became it later; roll back to one")
        return found

    def _surplus(self, manifest: Manifest) -> list[str]:
        directory, expected = self.path(manifest.version), {*manifest.files, MANIFEST_FILE, REPORT_FILE}
        there = {
            os.path.relpath(os.path.join(place, name), directory)
            for place, _, names in fileio.walk(directory)
            for name in names
        }
        return sorted(there - expected)

    def push(self, directory: Path, manifest: Manifest, report: str = "") -> str:
        """Makes a model the latest version, unless it is that already; copies it unless it is there.

        Args:
          directory: The model's files.
          manifest: Of these files.
          report: A page on the model, to lie beside it; "" for none. A version that is there keeps the page of the run
            that made its files.

        Returns:
          The version: `manifest.version`, or an earlier one that is the same model.

        Raises:
          OSError: If what was written does not read back as it was. The pointer has not moved then.
        """
        with self._stage(manifest.version) as stage:
            version = self._same_model(manifest)
            if version:
                _LOGGER.info("model %s is in %s already, as version %s", manifest.version, self.uri, version)
            else:
                version = manifest.version
                self._copy(stage, directory, manifest, report)
            self._move_pointer(stage, history.PUSH, version, manifest, {"run_id": manifest.run_id})
        self._remove_abandoned()
        return version

    def rollback(self, version: str, span: int | None = None) -> None:
        """Makes a version the latest that was pushed before.

        Args:
          version: The version.
          span: The span of examples that showed the latest one to be too bad; None where somebody asked for it.

        Raises:
          ValueError: If it is not there, incomplete or damaged; nothing has changed then.
        """
        manifest, problems = self.manifest(version), self.problems(version)
        if manifest is None or problems:
            raise ValueError(f"version {version} in {self.uri} cannot be used: {'; '.join(problems)}")
        with self._stage(version) as stage:
            why = {} if span is None else {"span": span}
            self._move_pointer(stage, history.ROLLBACK, version, manifest, {"run_id": "", **why})

    @contextlib.contextmanager
    def _stage(self, version: str) -> Iterator[str]:
        """A directory for files on their way; its name says which version they are of, and when it began.

        It stays where the block fails, since the version may lack files that are there.
        """
        stage = os.path.join(self.uri, INCOMING_DIR, f"{version}.{int(time.time())}.{uuid.uuid4().hex}")
        fileio.makedirs(stage)
        yield stage
        fileio.rmtree(stage)

    def _same_model(self, manifest: Manifest) -> str:
        """Returns the version that is this model, undamaged; empty if there is none."""
        moves = reversed(self.history())
        candidates = [entry.version for entry in moves if manifest.model_sha256.startswith(entry.model)]
        for version in dict.fromkeys([manifest.version, *candidates]):
            if not self.problems(version):
                found = self.manifest(version)
                if found and (found.sha256 == manifest.sha256 or found.model_sha256 == manifest.model_sha256):
                    return version
        return ""

    def _copy(self, stage: str, directory: Path, manifest: Manifest, report: str) -> None:
        with contextlib.suppress(ValueError):  # of a damaged manifest, which is replaced
            there = self.manifest(manifest.version)
            if there is not None and there.sha256 != manifest.sha256:
                raise OSError(f"{self.path(manifest.version)} is another model, by chance of the same name")
        for path in manifest.files:
            staged = pushed_files.staged(stage, path)
            fileio.makedirs(os.path.dirname(staged))
            fileio.copy(str(directory / path), staged, overwrite=True)
        if report:
            pushed_files.write(stage, pushed_files.staged(stage, REPORT_FILE), report)
        pushed_files.write(stage, pushed_files.staged(stage, MANIFEST_FILE), manifest.to_json())
        self._put_in_place(stage, manifest)
        _LOGGER.info("pushed %d files, %d bytes, to %s", len(manifest.files), manifest.size_bytes, self.uri)

    def _put_in_place(self, stage: str, manifest: Manifest) -> None:
        """Makes a version complete by the files of a stage, the manifest last."""
        directory = self.path(manifest.version)
        for path in (*manifest.files, REPORT_FILE):
            if fileio.exists(pushed_files.staged(stage, path)):  # else it is in place, or there is none
                pushed_files.put(pushed_files.staged(stage, path), os.path.join(directory, path))
        problems = self._differences(manifest)
        if not problems:
            pushed_files.put(pushed_files.staged(stage, MANIFEST_FILE), os.path.join(directory, MANIFEST_FILE))
            problems = [] if self._is_complete(manifest.version) else [f"{MANIFEST_FILE}: is missing"]
        if problems:
            raise OSError(f"{directory} does not read back as written: {'; '.join(problems)}")

    def _move_pointer(self, stage: str, action: str, version: str, manifest: Manifest, facts: dict[str, Any]) -> None:
        """Adds to the history, unless its newest entry says the same, and moves the pointer to the newest entry.

        A push that was killed and is repeated may have its entry already, and others may have come after it.
        """
        moves = self.history()
        if (not moves or moves[-1].version != version) and not self.move_of(version, facts["run_id"]):
            entry = history.following(moves, action, version, manifest.model_sha256[:12])
            record = {"action": action, "at": utc_now(), "version": version, **facts}
            pushed_files.write(
                stage, os.path.join(self.uri, _HISTORY_DIR, entry.name), json.dumps(record, sort_keys=True) + "\n"
            )
        newest = latest_pointer.follow(self.uri, stage, lambda: self.history()[-1])
        _LOGGER.info("%s: latest is %s", self.uri, newest.version)

    def move_of(self, version: str, run_id: str) -> Entry | None:
        """Returns the move by which a run made a version the latest; None if it did not, or of no run."""
        pushes = [move for move in self.history() if move.action == history.PUSH and move.version == version]
        return next((one for one in pushes[::-1] if self.record(one)["run_id"] == run_id), None) if run_id else None

    def _remove_abandoned(self) -> None:
        """Removes the stages of pushes that died, of which it first puts in place what was on its way there."""
        for stage, version in self._stages_abandoned():
            try:
                if fileio.exists(pushed_files.staged(stage, MANIFEST_FILE)) and not self._is_complete(version):
                    _LOGGER.info("%s: making version %s complete, whose push died", self.uri, version)
                    self._put_in_place(
                        stage, Manifest.from_json(pushed_files.read(pushed_files.staged(stage, MANIFEST_FILE)))
                    )
                fileio.rmtree(stage)
            except Exception as error:  # another push may be doing the same; the next one looks again
                _LOGGER.warning("%s: could not remove what is left in %s: %s", self.uri, stage, error)

    def _stages_abandoned(self) -> list[tuple[str, str]]:
        """The stages of pushes that died, each with the version that it is for."""
        directory, now = os.path.join(self.uri, INCOMING_DIR), time.time()
        matches = filter(None, map(_STAGE.fullmatch, pushed_files.names(directory)))
        return [
            (os.path.join(directory, match[0]), match[1])
            for match in matches
            if now - int(match[2]) > _ABANDONED_AFTER_S
        ]

    def _differences(self, manifest: Manifest) -> list[str]:
        """Reads the files of a version, and returns how they are not as its manifest says, one sentence each."""
        paths = {path: os.path.join(self.path(manifest.version), path) for path in manifest.files}
        return manifest.differences(
            {path: pushed_files.digest(file) if fileio.exists(file) else None for path, file in paths.items()}
        )

    def _is_complete(self, version: str) -> bool:
        found: bool = fileio.exists(os.path.join(self.path(version), MANIFEST_FILE))
        return found


def utc_now() -> str:
    """Returns the time as 2026-11-25T13:36:52Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
