"""PipelineConfig: every knob of a run."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from components.evaluation.drift import of_drift
from components.evaluation.gates import Gates, Override, parse_day, today
from components.evaluation.measurements import FAKE_QUANT, FLOAT, INTEGER, LAST_BLESSED
from components.evaluation.smoke_settings import SmokeSettings
from components.evaluation.task import Task
from components.evaluation.task_metric import TaskMetric
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.schemes import QuantizationScheme
from components.retraining.ledger import Ledger
from components.retraining.policy import RetrainingPolicy
from components.retraining.spans import SpanSource
from components.targets import Options
from pipelines.beam_runners import BeamRunner
from pipelines.beam_runners.direct import Direct
from pipelines.config_checks import OF_ONE_TARGET, check_config
from pipelines.deployment import Deployment
from pipelines.target_plan import ResolvedPlan, TargetPlan, component_suffix


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig:
    """What a pipeline does and where it keeps things.

    Attributes:
      name: Name of the pipeline: lowercase letters, digits and "-", a letter first, at most 63.
      task: Name of a task in pipelines/tasks, or the dotted path of a module like those.
      label_key: The raw and transformed feature that is the label; of a model with several outputs, by output.
      root: Directory under which everything is kept, unless told otherwise below.
      examples_dir: Directory of raw TFRecord files of tf.Examples; "" for `examples` under the root, where a task that
        can write its own examples puts them.
      metadata: Where ML Metadata is kept by runs on this machine: the path of a SQLite file, or the URL of a server;
        see pipelines/metadata_connection.py. "" for `metadata.sqlite` under the root.
      spans: In place of `examples_dir`: examples that arrive in spans, of which a run takes a window.
      schema_file: A schema.pbtxt that someone wrote or corrected. Examples that break it stop the run; "" to infer one
        from the examples, which then cannot break it.
      retraining: What the scheduler does when all does not go well.
      push_dir: Where blessed models go; "" for `pushed` under the root.
      eval_buckets: The eval split is about one in this many examples.
      scheme: A quantization scheme, or the name of one that ships.
      target: Where the model will run.
      targets: In place of `target`, `io_dtype`, `when_missing`, `compiler_options`, `push_dir` and `smoke`:
        several targets of one trained model, each with its own of these, and perhaps gates; the first
        one's last blessed model is that of a warm start.
      io_dtype: Type of the model's inputs and outputs, of all or by name: "int8" or "uint8", "int16" with 16-bit
        activations, "float32" to have the file quantize and dequantize by itself; "" for the usual one of the scheme.
      representative_examples: Examples that a float model would be calibrated with.
      attribution_examples: Examples of the eval split on which is measured where accuracy went; 0 for none.
      flipped_examples: Of the eval examples that get another class by the integer model, how many are shown on the
        report, which lies beside the pushed model; 0 for none, as where examples are private.
      latency_runs: Of how many inferences of the integer model on the evaluator's machine the report tells the median
        time; 0 for none unless a gate asks.
      conversion_cache_dir: Local directory in which conversions are kept, so that a retry does not convert again; ""
        for `conversions` under the root, if that is local. Under a remote root, such as gs://, nothing is kept.
      when_missing: Without the target's compiler: "analyze" or "fail".
      compiler_options: Options of the target's compiler, of the target's own type; None for its defaults.
      training: Strategy, epochs, rates, seed and so on.
      warm_start: Whether float training begins with the weights of the last blessed model.
      metrics: Class names of TFMA or Keras metrics by the names that gates use; as "output/name" of one output.
      gates: What a model must keep to be blessed, and so pushed.
      slices: Features, or groups of features, by which metrics are sliced.
      label_kind: What the labels are, of all outputs or by output: "classes" for one class each, as an index or
        one-hot, "labels" for several, each there or not, "values" to come near to; "" to tell from types and shapes,
        and to refuse where they may mislead.
      also_compared: Models that the integer one is compared with, on the same examples, though no gate asks:
        "fake_quant", "last_blessed".
      weight_key: The raw and transformed feature that is the weight of an example; "" for equal weights.
      smoke: What a model must keep to where it is run on its golden vectors: budgets, how far kernels may differ, and
        what a run may take.
      beam: Where the Beam pipelines inside components run.
      component_beam: The same for single components, by the component's id; replaces `beam` for them.
      deployment: How its containers run, on a service.
    """

    name: str
    task: str
    label_key: str | Mapping[str, str]
    root: str
    examples_dir: str = ""
    metadata: str = ""
    spans: SpanSource | None = None
    schema_file: str = ""
    retraining: RetrainingPolicy = dataclasses.field(default_factory=RetrainingPolicy)
    push_dir: str = ""
    eval_buckets: int = 5
    scheme: str | QuantizationScheme = "full_int8"
    target: str = "edge_tpu"
    targets: tuple[TargetPlan, ...] = ()
    io_dtype: str | Mapping[str, str] = ""
    representative_examples: int = 300
    attribution_examples: int = 200
    flipped_examples: int = 12
    latency_runs: int = 0
    conversion_cache_dir: str = ""
    when_missing: str = "analyze"
    compiler_options: Options | None = None
    training: TrainingParameters = dataclasses.field(default_factory=TrainingParameters)
    warm_start: bool = False
    metrics: Mapping[str, str | TaskMetric] = dataclasses.field(
        default_factory=lambda: {"accuracy": "SparseCategoricalAccuracy"}
    )
    gates: Gates = dataclasses.field(default_factory=lambda: Gates.of("accuracy drop <= 0.01"))
    slices: tuple[tuple[str, ...], ...] = ()
    label_kind: str | Mapping[str, str] = ""
    also_compared: tuple[str, ...] = (FAKE_QUANT,)
    weight_key: str = ""
    smoke: SmokeSettings = dataclasses.field(default_factory=SmokeSettings)
    beam: BeamRunner = dataclasses.field(default_factory=Direct)
    component_beam: Mapping[str, BeamRunner] = dataclasses.field(default_factory=dict)
    deployment: Deployment = dataclasses.field(default_factory=Deployment)

    def __post_init__(self) -> None:
        """Checks everything that can be known without TensorFlow; raises ValueError for what is wrong."""
        check_config(self)

    @property
    def plans(self) -> tuple[ResolvedPlan, ...]:
        """What the trained model becomes: one plan for each target, with nothing left to the pipeline's own."""
        if not self.targets:
            simple = TargetPlan(**{name: getattr(self, name) for name in ("target", *OF_ONE_TARGET)})
            return (simple.resolved(self.gates, self.push_uri, ""),)
        return tuple(
            plan.resolved(self.gates, self.target_push_uri(plan), component_suffix(plan.target))
            for plan in self.targets
        )

    def target_push_uri(self, plan: TargetPlan) -> str:
        """Returns where the models of one of several targets go."""
        return plan.push_dir or os.path.join(self.push_uri, plan.target)

    @property
    def evaluation(self) -> Task:
        """What is measured."""
        return Task(
            label_key=self.label_key,
            metrics=self.metrics,
            slices=self.slices,
            label_kind=self.label_kind,
            weight_key=self.weight_key,
            models=(INTEGER, FLOAT, FAKE_QUANT, LAST_BLESSED),
        )

    def compared_models(self, plan: ResolvedPlan) -> frozenset[str]:
        """Returns the names of the models that the integer model of a target is compared with."""
        return plan.gates.models | frozenset(self.also_compared)

    @property
    def measures_drift(self) -> bool:
        """Whether examples are compared with those of the first target's last blessed model: of spans always."""
        return self.spans is not None or any(of_drift(plan.gates) for plan in self.plans)

    def needs_last_blessed(self, plan: ResolvedPlan) -> bool:
        """Returns whether the pipeline looks for the last blessed model of a target."""
        is_baseline = (self.warm_start or self.measures_drift) and plan.target == self.plans[0].target
        return is_baseline or LAST_BLESSED in self.compared_models(plan)

    @property
    def beam_pipeline_args(self) -> tuple[str, ...]:
        """Arguments of the Beam pipelines inside components that have no runner of their own."""
        return self.beam.arguments(self.deployment.image)

    @property
    def examples_uri(self) -> str:
        """Where the raw examples are."""
        return self.examples_dir or os.path.join(self.root, "examples")

    @property
    def pipeline_root(self) -> str:
        """Where artifacts go."""
        return os.path.join(self.root, "artifacts")

    @property
    def push_uri(self) -> str:
        """Where blessed models go."""
        return self.push_dir or os.path.join(self.root, "pushed")

    @property
    def conversion_cache(self) -> str:
        """Where conversions are kept; "" for nowhere."""
        default = "" if "://" in self.root else os.path.join(self.root, "conversions")
        return self.conversion_cache_dir or default

    @property
    def reports_uri(self) -> str:
        """Where reports of runs on a service go."""
        return os.path.join(self.root, "reports")

    @property
    def metadata_url(self) -> str:
        """Where ML Metadata is, for runs on this machine."""
        return self.metadata or os.path.join(self.root, "metadata.sqlite")

    @property
    def logs_dir(self) -> str:
        """Where runs on this machine write what is not shown."""
        return os.path.join(self.root, "logs")

    @property
    def spans_dir(self) -> str:
        """Where the scheduler keeps what became of each span."""
        return os.path.join(self.root, "spans")

    def with_window(self, span: int | None, again: bool = False) -> "PipelineConfig":
        """Returns a copy with the window of spans that a run takes; itself if its examples come in no spans.

        Args:
          span: The newest of the window; None for the newest complete one that is not quarantined.
          again: Whether an earlier run on it did not end.

        Raises:
          ValueError: If there is no such complete span, or one is given where there are none.
        """
        if self.spans is None:
            if span is not None:
                raise ValueError(f"--span {span}: the examples of config {self.name!r} come in no spans; leave it out")
            return self
        quarantined = Ledger(Path(self.spans_dir)).quarantined()
        selected = self.spans.ending_at(span, quarantined)
        return dataclasses.replace(self, spans=dataclasses.replace(selected, is_repeated=again))

    def with_gates(self, texts: tuple[str, ...]) -> "PipelineConfig":
        """Returns a copy with gates added; one of the same figure and kind is replaced.

        Raises:
          ValueError: If a text is no gate.
        """
        return self.with_each_gates(lambda gates: gates.updated(texts)) if texts else self

    def with_each_gates(self, change: Callable[[Gates], Gates]) -> "PipelineConfig":
        """Returns a copy in which the gates, and those of each target that has its own, are changed."""
        plans = (
            dataclasses.replace(plan, gates=change(plan.gates) if plan.gates is not None else None)
            for plan in self.targets
        )
        return dataclasses.replace(self, gates=change(self.gates), targets=tuple(plans))

    def for_target(self, name: str) -> "PipelineConfig":
        """Returns a copy for one target: of several, that one alone; else that one instead.

        Raises:
          ValueError: If it is none of several.
        """
        if not self.targets:
            return dataclasses.replace(self, target=name)
        kept = tuple(plan for plan in self.targets if plan.target == name)
        if not kept:
            there = ", ".join(plan.target for plan in self.targets)
            raise ValueError(f"config {self.name!r}: target {name!r} is none of its targets; there are {there}")
        return dataclasses.replace(self, targets=kept)

    def with_overrides(self, names: tuple[str, ...], because: str, until: str, by: str = "") -> "PipelineConfig":
        """Returns a copy in which some gates, and those that need not already, need not be kept for a while.

        Args:
          names: The gates, as they are written.
          because: Why.
          until: The last day, as 2026-12-31, by UTC.
          by: Who says so.

        Raises:
          ValueError: If there is no such gate, the day has passed, or one of the three is missing.
        """
        if not names and not because and not until:
            return self
        if not (names and because and until):
            raise ValueError("an override needs all of --override-gate, --because and --until")
        overrides = tuple(Override(gate=name, because=because, until=parse_day(until), by=by) for name in names)
        known = {str(gate) for plan in self.plans for gate in plan.gates.bounds}

        def override(gates: Gates) -> Gates:
            there = {str(gate) for gate in gates.bounds}
            # One that is nowhere a gate is an error of all gates; one of other targets is none of these.
            mine = tuple(one for one in overrides if one.gate in there or one.gate not in known)
            others = tuple(one for one in gates.overrides if one.gate not in {new.gate for new in overrides})
            changed = dataclasses.replace(gates, overrides=(*others, *mine))
            changed.require_current(today())
            return changed

        return self.with_each_gates(override)
