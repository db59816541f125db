"""A metric as a task names it: its class, what it is made with, and of which classes it is."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

from components.evaluation.gate import Kind
from components.evaluation.metric_directions import direction

# Those of tf_keras that count examples decided as `decisions.decide` does, made as they are.
_KERAS = "tf_keras.metrics."
_ACCURACIES = ("BinaryAccuracy", "CategoricalAccuracy", "SparseCategoricalAccuracy")

Aggregate = Literal["", "micro", "macro", "weighted_macro"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TaskMetric:
    """A metric of TFMA or Keras with its options. `TaskMetric(**json.loads(json.dumps(asdict(it))))` equals it.

    Attributes:
      class_name: A metric of TFMA, or a metric or loss of tf_keras; one of another module with its path.
      config: Arguments of the class.
      class_ids: Each of these classes against the rest, as "NAME_class_ID".
      k: The class with the k-th highest score against the rest, as "NAME_k_K".
      top_k: The classes with the k highest scores, as "NAME_top_K".
      aggregate: How classes are averaged; "" for not at all. With it `top_k` are what is averaged.
      class_weights: Weights of the classes in the average; a macro average needs them, or `top_k`.
      query_key: The feature by which examples are grouped, for metrics of rankings.
    """

    class_name: str
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    class_ids: tuple[int, ...] = ()
    k: tuple[int, ...] = ()
    top_k: tuple[int, ...] = ()
    aggregate: Aggregate = ""
    class_weights: Mapping[int, float] = dataclasses.field(default_factory=dict)
    query_key: str = ""

    def __post_init__(self) -> None:
        """Takes lists for tuples, as from JSON; raises ValueError for options that do not go together."""
        for name in ("class_ids", "k", "top_k"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "class_weights", {int(name): value for name, value in self.class_weights.items()})
        wrong = []
        try:
            same = json.loads(json.dumps(dict(self.config))) == dict(self.config)
        except (TypeError, ValueError):
            same = False
        if not same:
            wrong.append("config has values that JSON does not keep, expected numbers, texts, lists and dicts")
        known = get_args(Aggregate)
        if self.aggregate not in known:
            wrong.append(f"aggregate={self.aggregate!r}, expected one of {', '.join(filter(None, known))}")
        if self.aggregate and (self.class_ids or self.k):
            wrong.append("class_ids or k with an aggregate; give two metrics")
        if self.class_weights and not self.aggregate:
            wrong.append("class_weights without an aggregate")
        if wrong:
            raise ValueError(f"metric {self.class_name}: {'; '.join(wrong)}")

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of gates that a worse model does not keep more easily; all where the class does not tell.

        >>> TaskMetric(class_name="SparseCategoricalAccuracy").kinds
        ('at_least', 'drop_at_most')
        """
        better = direction(self.class_name)
        if not better:
            return get_args(Kind)
        return ("at_least", "drop_at_most") if better == "higher" else ("at_most", "rise_at_most")

    @property
    def is_accuracy(self) -> bool:
        """Whether it is the share of examples that are decided rightly, as what is paired counts them."""
        return self.is_plain and not self.config and self.class_name.removeprefix(_KERAS) in _ACCURACIES

    def counts(self, kind: str) -> bool:
        """Whether an accuracy can be that of labels of a kind, as of `Task.label_kind`."""
        several = self.class_name.removeprefix(_KERAS) == "BinaryAccuracy"
        return kind in ("", "classes") or (kind == "labels" and several)

    @classmethod
    def of(cls, metric: "str | TaskMetric") -> "TaskMetric":
        """Returns a metric that may be given by its class alone."""
        return cls(class_name=metric) if isinstance(metric, str) else metric

    @property
    def is_plain(self) -> bool:
        """Whether it is of scores and labels as they are."""
        return not (self.class_ids or self.k or self.top_k or self.aggregate or self.query_key)

    def figures(self, name: str) -> tuple[str, ...]:
        """Returns the names that gates use, of a metric called `name`.

        >>> TaskMetric(class_name="Precision", class_ids=(0, 2)).figures("precision")
        ('precision_class_0', 'precision_class_2')
        """
        keys = (("class", self.class_ids), ("k", self.k), ("top", self.top_k))
        return tuple(f"{name}_{kind}_{value}" for kind, values in keys for value in values) or (name,)
