"""Where the ops run: the graph as a strip, the first op off the target, and the figures of both sides."""

from components.report.facts import Cell, Node
from components.report.layout import Section, Strip, Table, row, table
from components.targets import STATIC_ANALYSIS

_MOST_OPS = 400


def section(root: Node) -> Section:
    """Returns the mapping of the ops onto the target."""
    report, ops = root["compile_report"], list(root["target_ops"])
    name = report["target"].text or "the target"
    notes = []
    if report:
        by_rules = "not compiled; predicted by" if report["tool"].text == STATIC_ANALYSIS else "not compiled; by"
        how = "compiled by" if report["compiled"].value else by_rules
        notes.append(f"For {name}, {how} {report['tool'].text}.")
    notes += [f"To be looked at: {problem.text}" for problem in report["problems"]]
    breaking = report["first_breaking_op"]
    if breaking:
        why = (breaking["reason"].text or breaking["status"].text).rstrip(".")
        notes.append(
            f"The first op off the target is op {breaking['index'].value}, {breaking['op'].text}"
            f" ({breaking['layer'].text or 'no layer known'}): {why}. {breaking['edit'].text}".rstrip()
        )
    missing = []
    if not report:
        missing.append("The model was not given to a target's compiler or analysis.")
    if not ops:
        missing.append("The order of the ops is not recorded.")
    elif len(ops) > _MOST_OPS:
        missing.append(f"Only the first {_MOST_OPS} of {len(ops)} ops are drawn.")
    return Section(
        id="target",
        title="Ops on the target",
        notes=tuple(notes),
        missing=tuple(missing),
        strip=_strip(ops[:_MOST_OPS], name, breaking) if ops else None,
        tables=(_counts(report), _sides(report)) if report else (),
    )


def headline(root: Node) -> list[tuple[str, Cell]]:
    """Returns how many ops are on either side."""
    report = root["compile_report"]
    return [
        (f"ops on {report['target'].text or 'the target'}", report["on_target"]["ops"].cell(",d")),
        ("ops on the CPU", report["on_cpu"]["ops"].cell(",d")),
    ]


def _strip(ops: list[Node], target: str, breaking: Node) -> Strip:
    first = breaking["index"].value if breaking else next((op["index"].value for op in ops if not _is_on(op)), None)
    cells = []
    for op in ops:
        mark = "" if _is_on(op) else "first on the CPU" if op["index"].value == first else "CPU"
        layer = f", layer {op['layer'].text}" if op["layer"].text else ""
        status = ". ".join(filter(None, (op["status"].text, op["reason"].text)))
        cells.append((op["op"].cell(), mark, f"op {op['index'].value}{layer}: {mark or target}. {status}"))
    return Strip(caption=f"All ops in order, and which run on {target}", ops=tuple(cells))


def _is_on(op: Node) -> bool:
    return op["on_target"].value is True


def _counts(report: Node) -> Table:
    rows = [
        row(
            one["op"].cell(),
            one["count"].cell(",d"),
            one["on_target"].cell(),
            one["status"].cell(),
            mark="" if one["on_target"].value else "off target",
        )
        for one in report["ops"]
    ]
    return table("Ops by kind, as the report has them", ("op", "count", "on target", "status"), rows)


def _sides(report: Node) -> Table:
    rows = [
        row(side, *(report[key][name].cell(",d", missing="not known") for name in ("ops", "macs", "parameters")))
        for side, key in (("target", "on_target"), ("CPU", "on_cpu"))
    ]
    return table("What either side does for an inference", ("side", "ops", "MACs", "parameters"), rows)
