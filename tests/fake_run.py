"""What a run of a pipeline does as far as a scheduler can see, in a few milliseconds and without imports to speak of.

Arguments: the span's file, whose words are what to do; a directory for journals; the report to write; a process id.
"""

import json
import os
import signal
import sys
import time


def _journal(directory: str, name: str, span: str) -> None:
    with open(f"{directory}/{name}", "a") as file:
        file.write(f"{span}\n")


def main(file: str, directory: str, report_file: str, scheduler: str) -> int:
    with open(file) as content:
        behaviour = content.read().split()
    span = os.path.basename(os.path.dirname(file)).rpartition("-")[2]
    attempt = int(report_file.split(".")[-2])
    _journal(directory, "begun", span)
    report = {"run": f"run-{span}-{attempt}", "state": "SUCCEEDED", "error": "", "fault": ""}
    if ("kill-scheduler-once" in behaviour and attempt == 1) or "kill-scheduler" in behaviour:
        os.kill(int(scheduler), signal.SIGKILL)
        time.sleep(60)  # until it is killed, too
    if "hang" in behaviour:
        time.sleep(60)
    if "mistake" in behaviour or ("mistake-once" in behaviour and attempt == 1):
        print("Error: no such option")
        return 2
    if "busy" in behaviour:
        print("Error: another run is using the root")
        return 75
    if "crash" in behaviour or ("crash-once" in behaviour and attempt == 1):
        print("Segmentation fault")
        return 1
    if "broken-before-once" in behaviour and attempt == 1:
        earlier = {"fault": "examples", "broken_span": int(span) - 1}
        report |= {"state": "FAILED", "error": "the one before is gone", "verdict": None, **earlier}
    elif "broken" in behaviour or "broken-somewhere" in behaviour:
        report |= {"state": "FAILED", "error": "part.tfrecord is corrupt", "fault": "examples", "verdict": None}
        report["broken_span"] = int(span) if "broken" in behaviour else None
    elif "drifted" in behaviour:
        drifted = {"fault": "drift", "drift": 0.75}
        report |= {"state": "FAILED", "error": "the examples have drifted: fails: a gate", "verdict": None, **drifted}
    else:
        pushed_to = f"pushed/{span}" if "push" in behaviour else ""
        report["verdict"] = {"blessed": bool(pushed_to), "pushed_to": pushed_to, "reasons": ["a gate"]}
    with open(f"{report_file}.partial", "w") as partial:
        json.dump(report, partial)
    os.replace(f"{report_file}.partial", report_file)
    _journal(directory, "ended", span)
    if "kill-scheduler-at-end" in behaviour:
        os.kill(int(scheduler), signal.SIGKILL)
    return 3 if report["state"] == "FAILED" else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
