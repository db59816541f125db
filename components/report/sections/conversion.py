"""How the file was made: calibration and what it stands for, rewrites, and the audit."""

from components.report.facts import Node
from components.report.layout import Section, Table, row, table


def calibration(root: Node) -> Section:
    """Returns how ranges were found and how well the sample stands for its split."""
    found, sample = root["conversion"], root["representative"]
    missing = []
    if not found:
        missing.append("How the file was converted is not recorded.")
    if found and not found["calibrated"].value:
        missing.append(f"The converter calibrated no range: {_given_by(found)}")
    elif not sample:
        missing.append("How well the calibration sample stands for its split is not recorded.")
    tables = [one for one in (_choices(found), _coverage(sample), _methods(found["candidates"])) if one.rows]
    return Section(id="calibration", title="Calibration", missing=tuple(missing), tables=tuple(tables))


def audit(root: Node) -> Section:
    """Returns whether the file is integer-only and ready, with offenders and notes, and what was rewritten."""
    found = root["audit"]
    rows = [row(name.replace("_", " "), found[name].cell("d")) for name in ("integer_only", "ready", "ops") if found]
    findings = [
        row(kind, *(one[name].cell("g", missing="none") for name in ("rule", "op", "tensor", "reason", "fix")))
        for kind, name in (("offender", "offenders"), ("note", "notes"))
        for one in found[name]
    ]
    rewrites = [
        row(one["name"].cell(), one["op"].cell(), one["tensor"].cell(missing="none"))
        for one in root["conversion"]["rewrites"]
    ]
    tables = (
        table("Audit of the file", ("question", "answer"), rows),
        table("Findings", ("kind", "rule", "op", "tensor", "reason", "what to do"), findings),
        table("Rewrites for the target", ("rewrite", "op", "tensor"), rewrites),
    )
    missing = [] if found else ["The file was not audited."]
    if found and not findings:
        missing.append("The audit found nothing to say.")
    return Section(
        id="audit", title="Audit and rewrites", missing=tuple(missing), tables=tuple(one for one in tables if one.rows)
    )


def _given_by(found: Node) -> str:
    """Whom ranges are from that the converter did not calibrate."""
    makers = ", ".join(dict.fromkeys(one["by"].text for one in found["calibration_sets"]))
    if not makers:
        return "training gave all of them."
    return f"{makers} gave all of them, starting from those that it calibrated with the examples of the next section."


def _choices(found: Node) -> Table:
    if not found:
        return table("Conversion", ("choice", "value"), [])
    calibrated = (
        ("tensors calibrated", found["calibrated"].cell()),
        ("method", found["calibration"].cell()),
        ("examples", found["examples"].cell(",d")),
    )
    rows = [
        *(row(name, cell) for name, cell in calibrated if found["calibrated"].value),
        *(row(f"seconds to {name}", found["seconds"][name].cell(".3g")) for name in found["seconds"].names),
        row("taken from the cache", found["cached"].cell()),
    ]
    return table("Conversion", ("choice", "value"), rows)


def _coverage(sample: Node) -> Table:
    rows = [
        row(
            name,
            sample["sample_examples"].cell(",d"),
            of["sample"]["min"].cell(".4g"),
            of["sample"]["max"].cell(".4g"),
            sample["split_examples"].cell(",d"),
            of["split"]["min"].cell(".4g"),
            of["split"]["max"].cell(".4g"),
            of["split_beyond_sample"].cell(".3%"),
        )
        for name, of in ((name, sample["inputs"][name]) for name in sample["inputs"].names)
    ]
    head = ("input", "sample", "lowest", "highest", "split", "lowest", "highest", "beyond the sample")
    return table("The calibration sample and its split: examples, values, and the share of values beyond", head, rows)


def _methods(candidates: Node) -> Table:
    rows = [
        row(one["method"].cell(), one["score"].cell(".5g"), one["error"].cell(missing="none")) for one in candidates
    ]
    return table("Calibration methods that were tried", ("method", "score", "error"), rows)
