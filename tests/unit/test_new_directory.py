"""The directory that a command writes: what is said when it cannot be written, and that nothing is left then."""

import errno
import os
from pathlib import Path

import pytest

from pipelines import new_directory


def test_directory_is_there_when_the_block_ends_well(tmp_path: Path) -> None:
    output = tmp_path / "a" / "b"
    new_directory.require_new(output)
    with new_directory.writing(output) as partial:
        (partial / "file").write_text("content")
        assert not output.exists()
    assert (output / "file").read_text() == "content"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_output_is_refused_when_the_file_system_makes_no_directories() -> None:
    with pytest.raises(ValueError, match="--output /proc/none: cannot be written"):
        new_directory.require_new(Path("/proc/none"))


def test_output_is_named_and_nothing_is_left_when_the_disk_is_full(tmp_path: Path) -> None:
    output = tmp_path / "new"
    full = pytest.raises(ValueError, match="--output .*new: cannot be written: .*No space left")
    with full, new_directory.writing(output):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_elsewhere_is_not_said_of_the_output(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left.*/elsewhere/file"), new_directory.writing(tmp_path / "new"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/elsewhere/file")


def test_other_errors_of_the_block_keep_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_directory.writing(tmp_path / "new"):
        (tmp_path / "nowhere").read_bytes()
    assert list(tmp_path.iterdir()) == []
