"""What an evaluation is asked to measure."""

import dataclasses
from collections.abc import Mapping, Sequence

from components.evaluation.decisions import KINDS
from components.evaluation.gate import Gate
from components.evaluation.gates import Gates, Measurable
from components.evaluation.measurements import FLOAT, INTEGER
from components.evaluation.task_metric import TaskMetric


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What the models are asked, and how well is measured.

    Attributes:
      label_key: The transformed feature that is the label; of a model with several outputs, by output.
      metrics: Class names of TFMA or Keras metrics, or `TaskMetric`s with options, by the names that gates use;
        "agreement" and "example_count" are always there. With several outputs a metric is of all of them, or, as
        "output/name", of one.
      slices: Features, or groups of features, by which the metrics are sliced.
      label_kind: What the labels are, of all outputs or by output: "classes" for one class each, as an index or
        one-hot, "labels" for several, each there or not, "values" to come near to; "" to tell from types and shapes.
      weight_key: The transformed feature that is the weight of an example; "" for equal weights.
      models: Names of the models, the integer one first and its float parent second.
    """

    label_key: str | Mapping[str, str]
    metrics: Mapping[str, str | TaskMetric]
    slices: Sequence[Sequence[str]] = ()
    label_kind: str | Mapping[str, str] = ""
    weight_key: str = ""
    models: tuple[str, ...] = (INTEGER, FLOAT)

    @property
    def labels(self) -> Mapping[str, str]:
        """The feature that is the label of each output, that of an only one under ""."""
        return {"": self.label_key} if isinstance(self.label_key, str) else self.label_key

    def kind_of(self, output: str) -> str:
        """What the labels of an output are; "" to tell from types and shapes."""
        return self.label_kind if isinstance(self.label_kind, str) else self.label_kind.get(output, "")

    def metrics_of(self, output: str) -> dict[str, TaskMetric]:
        """The metrics of an output."""
        names = {name: name.rpartition("/") for name in self.metrics}
        return {
            parts[2]: TaskMetric.of(self.metrics[name]) for name, parts in names.items() if parts[0] in ("", output)
        }

    def figures_of(self, output: str) -> list[str]:
        """Names of the figures of an output."""
        return [figure for name, metric in self.metrics_of(output).items() for figure in metric.figures(name)]

    @property
    def headline_metric(self) -> TaskMetric:
        """The first metric."""
        return TaskMetric.of(next(iter(self.metrics.values())))

    @property
    def headline(self) -> tuple[str, str]:
        """Output and name of the first metric, that which a run shows; of several outputs that it is of, the first."""
        given, metric = next(iter(self.metrics.items()))
        output, _, name = given.rpartition("/")
        return output or next(iter(self.labels)), TaskMetric.of(metric).figures(name)[0]

    def require(self, gates: Gates) -> None:
        """Raises ValueError if a gate is on something that is not measured, or a metric or kind of no output."""
        kinds = {"": self.label_kind} if isinstance(self.label_kind, str) else self.label_kind
        for output, kind in kinds.items():
            if kind not in ("", *KINDS) or (output and output not in self.labels):
                raise ValueError(
                    f"label_kind: got {kind!r} for output {output!r}, expected one of {', '.join(KINDS)}, or '', of"
                    f" {', '.join(filter(None, self.labels)) or 'the only output'}"
                )
        wrong = sorted({name.rpartition("/")[0] for name in self.metrics} - {"", *self.labels})
        if wrong:
            raise ValueError(f"metrics of outputs {', '.join(wrong)}, which have no label_key; give it by output")
        figures = {output: self.figures_of(output) for output in self.labels}
        twice = sorted({name for names in figures.values() for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"metrics: two figures called {', '.join(twice)}; rename one of the metrics")
        uncounted = [text for output in self.labels for text in self._uncounted(output)]
        if uncounted:
            raise ValueError("; ".join(uncounted))
        misleading = [text for gate in gates.bounds for text in self._misleading(gate)]
        if misleading:
            raise ValueError("; ".join(misleading))
        Measurable(
            metrics=tuple(dict.fromkeys(name for names in figures.values() for name in names)),
            slices=tuple(tuple(group) for group in self.slices),
            models=tuple(name for name in self.models if name != INTEGER),
            outputs=tuple(self.labels),
            paired=True,
        ).require(gates)

    def _uncounted(self, output: str) -> list[str]:
        """Why accuracies of an output do not count what is decided of its labels, as they were declared."""
        kind, of = self.kind_of(output), f" of {output}" if output else ""
        use = {
            "labels": "use BinaryAccuracy",
            "values": "use a metric of values, such as MeanAbsoluteError, or name its output, as in 'OUTPUT/accuracy'",
        }
        return [
            f"metric {name}{of}: {metric.class_name} does not count decisions on label_kind={kind!r}; {use[kind]}"
            for name, metric in self.metrics_of(output).items()
            if metric.is_accuracy and not metric.counts(kind)
        ]

    def _misleading(self, gate: Gate) -> list[str]:
        """Why a gate does not say what it seems to."""
        found = []
        elsewhere = [output for output in self.labels if gate.metric in self.figures_of(output)]
        if gate.output in self.labels and elsewhere and gate.output not in elsewhere:
            found.append(f"gate '{gate}': {gate.metric} is computed of {', '.join(elsewhere)} alone")
        for name, metric in self.metrics_of(gate.output).items():
            if gate.metric not in metric.figures(name):
                continue
            if gate.kind not in metric.kinds:
                found.append(f"gate '{gate}': a worse model would keep it more easily, as {metric.class_name} goes")
            if gate.confidence and not metric.is_accuracy:
                found.append(
                    f"gate '{gate}': its interval is that of right decisions, which {metric.class_name} is not"
                )
        return found
