"""What a run came to."""

import dataclasses
import json
import os
import shlex
import sys
from typing import Any

from tfx.dsl.io import fileio

from components.evaluation.gate import DRIFT
from components.evaluation.verdict import without_held
from components.model_artifact import TFLITE_FILE
from components.quantization.agreement import AGREEMENT
from components.targets import STATIC_ANALYSIS
from pipelines.config import PipelineConfig
from pipelines.metadata import ArtifactRecord, ExecutionRecord, MetadataStore

_RUNG_NAMES = {"ptq": "PTQ", "selective": "selective QAT", "qat": "QAT", "mixed": "mixed QAT"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What a run came to.

    Attributes:
      float_accuracy: Accuracy of the float model on the eval split, by the first configured metric, 0..1.
      qat_accuracy: The same of its quantized copy, with fake quantization.
      int8_accuracy: The same of the integer model.
      agreement: Share of the eval split for which integer and float model predict the same.
      float_bytes: Size of the float SavedModel's variables.
      int8_bytes: Size of the TFLite file.
      ops_on_target: Ops that run on the target.
      ops_on_cpu: Ops that do not.
      target: Name of the target.
      compiled: Whether the target's compiler made the file.
      compiler: The compiler, or "static analysis".
      rung: How the model became one of integers: "ptq", "selective", "qat" or "mixed".
      rungs: What each rung of strategy "auto" cost and brought, one a line; empty with other strategies.
      warm_start: How many layers began with weights of the last blessed model; empty without a warm start.
      report_uri: The compiled model, with its report beside it.
      pushed_version: The version that was pushed; empty if none was.
      blessed: Whether all gates hold, and the model passed its smoke test.
      reasons: The gates with their figures, then what the smoke test found.
      pushed_to: The pushed file; empty if none was pushed.
      metric: Name of the metric that the accuracies are.
      drift: How far the feature that has drifted most from the last blessed model's examples has, 0 to 1; None if that
        was not measured.
      components: Number of components that ran or were cached.
      cached: Names of the components whose results came from the cache.
    """

    float_accuracy: float
    qat_accuracy: float
    int8_accuracy: float
    agreement: float
    float_bytes: int
    int8_bytes: int
    ops_on_target: int
    ops_on_cpu: int
    target: str
    compiled: bool
    compiler: str
    report_uri: str
    pushed_version: str
    rung: str
    rungs: tuple[str, ...]
    warm_start: str
    blessed: bool
    reasons: tuple[str, ...]
    pushed_to: str
    metric: str
    drift: float | None
    components: int
    cached: tuple[str, ...]


def summarize(reader: MetadataStore, config: PipelineConfig, target: str = "") -> RunSummary:
    """Reads the last run of a config's pipeline.

    Args:
      reader: ML Metadata.
      config: The config.
      target: Which of its targets; "" for the first.

    Raises:
      ValueError: If that run did not end with every component.
    """
    executions = reader.last_run(config.name)
    plan = next(plan for plan in config.plans if target in ("", plan.target))
    outputs = {
        _name(execution, key): of[0]
        for execution in executions
        if "".join(execution.component.partition("-")[1:]) in ("", plan.suffix)
        for key, of in execution.outputs.items()
    }
    needed = {"float_model", "model", "tflite_model", "compiled_model", "evaluation", "blessing", "pushed_model"}
    needed.add("infra_blessing")
    missing = sorted(needed - set(outputs))
    if missing:
        raise ValueError(f"the last run of {config.name} has no {', '.join(missing)}; run it again")
    output, metric = config.evaluation.headline
    of_output = "_".join(filter(None, (output, metric)))
    compiled, pushed = outputs["compiled_model"], outputs["pushed_model"]
    blessings = outputs["blessing"], outputs["infra_blessing"]
    of_gates, of_smoke_test = (json.loads(str(blessing.properties["reasons"])) for blessing in blessings)
    destination = str(pushed.properties.get("pushed_destination", ""))
    return RunSummary(
        float_accuracy=_number(outputs["evaluation"], f"float_{of_output}"),
        qat_accuracy=_number(outputs["model"], f"eval_{of_output}"),
        int8_accuracy=_number(outputs["evaluation"], f"integer_{of_output}"),
        agreement=_number(outputs["evaluation"], "_".join(filter(None, ("integer", output, AGREEMENT)))),
        float_bytes=int(_number(outputs["float_model"], "size_bytes")),
        int8_bytes=int(_number(outputs["tflite_model"], "size_bytes")),
        ops_on_target=int(_number(compiled, "ops_on_target")),
        ops_on_cpu=int(_number(compiled, "ops_on_cpu")),
        target=str(compiled.properties["target"]),
        compiled=bool(compiled.properties["compiled"]),
        compiler=str(compiled.properties["compiler"]),
        report_uri=compiled.uri,
        pushed_version=str(pushed.properties.get("pushed_version", "")) if pushed.properties.get("pushed") == 1 else "",
        rung=str(outputs["model"].properties.get("kind", "")),
        rungs=_rungs(outputs["model"], of_output),
        warm_start=_warm_start(outputs["float_model"]),
        blessed=all(blessing.properties["blessed"] == 1 for blessing in blessings),
        reasons=(*of_gates, *without_held(of_smoke_test)),
        pushed_to=os.path.join(destination, TFLITE_FILE) if pushed.properties.get("pushed") == 1 else "",
        metric=f"{metric} of {output}" if output else metric,
        drift=_drift(outputs["evaluation"]),
        components=len(executions),
        cached=tuple(execution.component for execution in executions if execution.cached),
    )


def _name(execution: ExecutionRecord, key: str) -> str:
    """The key of an output; the evaluator and the validator both have a blessing, as the stock ones do."""
    kind = execution.component.partition("-")[0]
    return "infra_blessing" if (kind, key) == ("EdgeInfraValidator", "blessing") else key


def _number(artifact: ArtifactRecord, name: str) -> float:
    value = artifact.properties.get(name, float("nan"))
    return value if isinstance(value, int | float) else float("nan")


def _drift(evaluation: ArtifactRecord) -> float | None:
    value = evaluation.properties.get(DRIFT)
    return value if isinstance(value, float) else None


def _rungs(model: ArtifactRecord, metric: str) -> tuple[str, ...]:
    receipts = json.loads(str(model.properties.get("receipts", "[]")))
    return tuple(_rung(receipt, metric) for receipt in receipts)


def _rung(receipt: dict[str, Any], metric: str) -> str:
    if not receipt["metrics"]:
        return f"{receipt['rung']}: {'; '.join(receipt['reasons'])}"
    value = receipt["metrics"].get(metric, float("nan"))
    figures = f"{receipt['rung']}: {metric} {value:.4f}, {receipt['size_bytes']:,} bytes, {receipt['seconds']:.1f} s"
    if not receipt["reasons"]:
        return figures
    return f"{figures}, {'good enough' if receipt['accepted'] else 'not good enough'}"


def _warm_start(model: ArtifactRecord) -> str:
    layers = json.loads(str(model.properties.get("warm_start", "[]")))
    return f"{sum(layer['taken'] for layer in layers)} of {len(layers)} layers" if layers else ""


def summary_rows(summary: RunSummary, lineage: str) -> list[tuple[str, str]]:
    """Returns the table that ends a run, as rows of a name and a value; `lineage` is the command that shows it."""
    verdict = "yes" if summary.blessed else "no"
    warm_start = [("warm start", summary.warm_start)] if summary.warm_start else []
    drift = [("drift of the examples", f"{summary.drift:.4f}")] if summary.drift is not None else []
    return [
        *drift,
        *warm_start,
        *zip(["ladder", *[""] * len(summary.rungs)], summary.rungs, strict=False),
        (f"float {summary.metric}", f"{summary.float_accuracy:.4f}"),
        (f"{_RUNG_NAMES.get(summary.rung, 'QAT')} {summary.metric}", f"{summary.qat_accuracy:.4f} (fake quantization)"),
        (f"int8 {summary.metric}", f"{summary.int8_accuracy:.4f}"),
        ("agreement float/int8", f"{summary.agreement:.4f}"),
        ("model bytes float/int8", _sizes(summary)),
        (f"ops on {summary.target}/CPU", f"{summary.ops_on_target} / {summary.ops_on_cpu}, {_compiled(summary)}"),
        *zip(["blessed", *[""] * len(summary.reasons)], [verdict, *summary.reasons], strict=True),
        ("pushed to", _pushed(summary)),
        ("lineage", lineage or "none: nothing was pushed"),
    ]


def lineage_command(summary: RunSummary, metadata: str) -> str:
    """Returns the command that shows where the pushed file came from; empty if none was pushed.

    Args:
      summary: The run.
      metadata: Where ML Metadata is, if the command would not find it by itself; else empty.
    """
    if not summary.pushed_to:
        return ""
    # Shorter where the interpreter is below the working directory, as that of `make setup` is.
    inside = sys.executable.startswith(f"{os.getcwd()}{os.sep}")
    python = os.path.relpath(sys.executable) if inside else sys.executable
    where = ["--metadata", metadata] if metadata else []
    return shlex.join([python, "-m", "pipelines", "lineage", summary.pushed_to, *where])


def cache_line(summary: RunSummary) -> str:
    """Says what came from the cache; empty if nothing did."""
    if not summary.cached:
        return ""
    what = "all" if len(summary.cached) == summary.components else ", ".join(summary.cached)
    return f"From TFX's cache: {len(summary.cached)} of {summary.components} components ({what})"


def _sizes(summary: RunSummary) -> str:
    ratio = summary.int8_bytes / summary.float_bytes if summary.float_bytes else float("nan")
    return f"{summary.float_bytes:,} / {summary.int8_bytes:,} ({ratio:.2f})"


def _pushed(summary: RunSummary) -> str:
    if not summary.pushed_to:
        return "nowhere: the model is not blessed"
    gone = "" if fileio.exists(summary.pushed_to) else " (by an earlier run; the file is not there any more)"
    return summary.pushed_to + gone


def _compiled(summary: RunSummary) -> str:
    if summary.compiled:
        return f"compiled by {summary.compiler}"
    said = "predicted by" if summary.compiler == STATIC_ANALYSIS else "by"
    return f"{said} {summary.compiler}; not compiled"
