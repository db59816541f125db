"""`schedule` as a user calls it; in place of a run of the pipeline there is what it would report."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from components.retraining import span_run, timers
from components.retraining.decisions import Outcome
from components.retraining.directory_lock import directory_lock
from components.retraining.ledger import Entry, Ledger
from components.retraining.policy import RetrainingPolicy
from pipelines import local_schedule
from pipelines.__main__ import _config_of_run, main

from scheduler_process import write_span


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were to be run; each reports that its model was refused."""
    asked: list[list[str]] = []

    def run_span(command: list[str], entry: Entry, ledger: Ledger, limit_s: float) -> Outcome:
        asked.append(command)
        verdict = {"blessed": False, "pushed_to": "", "reasons": ["fails: a gate"]}
        return Outcome(report={"run": "", "state": "SUCCEEDED", "error": "", "fault": "", "verdict": verdict})

    monkeypatch.setattr(span_run, "run_span", run_span)
    monkeypatch.setattr(
        "pipelines.local_schedule._record", lambda _, entries, __: entries
    )  # see test_decision_record.py
    monkeypatch.setattr("pipelines.local_schedule._collect", lambda _, __, entries: entries)  # see test_retention.py
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return asked


def _arguments(base: Path) -> list[str]:
    return ["stream", "--root", str(base / "root"), "--spans", f"{base}/data/span-{{SPAN}}/*.tfrecord"]


def _schedule(base: Path, *options: str, status: int = 0) -> str:
    result = CliRunner().invoke(main, ["schedule", *options, *_arguments(base)])
    assert result.exit_code == status, result.output
    return result.output


def test_schedule_runs_each_new_span_once_with_what_run_was_given(tmp_path: Path, commands: list[list[str]]) -> None:
    for span in (2, 1):
        write_span(tmp_path, span, "")
    for _ in range(2):
        result = CliRunner().invoke(main, ["schedule", *_arguments(tmp_path), "--gate", "accuracy >= 0.5"])
        assert result.exit_code == 0, result.output
    given = [*_arguments(tmp_path), "--gate", "accuracy >= 0.5"]
    head = [sys.executable, "-m", "pipelines", "run", *given]
    assert [command[:-4] for command in commands] == [head, head]
    reports = [str(tmp_path / "root" / "spans" / f"{span}.1.report") for span in (1, 2)]
    assert [command[-4:] for command in commands] == [
        ["--span", "1", "--report", reports[0]],
        ["--span", "2", "--report", reports[1]],
    ]
    shown = _schedule(tmp_path, "--status").splitlines()
    assert [line.split()[0] for line in shown] == ["1", "2"]
    assert all("refused" in line and "fails: a gate" in line for line in shown)


@pytest.mark.extended
def test_schedule_ends_with_3_when_it_is_held_and_goes_on_when_resumed(
    tmp_path: Path, commands: list[list[str]]
) -> None:
    for span in range(1, 9):
        write_span(tmp_path, span, "")
    _schedule(tmp_path, "--resume", status=3)  # of nothing, as yet
    assert len(commands) == 6  # hold_after of the config
    assert "held: nothing was pushed for 6 spans in a row (1, 2, 3, 4, 5, 6; hold_after=6)" in _schedule(
        tmp_path, "--status"
    )
    _schedule(tmp_path, status=3)
    assert len(commands) == 6
    _schedule(tmp_path, "--resume")
    assert len(commands) == 8


def test_scheduler_records_what_is_skipped_at_once_and_collects_garbage_only_after_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs: list[str] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        programs.append(command[2 if "decision_record" in command[2] else 3].rpartition(".")[2])
        asked = json.loads(options["input"] or "[]")
        return subprocess.CompletedProcess(command, 0, "".join(f"{decision}\n" for decision, *_ in asked), "")

    monkeypatch.setattr(local_schedule.subprocess, "run", run)
    for span in range(1, 51):
        write_span(tmp_path, span, "")
    config = dataclasses.replace(
        _config_of_run(_arguments(tmp_path)), retraining=RetrainingPolicy(catch_up=False, keep_runs=3)
    )
    refused = {"blessed": False, "pushed_to": "", "reasons": ["fails: a gate"]}
    outcome = Outcome(report={"run": "", "state": "SUCCEEDED", "error": "", "fault": "", "verdict": refused})
    one = dataclasses.replace(
        local_schedule.scheduler_of(config, _arguments(tmp_path), ""),
        run=lambda _: programs.append("run") or outcome,  # type: ignore[func-returns-value]
    )
    with one.ledger.lock():
        while one.step():
            pass
    assert programs == ["decision_record", "run", "decision_record", "gc"]
    assert {entry.untold for entry in one.ledger.entries().values()} == {()}
    assert len(one.ledger.entries()) == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits"], "config 'digits' has no spans; give it some"),
        (["stream", "--root", "gs://bucket/stream"], "root 'gs://bucket/stream' is no local directory"),
        (["stream", "--span", "3"], "--span, --again and --report are of one run"),
        (["stream", "--again"], "--span, --again and --report are of one run"),
        (["stream", "--gate", "nonsense"], "nonsense"),
        (["stream", "--spans", "data/*"], "{SPAN} or {SPAN:5} once"),
        (["--alert-url", "ftp://host/secret", "stream"], "the alert URL: expected http(s)://HOST/PATH"),
        (["--status", "--retry", "9", "stream"], "--status, --retry: --status runs and changes nothing; ask for one"),
        (["--status", "--resume", "stream"], "--status, --resume: --status runs and changes nothing; ask for one"),
        (["--systemd", "units", "--watch", "stream"], "--systemd, --watch: --systemd runs and changes nothing"),
        (["--poll-s", "inf", "stream"], "--poll-s inf: expected more than 0, at most 86,400 s"),
        (["--poll-s", "nan", "stream"], "--poll-s nan: expected more than 0"),
        (["--poll-s", "-1", "stream"], "--poll-s -1.0: expected more than 0"),
        (["--forget", "7", "stream"], "--forget SPAN and --reason TEXT: give both or none"),
        (["--forget", "7", "--reason", "typed wrongly", "stream"], "span 7 is not in the ledger; there is nothing to"),
        (["stream", "--spans", "gs://bucket/{SPAN}/*.tfrecord"], "spans: gs://bucket is no local directory"),
        (["--retry", "7", "stream"], "span 7 is not in the ledger; only a quarantined one can be run again"),
    ],
)
def test_schedule_ends_with_2_and_one_sentence_when_asked_for_what_cannot_be(
    tmp_path: Path, commands: list[list[str]], arguments: list[str], message: str
) -> None:
    (tmp_path / "data").mkdir()
    given = [] if "--root" in arguments else ["--root", str(tmp_path / "root")]
    result = CliRunner().invoke(main, ["schedule", *arguments, *given])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "secret" not in result.output
    assert not commands


def test_schedule_loads_no_tensorflow_when_nothing_is_new(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    code = (
        "import sys; from pipelines.__main__ import main; main(sys.argv[1:], standalone_mode=False);"
        "print([name for name in ('tensorflow', 'tfx', 'apache_beam', 'ml_metadata') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, "schedule", *_arguments(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "[]"


def test_schedule_watches_until_it_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    command = [sys.executable, "-m", "pipelines", "schedule", "--watch", "--poll-s", "0.1", *_arguments(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        lock = tmp_path / "root" / "spans" / ".lock"
        deadline = time.monotonic() + 60
        while not lock.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        second = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert second.returncode == 2
        assert "another scheduler is at work" in " ".join(second.stderr.split())
        assert "the scheduler that is at work goes on with that" in _schedule(tmp_path, "--resume")
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 128 + 15


def test_schedule_writes_units_that_systemd_accepts(tmp_path: Path, commands: list[list[str]]) -> None:
    (tmp_path / "data").mkdir()
    said = _schedule(tmp_path, "--systemd", str(tmp_path / "units"), "--every-minutes", "7")
    service, timer = ((tmp_path / "units" / f"tfx-qat-stream.{kind}").read_text() for kind in ("service", "timer"))
    words = [sys.executable, "-m", "pipelines", "schedule", *_arguments(tmp_path)]
    assert "ExecStart=" + " ".join(f'"{word}"' for word in words) + "\n" in service
    assert "OnUnitInactiveSec=7min" in timer
    assert not commands
    checked = "checked by systemd-analyze verify" if shutil.which("systemd-analyze") else "not checked: "
    assert checked in said


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_verify_systemd_raises_when_a_unit_is_wrong(tmp_path: Path) -> None:
    unit = tmp_path / "tfx-qat-wrong.service"
    unit.write_text("[Service]\nType=oneshot\nExecStart=relative/path/with spaces\n")
    with pytest.raises(ValueError, match=r"systemd-analyze verify ended with 1: .*tfx-qat-wrong\.service"):
        timers.verify_systemd([unit])


def test_schedule_writes_a_crontab_whose_command_runs(tmp_path: Path, commands: list[list[str]]) -> None:
    (tmp_path / "data").mkdir()
    _schedule(tmp_path, "--cron", str(tmp_path / "crontab"), "--every-minutes", "15")
    comment, line = (tmp_path / "crontab").read_text().splitlines()
    assert comment.startswith("# tfx-qat: retrains stream")
    fields = line.split(" ", 5)
    assert fields[:5] == ["*/15", "*", "*", "*", "*"]
    subprocess.run(["/bin/sh", "-c", fields[5].replace("\\%", "%")], check=True, timeout=60, cwd="/")
    assert (tmp_path / "root" / "spans" / ".lock").exists()
    assert not commands


def test_crontab_gives_its_command_the_environment_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "_ENVIRONMENT_DIR", tmp_path / "100% of it")
    program = [sys.executable, "-c", "import os; print(os.environ.get('TFX_QAT_ALERT_URL'))"]
    line = timers.crontab("digits", program, tmp_path, tmp_path / "lock", 1).splitlines()[1].split(" ", 5)[5]
    shell = ["/bin/sh", "-c", line.replace("\\%", "%")]
    without = {name: value for name, value in os.environ.items() if name != "TFX_QAT_ALERT_URL"}
    first = subprocess.run(shell, check=True, timeout=60, capture_output=True, text=True, env=without)
    assert first.stdout == "None\n"  # there is no such file
    timers.environment_file("digits").parent.mkdir()
    timers.environment_file("digits").write_text("# comment\nTFX_QAT_ALERT_URL='https://host/?a=$b&c=100%'\n")
    second = subprocess.run(shell, check=True, timeout=60, capture_output=True, text=True, env=without)
    assert second.stdout == "https://host/?a=$b&c=100%\n"


@pytest.mark.parametrize("option", ["--systemd", "--cron"])
def test_schedule_says_where_the_alert_url_belongs_and_refuses_it_beside_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    advice = "put TFX_QAT_ALERT_URL='...', and what else it needs of the environment, into /etc/tfx-qat/stream.env"
    (tmp_path / "data").mkdir()
    refused = _schedule(tmp_path, option, str(tmp_path / "new"), "--alert-url", "https://host/secret", status=2)
    assert f"leave it out, and {advice}" in " ".join(refused.split())
    assert "secret" not in refused
    assert not (tmp_path / "new").exists()
    monkeypatch.setenv("TFX_QAT_ALERT_URL", "https://host/secret")  # as whoever writes the files may have it
    assert advice in " ".join(_schedule(tmp_path, option, str(tmp_path / "new")).split())


@pytest.mark.parametrize(("option", "path"), [("--systemd", "file/units"), ("--cron", "missing/crontab")])
def test_schedule_raises_when_files_cannot_be_written(tmp_path: Path, option: str, path: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "file").touch()
    refused = _schedule(tmp_path, option, str(tmp_path / path), status=2)
    assert f"{option} {tmp_path / path}: No" in " ".join(refused.split())


def test_crontab_raises_when_cron_cannot_count_so() -> None:
    with pytest.raises(ValueError, match="--every-minutes 7: cron counts within the hour; choose a divisor of 60"):
        timers.crontab("digits", ["true"], Path("/"), Path("/lock"), 7)


def test_run_with_window_leaves_out_quarantined_spans(tmp_path: Path) -> None:
    for span in (1, 2, 3):
        write_span(tmp_path, span, "")
    config = _config_of_run(_arguments(tmp_path))
    ledger = Ledger(Path(config.spans_dir))
    with ledger.lock():
        ledger.write(Entry(span=2, state="quarantined", reason="corrupt"))
    selected = config.with_window(3).spans
    assert selected
    assert selected.selected == (1, 3)
    ledger.write(Entry(span=3, state="quarantined", reason="corrupt"))
    newest: Any = config.with_window(None).spans
    assert newest.selected == (1,)


def test_run_ends_with_75_when_another_one_is_at_work_in_the_root(tmp_path: Path) -> None:
    write_span(tmp_path, 1, "")
    with directory_lock(tmp_path / "root", "root", "", ""):
        result = CliRunner().invoke(main, ["run", *_arguments(tmp_path)])
    assert result.exit_code == 75
    assert "another run is using" in result.output
