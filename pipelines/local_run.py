"""One run on this machine, shown component by component."""

import re
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from components.evaluation.verdict import without_held
from components.retraining.spans import BrokenExamplesError
from components.targets import CompileError
from pipelines.config import PipelineConfig
from pipelines.progress import Progress, quiet, watch

if TYPE_CHECKING:
    from pipelines.summary import RunSummary

FAILED_STATUS = 1
CANNOT_BEGIN_STATUS = 2
NOT_BLESSED_STATUS = 3

# Beam adds where it was to the message of an exception that passes through it.
_BEAM_SUFFIX = re.compile(r" \[while running '[^']*'\]")


def run_and_show(
    config: PipelineConfig, runner: str, metadata: str, started_s: float, report_file: Path | None = None
) -> int:
    """Runs a config's pipeline and shows the result.

    Args:
      config: The config.
      runner: Name of the runner.
      metadata: Where ML Metadata is, if a command would not find it by itself; else empty.
      started_s: When the process began, by `time.monotonic`.
      report_file: Where to write, last of all, what the run came to; see pipelines/run_outcome.py. Nothing is written
        if it fails without a component or the examples being at fault.

    Returns:
      The exit status: 0 if the model is blessed, 3 if it is not, 1 if a component failed, 2 if none could begin.

    Raises:
      ValueError: For a mistake in the config or the data; says which component found it.
    """
    begun_s = time.time()
    log_file = Path(config.logs_dir) / f"{time.strftime('%Y%m%d-%H%M%S')}.log"
    with quiet(log_file) as console:
        progress = Progress(console, 20 + max(len(plan.suffix) for plan in config.plans))
        try:
            _run(config, runner, console, progress, log_file)
        except Exception as error:
            traceback.print_exc()  # into the log
            broken = _broken_examples(config, progress, error)
            error = broken or error
            message = _BEAM_SUFFIX.sub("", str(error)).strip()
            if report_file and (progress.current or broken):
                from pipelines.run_outcome import failure, write_report

                where = f"{progress.current}: " if progress.current else ""
                write_report(report_file, failure(config, f"{where}{message}", broken, begun_s))
            if isinstance(error, ValueError):
                where, log = (f"{progress.current}: ", f" (log: {log_file})") if progress.current else ("", "")
                raise ValueError(f"{where}{message}{log}") from error
            # The last lines of a compiler are its reason; other messages say it first.
            first = message if isinstance(error, CompileError) else message.split("\n")[0]
            what = f"[red]failed[/red] {progress.current or 'to start'}: {type(error).__name__}: {escape(first)}"
            console.print(f"{what}\nThe log: {log_file}", soft_wrap=True)
            return FAILED_STATUS if progress.current else CANNOT_BEGIN_STATUS
        finally:
            progress.stop()
        summaries = _show(config, console, metadata, started_s)
        rolled_back = _roll_back(config, summaries)
        for target, what in rolled_back.items():
            console.print(f"[yellow]{target}[/yellow]: {escape(what)}", soft_wrap=True)
        if report_file:
            from pipelines.run_outcome import success, write_report

            write_report(report_file, success(config, summaries, rolled_back, begun_s))
        return 0 if all(summary.blessed for summary in summaries) else NOT_BLESSED_STATUS


def _run(config: PipelineConfig, runner: str, console: Console, progress: Progress, log_file: Path) -> None:
    with console.status("loading TensorFlow and TFX"):
        from pipelines.inputs import prepare_examples
        from pipelines.pipeline import create_pipeline
        from pipelines.runners import load_runner

        pipeline = create_pipeline(config)
        count = prepare_examples(config)
    head = f"{config.name}: {count:,} examples checked, {runner} runner, log in {log_file}"
    console.print(head, highlight=False, soft_wrap=True)
    watch(progress)
    load_runner(runner).run(pipeline)


def _broken_examples(config: PipelineConfig, progress: Progress, error: Exception) -> BrokenExamplesError | None:
    if not progress.current:  # what loads nothing may have failed for want of something to load
        return error if isinstance(error, BrokenExamplesError) else None
    from pipelines.broken_span import broken_examples

    return broken_examples(config, progress.current, error)


def _roll_back(config: PipelineConfig, summaries: "list[RunSummary]") -> dict[str, str]:
    """Rolls back what is too bad, if the config asks for that; returns what was done or went wrong, by target."""
    if not config.retraining.champion_floor:
        return {}
    from tensorflow import errors

    from pipelines.champion import champion_of, roll_back_below, rolled_back_before
    from pipelines.metadata import MetadataStore

    executions = MetadataStore(config.metadata_url).last_run(config.name)
    span = config.spans.selected[-1] if config.spans else None
    done = {}
    for plan, summary in zip(config.plans, summaries, strict=True):
        if summary.blessed:
            continue
        champion = champion_of(executions, config, plan)
        try:
            what = champion and roll_back_below(config.retraining.champion_floor, champion, plan.push_uri, span)
            what = what or rolled_back_before(plan.push_uri)
        except (ValueError, OSError, errors.OpError) as error:  # the run has come to its verdict, which is to be told
            what = f"the rollback failed: {error}"
        if what:
            done[plan.target] = what
    return done


def _show(config: PipelineConfig, console: Console, metadata: str, started_s: float) -> "list[RunSummary]":
    from pipelines.metadata import MetadataStore
    from pipelines.summary import cache_line, summarize
    from pipelines.target_matrix import matrix_cells, row_of, write_matrix

    reader = MetadataStore(config.metadata_url)
    summaries = [summarize(reader, config, plan.target) for plan in config.plans]
    rows = [row_of(summary) for summary in summaries]
    matrix = write_matrix(rows, config.root)
    for summary in summaries:
        _show_summary(summary, console, metadata)
    if len(rows) > 1:
        _show_table(matrix_cells(rows), console)
        console.print(f"\nThe table, with reasons: {matrix}", highlight=False, soft_wrap=True)
    console.print()
    console.print(cache_line(summaries[0]) or "Nothing came from TFX's cache", highlight=False, soft_wrap=True)
    console.print(f"Ran in {time.monotonic() - started_s:.1f} s, imports included", highlight=False)
    for summary in summaries:
        where = f" for {summary.target}" if len(summaries) > 1 else ""
        not_kept = without_held(summary.reasons)
        if summary.blessed and not_kept:
            console.print(f"[yellow]Blessed{where}, but[/yellow]: " + escape("; ".join(not_kept)), soft_wrap=True)
        if not summary.blessed:
            reasons = escape("; ".join(summary.reasons))
            console.print(f"[red]Not blessed{where}, not pushed[/red]: {reasons}", soft_wrap=True)
    return summaries


def _show_summary(summary: "RunSummary", console: Console, metadata: str) -> None:
    from pipelines.summary import lineage_command, summary_rows

    rows = summary_rows(summary, lineage_command(summary, metadata))
    width = max(len(name) for name, _ in rows)
    console.print()
    for name, value in rows:
        # Not a table of rich's, which would fold paths and commands that one wants to copy.
        console.print(Text.assemble((name.ljust(width), "bold"), "  ", value), soft_wrap=True)


def _show_table(cells: Sequence[Sequence[str]], console: Console) -> None:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    console.print()
    for number, row in enumerate(cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        console.print(Text(line, "" if number else "bold"), soft_wrap=True)
