"""Shows what quantization would make of a model, and what its target would run, before anyone trains it."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from components.quantization.schemes import QuantizationScheme, load_scheme
from components.targets import Mapping, analysis, load_target, options_json
from pipelines.columns import print_line, print_table
from pipelines.configs import config_names, load_config
from pipelines.file_inspection import first_op_not_there
from pipelines.progress import silent

if TYPE_CHECKING:
    from components.quantization.qat.plan import Policy

STOPPED_STATUS = 1

_STYLES = {"blocked": "red", "calibrate": "yellow"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is inspected.

    Attributes:
      source: Name of a config, or path of a saved model.
      scheme: The scheme, or its name.
      target: Name of the target.
      untrainable: What becomes of layers that cannot be trained.
      options: JSON of the options of the target's compiler; "" for the defaults.
      task: The task that builds the model; empty if it was saved.
    """

    source: str
    scheme: str | QuantizationScheme
    target: str
    untrainable: "Policy"
    options: str = ""
    task: str = ""

    def load(self) -> Any:
        """Returns the model: as the task builds it, or as it was saved."""
        if not self.task:
            from components.quantization.surgery.keras3 import load_model

            return load_model(Path(self.source))
        from pipelines.tasks import load_task

        return load_task(self.task).build_model({})


def subject_of(source: str, scheme: str | None, target: str | None, untrainable: "Policy | None") -> Subject:
    """Returns what a source is; a config brings its own scheme and target, which the other arguments replace.

    A target that the config plans for comes with the compiler options of that plan, every other with its defaults.

    Args:
      source: Name of a config in pipelines/configs, else the path of a saved model.
      scheme: Name of the scheme; None for the config's, else full_int8.
      target: Name of the target; None for the config's, else edge_tpu.
      untrainable: What becomes of layers that cannot be trained; None for what the config says, else "calibrate".

    Raises:
      ValueError: If it is neither, scheme and target do not fit or do not exist, or the plan's options are none of the
        target's.
    """
    if source in config_names():
        config = load_config(source)
        wanted = target or config.plans[0].target
        planned = {plan.target: options_json(plan.compiler_options) for plan in config.plans}
        subject = Subject(
            source=source,
            scheme=scheme or config.scheme,
            target=wanted,
            untrainable=untrainable or config.training.untrainable,
            options=planned.get(wanted, ""),
            task=config.task,
        )
    elif not os.path.exists(source) and os.sep not in source and not Path(source).suffix:
        raise ValueError(
            f"{source}: got neither a config nor a path, expected one of {', '.join(config_names())}, or a .keras or"
            " .h5 file or the directory of a SavedModel; write one with model.save('model.keras')"
        )
    else:
        subject = Subject(
            source=source,
            scheme=scheme or "full_int8",
            target=target or "edge_tpu",
            untrainable=untrainable or "calibrate",
        )
    loaded = load_target(subject.target)
    loaded.check(load_scheme(subject.scheme))
    loaded.require_options(subject.options)
    return subject


def inspect_and_show(subject: Subject, console: Console) -> int:
    """Plans, converts an untrained copy and maps its ops; shows all of it.

    Returns:
      The exit status: 0, or 1 if there will be no integer model, or none that the target runs an op of.

    Raises:
      ValueError: For a mistake in what was asked: no such model, or one that cannot be taken apart.
    """
    scheme = load_scheme(subject.scheme)
    with console.status("loading TensorFlow and the model"), silent():
        model = subject.load()
    print_line(console, f"{subject.source}: scheme {scheme.name}, target {subject.target}", "bold")
    if not scheme.trained:
        print_line(console, f"scheme {scheme.name} is not trained: it is applied when a float model is converted")
    elif not _show_plan(subject, scheme, model, console):
        print_line(console, "Not converted: the target's ops are checked when no layer is blocked", "red")
        return STOPPED_STATUS
    return _show_mapping(subject, scheme, model, console)


def _show_plan(subject: Subject, scheme: QuantizationScheme, model: Any, console: Console) -> bool:
    """Shows what happens to each layer; returns whether none is blocked."""
    with console.status("planning"), silent():
        from components.quantization.qat.plan import plan

        found = plan(model, scheme, subject.target, subject.untrainable)
    rows = [(layer.name, layer.layer, layer.action, layer.reason) for layer in found.layers]
    print_table(console, ("layer", "class", "action", "how or why"), rows, [_STYLES.get(row[2], "") for row in rows])
    parameters, macs = (sum(getattr(layer, what) for layer in found.layers) for what in ("parameters", "macs"))
    print_line(
        console,
        f"Trained as integers: {found.coverage:.1%} of {parameters:,} parameters, {found.mac_coverage:.1%} of"
        f" {macs:,} multiplications; layers calibrated: {len(found.calibrated)}, blocked: {len(found.blockers)}",
    )
    for layer in found.blockers:
        print_line(console, f"blocked: {layer.name} ({layer.layer}): {layer.reason}", "red")
    return not found.blockers


def _show_mapping(subject: Subject, scheme: QuantizationScheme, model: Any, console: Console) -> int:
    """Shows where each op of the converted model would run; returns the exit status."""
    with console.status("converting an untrained copy"), silent():
        from components.quantization.qat.preflight import preflight

        try:
            tflite = preflight(model, scheme, subject.target, subject.untrainable)
        except ValueError as error:
            failure = str(error)
        else:
            failure = ""
    if failure:
        print_line(console, f"Not converted: {failure}", "red")
        return STOPPED_STATUS
    mapping, report = load_target(subject.target).analyze(tflite, subject.options)
    _show_ops(mapping, console)
    if report.first_breaking_op is not None:
        print_line(console, first_op_not_there(report.first_breaking_op), "yellow")
    return 0 if mapping.on_target else STOPPED_STATUS


def _show_ops(mapping: Mapping, console: Console) -> None:
    counts = analysis(mapping).ops
    rows = [
        (count.op, str(count.count), mapping.target if count.on_target else "CPU", count.status) for count in counts
    ]
    print_table(console, ("op", "count", "runs on", "why"), rows, ["" if row.on_target else "yellow" for row in counts])
    style = "" if mapping.on_target else "red"
    print_line(console, f"{mapping.on_target} of {len(mapping.ops)} ops run on {mapping.target}, by its rules", style)
    left = [f"{op.index} {op.op}" for op in mapping.ops if not op.on_target]
    if left:
        print_line(console, f"not on {mapping.target}, by index: {', '.join(left)}", "yellow")
