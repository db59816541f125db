import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from components.retraining.decisions import CannotBeginError
from components.retraining.ledger import Entry, Ledger
from components.retraining.policy import RetrainingPolicy
from components.retraining.scheduler import Scheduler
from components.retraining.telling import Telling

import scheduler_process
from scheduler_process import POLICY, in_a_process, scheduler, state, work, write_span


def _until_nothing(one: Scheduler) -> dict[int, Entry]:
    while one.step():
        pass
    return one.ledger.entries()


def _handled(base: Path, *behaviours: str, policy: RetrainingPolicy = POLICY) -> dict[int, Entry]:
    for span, behaviour in enumerate(behaviours, start=1):
        write_span(base, span, behaviour)
    one = scheduler(base, policy)
    with one.ledger.lock():
        return _until_nothing(one)


@pytest.mark.extended
def test_scheduler_handles_every_span_exactly_once_when_it_is_killed_at_any_change_of_its_ledger(
    tmp_path: Path,
) -> None:
    command = [sys.executable, scheduler_process.__file__, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600, env=environment)
    rounds = json.loads(result.stdout)
    # Before and after each write, of which there are 5 for the span that crashes twice; and not at all.
    assert len(rounds) == 2 * (3 + 3 + 5 + 3) + 1
    for number, came in enumerate(rounds):
        assert came["first"] == (-9 if came is not rounds[-1] else 0), number
        assert came["second"] == 0, number
        states = {span: state for span, state, *_ in came["entries"]}
        assert states == {1: "pushed", 2: "quarantined", 3: "quarantined", 4: "refused"}, number
        decisions = [decision for _, _, decision, _ in came["entries"]]
        assert decisions == [1, 2, 3, 4], number
        # A run that ended is never begun again; the one that crashes has two runs that count.
        assert sorted(came["ended"]) == ["1", "2", "4"], number
        assert came["begun"].count("3") in (2, 3), number
        told = [(span, decision) for span, decision, *_ in came["told"]]
        assert list(dict.fromkeys(told)) == [(1, 1), (2, 2), (3, 3), (4, 4)], number
        assert len(told) <= 5, number  # twice at most for the one whose telling was interrupted


@pytest.mark.parametrize(
    ("behaviour", "begun", "ended"), [("push kill-scheduler-once", 2, 1), ("push kill-scheduler-at-end", 1, 1)]
)
def test_scheduler_pushes_once_when_it_is_killed_during_a_run(
    tmp_path: Path, behaviour: str, begun: int, ended: int
) -> None:
    write_span(tmp_path, 1, behaviour)
    assert in_a_process(lambda: work(tmp_path)) == -9
    work(tmp_path)
    came = state(tmp_path)
    assert [entry[:3] for entry in came["entries"]] == [[1, "pushed", 1]]
    assert (came["begun"], came["ended"]) == (["1"] * begun, ["1"] * ended)


@pytest.mark.parametrize(("has_reported", "runs"), [(True, 1), (False, 2)])
def test_scheduler_runs_a_span_again_when_it_is_stopped_only_if_its_run_has_not_reported(
    tmp_path: Path, has_reported: bool, runs: int
) -> None:
    write_span(tmp_path, 1, "push")
    one = scheduler(tmp_path)
    one.ledger.report_file(Entry(span=1, state="running", reason="", attempt=1)).write_text("{}")  # of an old entry

    def run_and_be_stopped(entry: Entry) -> Any:
        if has_reported:
            one.run(entry)
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        dataclasses.replace(one, run=run_and_be_stopped).step()
    assert one.ledger.entries()[1].state == ("pushed" if has_reported else "waiting")
    work(tmp_path)
    came = state(tmp_path)
    assert [entry[1] for entry in came["entries"]] == ["pushed"]
    assert (len(came["begun"]), one.ledger.entries()[1].attempt) == (1, runs)


def test_scheduler_quarantines_a_span_when_it_dies_with_it_again_and_again(tmp_path: Path) -> None:
    write_span(tmp_path, 1, "kill-scheduler")
    write_span(tmp_path, 2, "push")
    for _ in range(3):
        assert in_a_process(lambda: work(tmp_path)) == -9
    work(tmp_path)
    first, second = state(tmp_path)["entries"]
    assert first[1:] == ["quarantined", 1, "the scheduler died during 3 runs of it; does one exhaust the machine?"]
    assert second[1:3] == ["pushed", 2]


def test_scheduler_says_why_for_each_kind_of_span(tmp_path: Path) -> None:
    entries = _handled(tmp_path, "push", "broken", "refuse")
    assert entries[1].reason == "run run-1-1 SUCCEEDED; blessed, pushed to pushed/1; a gate"
    assert entries[2].reason == "part.tfrecord is corrupt"
    assert entries[2].blameless
    assert entries[3].reason == "run run-3-1 SUCCEEDED; not blessed, not pushed; a gate"


def test_scheduler_waits_twice_as_long_after_each_failure_and_then_quarantines(tmp_path: Path) -> None:
    now = 1000.0
    policy = RetrainingPolicy(max_failures=3, backoff_s=60, backoff_limit_s=100)
    write_span(tmp_path, 1, "crash")
    write_span(tmp_path, 2, "push")
    one = dataclasses.replace(scheduler(tmp_path, policy), now_s=lambda: now)
    with one.ledger.lock():
        entry = _until_nothing(one)[1]
        assert (entry.state, entry.failures, entry.not_before_s) == ("waiting", 1, 1060.0)
        assert entry.reason.endswith("ended with status 1 and no report; its last words: Segmentation fault")
        now = 1059.0
        assert not one.step()
        now = 1060.0
        assert _until_nothing(one)[1].not_before_s == 1160.0  # 60 * 2 is more than the limit
        now = 1160.0
        entries = _until_nothing(one)
    assert (entries[1].state, entries[2].state) == ("quarantined", "pushed")
    assert entries[1].reason.startswith("3 runs failed, the last one so: ended with status 1")


def test_scheduler_quarantines_an_earlier_span_of_the_window_when_that_is_the_broken_one(tmp_path: Path) -> None:
    entries = _handled(tmp_path, "push", "push broken-before-once")
    assert (entries[1].state, entries[1].blameless, entries[1].decision) == ("quarantined", True, 2)
    assert entries[1].reason.startswith("the one before is gone; before that pushed: run run-1-1 SUCCEEDED")
    assert (entries[2].state, entries[2].attempt, entries[2].failures) == ("pushed", 2, 0)


def test_scheduler_quarantines_a_span_that_has_drifted_and_holds_when_all_do(tmp_path: Path) -> None:
    for span, behaviour in enumerate(["push", "drifted", "drifted", "push"], start=1):
        write_span(tmp_path, span, behaviour)
    one = scheduler(tmp_path, dataclasses.replace(POLICY, hold_after=2))
    with one.ledger.lock():
        entries = _until_nothing(one)
        # Run once, without waiting for another try; and counted, since a world that has changed asks for a person.
        for span in (2, 3):
            assert (entries[span].state, entries[span].attempt, entries[span].blameless) == ("quarantined", 1, False)
            assert entries[span].reason == "the examples have drifted: fails: a gate"
        assert 4 not in entries
        assert one.held() == "nothing was pushed for 2 spans in a row (2, 3; hold_after=2)"
        one.release()
        assert _until_nothing(one)[4].state == "pushed"


def test_scheduler_quarantines_a_span_when_no_run_of_it_can_begin(tmp_path: Path) -> None:
    write_span(tmp_path, 1, "mistake")
    write_span(tmp_path, 2, "push")
    now = 1000.0
    policy = RetrainingPolicy(max_failures=2, backoff_s=60)
    one = dataclasses.replace(scheduler(tmp_path, policy), now_s=lambda: now)
    with pytest.raises(CannotBeginError, match="the run of span 1 cannot begin: Error: no such option"):
        one.step()
    entry = one.ledger.entries()[1]
    assert (entry.state, entry.failures, entry.not_before_s) == ("waiting", 1, 1060.0)
    assert not one.step()
    now = 1060.0
    entries = _until_nothing(one)
    assert [entry.state for entry in entries.values()] == ["quarantined", "pushed"]
    assert entries[1].reason.startswith(
        "2 runs failed, the last one so: the run of span 1 cannot begin: Error: no such"
    )
    assert state(tmp_path)["told"][0][:3] == [1, 1, "quarantined"]


def test_scheduler_holds_when_no_run_of_two_spans_can_begin(tmp_path: Path) -> None:
    policy = dataclasses.replace(POLICY, max_failures=1)
    entries = _handled(tmp_path, "refuse", "mistake", "mistake", "push", policy=policy)
    assert [entry.state for entry in entries.values()] == ["refused", "quarantined", "quarantined"]
    one = scheduler(tmp_path, policy)
    assert one.held() == "no run of spans 2, 3 could begin, so it is hardly they that are at fault"
    one.release()
    assert _until_nothing(one)[4].state == "pushed"


def test_scheduler_goes_on_when_runs_could_not_begin_at_first(tmp_path: Path) -> None:
    for span in (1, 2, 3):
        write_span(tmp_path, span, "mistake-once refuse")
    one = scheduler(tmp_path)
    for _ in (1, 2, 3):
        with pytest.raises(CannotBeginError):
            work(tmp_path)
    work(tmp_path)
    assert [entry.state for entry in one.ledger.entries().values()] == ["refused"] * 3
    assert not one.held()


def test_scheduler_blames_no_span_when_another_run_is_at_work(tmp_path: Path) -> None:
    write_span(tmp_path, 1, "busy")
    one = scheduler(tmp_path)
    for attempt in (1, 2, 3, 4):
        with pytest.raises(ValueError, match="the run of span 1 cannot begin: Error: another run is using the root"):
            one.step()
        entry = one.ledger.entries()[1]
        assert (entry.state, entry.attempt, entry.failures, entry.interruptions) == ("waiting", attempt, 0, 0)


def test_scheduler_kills_a_run_when_it_takes_too_long(tmp_path: Path) -> None:
    policy = RetrainingPolicy(max_failures=1, run_limit_s=1)
    entry = _handled(tmp_path, "hang", policy=policy)[1]
    assert entry.reason == "1 runs failed, the last one so: killed after 1 s; its last words: nothing"


def test_scheduler_holds_after_refusals_in_a_row_until_it_is_released(tmp_path: Path) -> None:
    policy = dataclasses.replace(POLICY, hold_after=2)
    entries = _handled(tmp_path, "refuse", "push", "refuse", "broken", "crash-once refuse", "push", policy=policy)
    assert [entry.state for entry in entries.values()] == ["refused", "pushed", "refused", "quarantined", "refused"]
    one = scheduler(tmp_path, policy)
    assert not one.step()
    assert one.held() == "nothing was pushed for 2 spans in a row (3, 5; hold_after=2)"
    assert state(tmp_path)["told"][-1] == [5, 5, "refused", one.held()]
    one.release()
    assert not one.held()
    assert _until_nothing(one)[6].state == "pushed"


def test_scheduler_holds_when_no_span_of_the_window_can_be_named_as_the_broken_one(tmp_path: Path) -> None:
    policy = dataclasses.replace(POLICY, hold_after=2)
    entries = _handled(tmp_path, "push", *["broken-somewhere"] * 9, policy=policy)
    assert [entry.state for entry in entries.values()] == ["pushed", "quarantined", "quarantined"]
    one = scheduler(tmp_path, policy)
    assert one.held() == "nothing was pushed for 2 spans in a row (2, 3; hold_after=2)"


def test_scheduler_takes_the_newest_alone_when_catch_up_is_off(tmp_path: Path) -> None:
    policy = dataclasses.replace(POLICY, catch_up=False)
    entries = _handled(tmp_path, "push", "push", "push", policy=policy)
    assert [entry.state for entry in entries.values()] == ["skipped", "skipped", "pushed"]
    assert entries[1].reason == "span 3 is newer, and catch_up is off"
    assert state(tmp_path)["begun"] == ["3"]


def test_scheduler_skips_a_span_when_a_newer_one_was_run_already(tmp_path: Path) -> None:
    write_span(tmp_path, 5, "push")
    write_span(tmp_path, 7, "broken")
    _until_nothing(scheduler(tmp_path))
    write_span(tmp_path, 4, "push")
    write_span(tmp_path, 6, "push")
    entries = _until_nothing(scheduler(tmp_path))
    assert (entries[4].state, entries[4].reason) == ("skipped", "it was complete only after span 5 was begun")
    assert entries[6].state == "pushed"  # of 7 nothing was learned


def test_retry_runs_a_quarantined_span_again(tmp_path: Path) -> None:
    _handled(tmp_path, "push", "broken")
    (tmp_path / "data" / "span-2" / "part.tfrecord").write_text("push")
    one = scheduler(tmp_path)
    one.retry(2)
    entries = _until_nothing(one)
    assert (entries[2].state, entries[2].attempt, entries[2].decision) == ("pushed", 2, 3)
    assert [told[:3] for told in state(tmp_path)["told"]] == [[1, 1, "pushed"], [2, 2, "quarantined"], [2, 3, "pushed"]]
    with pytest.raises(ValueError, match="span 2 is pushed; only a quarantined one"):
        one.retry(2)


def test_retry_leaves_a_span_to_later_windows_when_a_newer_one_was_run(tmp_path: Path) -> None:
    _handled(tmp_path, "broken", "push")
    one = scheduler(tmp_path)
    one.retry(1)
    entry = _until_nothing(one)[1]
    assert (entry.state, entry.decision) == ("skipped", 3)
    assert entry.reason == (
        "released from quarantine (part.tfrecord is corrupt), but span 2 was begun: later windows take it"
    )
    assert state(tmp_path)["begun"] == ["1", "2"]


def test_retry_counts_for_a_hold_only_once_it_has_ended(tmp_path: Path) -> None:
    policy = dataclasses.replace(POLICY, hold_after=2, max_failures=1)
    _handled(tmp_path, "refuse", "crash", policy=policy)
    one = scheduler(tmp_path, policy)
    assert one.held()
    one.release()
    (tmp_path / "data" / "span-2" / "part.tfrecord").write_text("refuse")
    one.retry(2)
    assert not one.held()
    assert _until_nothing(one)[2].decision == 3
    assert not one.held()  # one refusal since the release
    write_span(tmp_path, 3, "refuse")
    _until_nothing(one)
    assert one.held() == "nothing was pushed for 2 spans in a row (2, 3; hold_after=2)"


def test_forget_lets_spans_wait_again_that_were_skipped_because_of_one_with_a_wrong_number(tmp_path: Path) -> None:
    for span in (49, 50, 1000):
        write_span(tmp_path, span, "refuse" if span == 1000 else "push")
    one = scheduler(tmp_path)
    _until_nothing(one)
    for span in (48, 51, 52):
        write_span(tmp_path, span, "push")
    assert [entry.state for span, entry in _until_nothing(one).items() if span in (48, 51, 52)] == ["skipped"] * 3
    with pytest.raises(ValueError, match=r"span 1000 would be run again; give .*span-1000 another name or remove it"):
        one.forget(1000, "a typing error")
    (tmp_path / "data" / "span-1000").rename(tmp_path / "data" / "span-53")
    one.forget(1000, "a typing error")
    entries = _until_nothing(one)
    assert {span: entry.state for span, entry in entries.items()} == {
        48: "skipped",
        49: "pushed",
        50: "pushed",
        51: "pushed",
        52: "pushed",
        53: "refused",
        1000: "forgotten",
    }
    assert entries[1000].reason == "a typing error"
    decisions = [told[1] for told in state(tmp_path)["told"]]
    assert decisions == list(range(1, 11))  # of 49, 50, 1000; 48, 51, 52 skipped; 1000 forgotten; 51, 52, 53
    assert state(tmp_path)["told"][6][:3] == [1000, 7, "forgotten"]
    with pytest.raises(ValueError, match="span 1000 is not in the ledger"):
        one.forget(1000, "again")


def test_forget_takes_a_span_for_new_when_it_comes_after_all(tmp_path: Path) -> None:
    _handled(tmp_path, "push", "refuse")
    one = scheduler(tmp_path)
    (tmp_path / "data" / "span-2" / "_SUCCESS").unlink()
    one.forget(2, "not yet")
    assert _until_nothing(one)[2].state == "forgotten"
    (tmp_path / "data" / "span-2" / "part.tfrecord").write_text("push")
    (tmp_path / "data" / "span-2" / "_SUCCESS").touch()
    entry = _until_nothing(one)[2]
    assert (entry.state, entry.attempt, entry.decision) == ("pushed", 2, 4)


def test_forget_raises_when_the_span_is_running(tmp_path: Path) -> None:
    one = scheduler(tmp_path)
    one.ledger.write(Entry(span=3, state="running", reason="under way", attempt=1))
    with pytest.raises(ValueError, match="span 3 is running; wait until that has ended"):
        one.forget(3, "a typing error")


def test_run_of_a_span_whose_entry_was_moved_away_reports_anew(tmp_path: Path) -> None:
    _handled(tmp_path, "push")
    (tmp_path / "spans" / "1.json").unlink()
    (tmp_path / "data" / "span-1" / "part.tfrecord").write_text("crash")
    one = scheduler(tmp_path)
    assert one.step()
    assert one.ledger.entries()[1].state == "waiting"


class _Listener:
    """Takes what it is told unless its span is refused at that time."""

    def __init__(self, *refused: int) -> None:
        self.refused, self.told, self.asked = refused, list[int](), list[list[int]]()

    def __call__(self, entries: Sequence[Entry], held: str) -> Iterator[Entry]:
        self.asked.append([entry.span for entry in entries])
        for entry in entries:
            if entry.span in self.refused:
                raise OSError("no answer")
            self.told.append(entry.span)
            yield entry


def test_scheduler_tells_later_whom_it_could_not_and_goes_on_meanwhile(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    policy = RetrainingPolicy(backoff_s=60, backoff_limit_s=100)
    alert, record = _Listener(1, 2), _Listener()
    one = dataclasses.replace(
        scheduler(tmp_path), telling=Telling({"alert": alert, "record": record}, policy), now_s=lambda: now
    )
    for span in (1, 2):
        write_span(tmp_path, span, "push")
    entries = _until_nothing(one)
    assert [(entry.state, entry.untold) for entry in entries.values()] == [("pushed", ("alert",))] * 2
    assert record.told == [1, 2]
    assert "span 1: alert failed, is tried again in 60 s: no answer" in caplog.text
    tries = len(alert.asked)
    assert tries == 1  # not again for the second span
    for now_s, expected in ((1059.0, 1), (1060.0, 2), (1159.0, 2)):  # 60 * 2 is more than the limit
        now = now_s
        assert not one.step()
        assert len(alert.asked) == expected
    alert.refused = ()
    now = 1160.0
    entries = _until_nothing(one)
    assert sorted(alert.told) == record.told == [1, 2]
    assert [entry.untold for entry in entries.values()] == [(), ()]


def test_scheduler_tells_at_once_what_a_scheduler_before_it_could_not(tmp_path: Path) -> None:
    write_span(tmp_path, 1, "push")
    alert = _Listener(1)
    _until_nothing(dataclasses.replace(scheduler(tmp_path), telling=Telling({"test": alert}, RetrainingPolicy())))
    work(tmp_path)
    assert [told[:2] for told in state(tmp_path)["told"]] == [[1, 1]]


def test_scheduler_tells_of_a_decision_though_its_span_was_run_again_meanwhile(tmp_path: Path) -> None:
    now = 1000.0
    write_span(tmp_path, 1, "broken")
    alert, record = _Listener(1), _Listener()
    told: list[tuple[int, str]] = []

    def listen(entries: Sequence[Entry], held: str) -> Iterator[Entry]:
        for entry in alert(entries, held):
            told.append((entry.decision, entry.state))
            yield entry

    telling = Telling({"alert": listen, "record": record}, RetrainingPolicy(backoff_s=60))
    one = dataclasses.replace(scheduler(tmp_path), telling=telling, now_s=lambda: now)
    _until_nothing(one)
    (tmp_path / "data" / "span-1" / "part.tfrecord").write_text("push")
    one.retry(1)
    assert _until_nothing(one)[1].state == "pushed"
    alert.refused, now = (), 1060.0
    assert _until_nothing(one)[1].untold == ()
    assert told == [(1, "quarantined"), (2, "pushed")]
    assert record.told == [1, 1]
    assert not list(one.ledger.directory.glob("*.untold"))


def test_scheduler_tells_other_decisions_first_when_one_is_not_taken(tmp_path: Path) -> None:
    now = 1000.0
    alert = _Listener(1)
    telling = Telling({"alert": alert}, RetrainingPolicy(backoff_s=60))
    policy = dataclasses.replace(POLICY, catch_up=False)
    one = dataclasses.replace(scheduler(tmp_path, policy), telling=telling, now_s=lambda: now)
    for span in (1, 2, 3):
        write_span(tmp_path, span, "push")
    _until_nothing(one)
    now = 1060.0
    _until_nothing(one)
    assert (alert.asked, alert.told) == ([[1, 2], [1, 2, 3]], [])
    now = 1180.0
    entries = _until_nothing(one)
    assert alert.asked[2:] == [[2, 3, 1]]
    assert alert.told == [2, 3]
    assert [entry.untold for entry in entries.values()] == [("alert",), (), ()]


def test_scheduler_tells_of_all_that_is_skipped_at_once(tmp_path: Path) -> None:
    listener = _Listener()
    policy = dataclasses.replace(POLICY, catch_up=False)
    one = dataclasses.replace(scheduler(tmp_path, policy), telling=Telling({"record": listener}, policy))
    for span in (1, 2, 3, 4):
        write_span(tmp_path, span, "push")
    _until_nothing(one)
    assert listener.asked == [[1, 2, 3], [4]]


def test_scheduler_quarantines_a_waiting_span_when_it_is_gone(tmp_path: Path) -> None:
    write_span(tmp_path, 1, "crash")
    write_span(tmp_path, 2, "push")
    one = scheduler(tmp_path)
    assert one.step()
    (tmp_path / "data" / "span-1" / "_SUCCESS").unlink()
    work(tmp_path)
    first, second = state(tmp_path)["entries"]
    assert first[1] == "quarantined"
    assert first[3].startswith("it is not complete any more; before that: run 1 failed")
    assert second[1] == "pushed"


def test_lock_raises_when_another_scheduler_holds_it(tmp_path: Path) -> None:
    with (
        Ledger(tmp_path).lock(),
        pytest.raises(ValueError, match="another scheduler is at work"),
        Ledger(tmp_path).lock(),
    ):
        pass


def test_entries_raise_when_a_file_is_no_entry(tmp_path: Path) -> None:
    (tmp_path / "3.json").write_text("{}")
    with pytest.raises(ValueError, match=r"3\.json is no entry of a ledger"):
        Ledger(tmp_path).entries()


def test_policy_raises_with_all_that_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"retraining: max_failures=0 .*; backoff_s=9 .*; hold_after=-1"):
        RetrainingPolicy(max_failures=0, backoff_s=9, backoff_limit_s=1, hold_after=-1)
