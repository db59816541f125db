"""Data that arrives in spans: numbered directories, each complete once it holds a file `_SUCCESS`.

That file is written last, as Spark, Hadoop and Beam's own jobs can: it says of one span, by itself and at once, that
nothing more is coming. The arrival of the next span would say so a whole span late, and wrongly where writers overlap;
a manifest would have to be invented for every writer.
"""

import dataclasses
import fnmatch
import json
import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

SUCCESS_FILE = "_SUCCESS"
SPANS, SPAN_FINGERPRINTS = "spans", "span_fingerprints"
"""Custom properties of the Examples of a window: its spans and their fingerprints as JSON lists, the oldest first."""
_SPAN = re.compile(r"\{SPAN(?::(?P<width>[1-9][0-9]?))?\}")


class BrokenExamplesError(ValueError):
    """The examples are at fault, and no other run will like them better: unreadable, empty, incomplete, anomalous.

    Attributes:
      span: The span that they are of, where that is known; else None.
    """

    def __init__(self, message: str, span: int | None = None) -> None:
        super().__init__(message)
        self.span = span


def spans_of(facts: Mapping[str, object], prefix: str = "") -> tuple[int, ...]:
    """Returns all spans that examples are of, the oldest first; () if nobody recorded any.

    Args:
      facts: Properties of Examples, or of a model that was made of them.
      prefix: What the names of the properties begin with.

    >>> spans_of({"span": 5, "spans": "[1, 2, 5]"}), spans_of({"examples_span": 5}, "examples_")
    ((1, 2, 5), (5,))
    """
    if listed := facts.get(prefix + SPANS):
        return tuple(json.loads(str(listed)))
    newest = facts.get(f"{prefix}span")
    return (newest,) if isinstance(newest, int) else ()


class DriftError(BrokenExamplesError):
    """The examples are whole and farther from those of the last blessed model than gates allow.

    Attributes:
      drift: The greatest distance of a feature, 0 to 1; None if it is not known.
    """

    drift: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SpanSource:
    """Where the spans of a pipeline's examples are, and how many a run takes.

    Attributes:
      pattern: Of the TFRecord files: a path, {SPAN} once in a directory's name, then a glob of file names, such as
        "data/span-{SPAN}/*.tfrecord". {SPAN:5} stands for numbers of five digits, {SPAN} for those without leading
        zeros. The directory whose name has the number is the one that holds `_SUCCESS`.
      window: A run takes so many spans: the newest, and those before it that are complete and, on this machine, not
        quarantined.
      selected: The spans of one run, the newest last; () where they are found when ExampleGen runs, as on a service.
      is_repeated: Whether an earlier run on the newest of these did not end: what that blessed is no baseline, so that
        this one gets from the cache what that had made, and comes to the same verdict.
    """

    pattern: str
    window: int = 1
    selected: tuple[int, ...] = ()
    is_repeated: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for what is wrong, all of it."""
        wrong = []
        directory, _, files = self.pattern.rpartition("/")
        if len(_SPAN.findall(self.pattern)) != 1 or not _SPAN.search(directory.rpartition("/")[2]):
            wrong.append("{SPAN} or {SPAN:5} once, in the name of the directory of the files")
        elif not files or fnmatch.fnmatch(SUCCESS_FILE, files):
            wrong.append(f"then a glob of file names that leaves out {SUCCESS_FILE}, such as *.tfrecord")
        if self.window < 1:
            wrong.append("a window of at least 1")
        if wrong:
            raise ValueError(
                f"spans: got pattern {self.pattern!r} and window {self.window}, expected {', '.join(wrong)}"
            )

    @property
    def base(self) -> str:
        """The directory of the directories of spans."""
        return self.pattern.rpartition("/")[0].rpartition("/")[0] or ("/" if self.pattern.startswith("/") else ".")

    @property
    def below_base(self) -> str:
        """What of the pattern is below `base`, with {SPAN} in it, as TFX's ExampleGen takes it."""
        return "/".join(self.pattern.split("/")[-2:])

    def files_of(self, span: int) -> str:
        """Returns the glob of a span's files."""
        return os.path.join(self.base, self.below_base_of(span))

    def below_base_of(self, span: int) -> str:
        """Returns the glob of a span's files, below `base`.

        >>> SpanSource(pattern="data/span-{SPAN:3}/*.tfrecord").below_base_of(7)
        'span-007/*.tfrecord'
        """
        return _SPAN.sub(lambda match: str(span).zfill(int(match["width"] or 0)), self.below_base)

    def complete(self) -> list[int]:
        """Returns the complete spans, oldest first; without those that `overlooked` speaks of.

        Raises:
          ValueError: If the directory is on no local disk, or cannot be listed.
        """
        return [span for span in self.numbers(self._names()) if _is_file(self.success_file(span))]

    def numbers(self, names: Iterable[str]) -> list[int]:
        """Returns the numbers of the directories of spans, complete or not, among names below `base`; lowest first."""
        form = self._form()
        return sorted(int(match["span"]) for name in names if (match := form.fullmatch(name)))

    def overlooked(self) -> list[str]:
        """Returns which directories look like complete spans and are taken for none, and what to do; a sentence each.

        Raises:
          ValueError: As `complete`.
        """
        form, any_width = self._form(), self._form(r"[0-9]+")
        other_width, closed = {}, []
        for name in sorted(self._names()):
            success_file = Path(self.base, name, SUCCESS_FILE)
            if form.fullmatch(name):
                closed += [name] if _is_file(success_file) is None else []
            elif (match := any_width.fullmatch(name)) and _is_file(success_file):
                other_width[name] = len(match["span"])
        said = []
        if other_width:
            placeholder = self._placeholder()
            width = int(placeholder["width"] or 0)
            kind = f"numbers of exactly {width} digits" if width else "numbers without leading zeros"
            width = max(width, *other_width.values())
            said.append(
                f"spans: in {self.base}, {_listed(other_width)} complete and taken for no span, since"
                f" {placeholder[0]} stands for {kind}; write all numbers with {width} digits, and {{SPAN:{width}}} in"
                " the pattern"
            )
        if closed:
            why = "since it cannot be seen whether they are complete; check the permissions"
            said.append(f"spans: in {self.base}, {_listed(closed)} taken for no span, {why}")
        return said

    def _names(self) -> list[str]:
        if "://" in self.base:
            raise ValueError(f"spans: {self.base} is no local directory; schedule the pipeline on a service instead")
        try:
            return os.listdir(self.base)
        except OSError as error:
            raise ValueError(f"spans: {self.base} cannot be listed: {error.strerror}; correct the pattern") from error

    def success_file(self, span: int) -> Path:
        """Returns the file that makes a span complete."""
        return Path(self.files_of(span)).parent / SUCCESS_FILE

    def _placeholder(self) -> re.Match[str]:
        match = _SPAN.search(self.pattern)
        assert match  # by __post_init__
        return match

    def _form(self, digits: str = "") -> re.Pattern[str]:
        before, after = _SPAN.sub("\0", self.below_base.partition("/")[0]).split("\0")
        width = self._placeholder()["width"]
        digits = digits or (f"[0-9]{{{width}}}" if width else "0|[1-9][0-9]*")
        return re.compile(f"{re.escape(before)}(?P<span>{digits}){re.escape(after)}")

    def ending_at(self, span: int | None = None, left_out: Collection[int] = ()) -> "SpanSource":
        """Returns the source with the window selected that ends at a span.

        Args:
          span: The newest of the window; None for the newest complete one.
          left_out: Spans that must not be in it, but for `span` itself: the quarantined.

        Raises:
          ValueError: If there is no such complete span.
        """
        complete = self.complete()
        usable = [one for one in complete if one not in left_out]
        newest = span if span is not None else (usable[-1] if usable else None)
        if newest is None or newest not in complete:
            what = "no span" if newest is None else f"no span {newest}"
            raise ValueError(
                f"spans: {what} of {self.pattern} is complete; write {SUCCESS_FILE} beside its files when all are there"
            )
        earlier = [one for one in usable if one < newest][-(self.window - 1) :] if self.window > 1 else []
        return dataclasses.replace(self, selected=(*earlier, newest))


def _is_file(path: Path) -> bool | None:
    """Whether a file is there; None where that cannot be known, as in a directory that may not be entered."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return None


def _listed(names: Collection[str]) -> str:
    """Returns some names and the number of the others, with a verb."""
    shown, more = list(names)[:3], len(names) - 3
    return ", ".join(shown) + (f" and {more:,} more are" if more > 0 else " are" if len(shown) > 1 else " is")
