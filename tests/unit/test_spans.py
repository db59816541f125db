import errno
import os
from pathlib import Path
from typing import Any

import pytest

from components.retraining.spans import SpanSource


def _spans(base: Path, *names: str, incomplete: tuple[str, ...] = ()) -> None:
    for name in (*names, *incomplete):
        (base / name).mkdir(parents=True)
    for name in names:
        (base / name / "_SUCCESS").touch()


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("data/*.tfrecord", "SPAN.* once"),
        ("data/{SPAN}/{SPAN}/*.tfrecord", "SPAN.* once"),
        ("data/{SPAN}/part/*.tfrecord", "in the name of the directory of the files"),
        ("data/{SPAN}.tfrecord", "in the name of the directory"),
        ("data/span-{SPAN}/*", "leaves out _SUCCESS"),
    ],
)
def test_span_source_raises_when_the_pattern_cannot_be_meant(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpanSource(pattern=pattern)


def test_complete_leaves_out_what_has_no_success_file_or_is_no_span(tmp_path: Path) -> None:
    _spans(tmp_path, "span-10", "span-9", "span-007", "other-3", incomplete=("span-11",))
    assert SpanSource(pattern=f"{tmp_path}/span-{{SPAN}}/*.tfrecord").complete() == [9, 10]
    assert SpanSource(pattern=f"{tmp_path}/span-{{SPAN:3}}/*.tfrecord").complete() == [7]


def test_ending_at_selects_the_newest_window_without_those_left_out(tmp_path: Path) -> None:
    _spans(tmp_path, "1", "2", "3", "5", incomplete=("6",))
    source = SpanSource(pattern=f"{tmp_path}/{{SPAN}}/*.tfrecord", window=3)
    assert source.ending_at().selected == (2, 3, 5)
    assert source.ending_at(3).selected == (1, 2, 3)
    assert source.ending_at(5, left_out=[3]).selected == (1, 2, 5)
    assert source.ending_at(left_out=[5]).selected == (1, 2, 3)
    assert source.ending_at(5, left_out=[5]).selected == (2, 3, 5)  # asked for by its number


def test_ending_at_raises_when_the_span_is_not_complete(tmp_path: Path) -> None:
    _spans(tmp_path, "1", incomplete=("2",))
    source = SpanSource(pattern=f"{tmp_path}/{{SPAN}}/*.tfrecord")
    with pytest.raises(ValueError, match="no span 2 of .* is complete; write _SUCCESS"):
        source.ending_at(2)
    with pytest.raises(ValueError, match="no span of .* is complete"):
        source.ending_at(left_out=[1])


def test_complete_raises_when_the_directory_is_missing_or_remote(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be listed: No such file"):
        SpanSource(pattern=f"{tmp_path}/missing/{{SPAN}}/*.tfrecord").complete()
    with pytest.raises(ValueError, match="is no local directory; schedule the pipeline on a service"):
        SpanSource(pattern="gs://bucket/{SPAN}/*.tfrecord").complete()


@pytest.mark.parametrize(
    ("placeholder", "names", "expected"),
    [
        (
            "{SPAN}",
            ("span-001", "span-2"),
            "span-001 is complete and taken for no span, since {SPAN} stands for numbers without leading zeros; write"
            " all numbers with 3 digits, and {SPAN:3} in the pattern",
        ),
        (
            "{SPAN:3}",
            ("span-999", *(f"span-{number}" for number in range(1000, 1005))),
            "span-1000, span-1001, span-1002 and 2 more are complete and taken for no span, since {SPAN:3} stands for"
            " numbers of exactly 3 digits; write all numbers with 4 digits, and {SPAN:4} in the pattern",
        ),
        ("{SPAN:3}", ("span-999", "other-1000", "span-1000.old"), ""),
    ],
)
def test_overlooked_names_complete_directories_whose_numbers_have_another_width(
    tmp_path: Path, placeholder: str, names: tuple[str, ...], expected: str
) -> None:
    _spans(tmp_path, *names, incomplete=("span-7777",))
    source = SpanSource(pattern=f"{tmp_path}/span-{placeholder}/*.tfrecord")
    assert source.overlooked() == ([f"spans: in {tmp_path}, {expected}"] if expected else [])


def test_complete_leaves_out_a_span_that_may_not_be_entered_and_overlooked_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spans(tmp_path, "1", "2")
    real = Path.stat

    def stat(self: Path, **options: Any) -> os.stat_result:
        if self.parent.name == "1":  # mode 0 stops no root, as whom tests may run
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return real(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
    source = SpanSource(pattern=f"{tmp_path}/{{SPAN}}/*.tfrecord")
    assert source.complete() == [2]
    (said,) = source.overlooked()
    assert said.startswith(f"spans: in {tmp_path}, 1 is taken for no span, since it cannot be seen whether")
