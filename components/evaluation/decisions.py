"""What models decide: scores and labels as classes, for whatever kind of problem."""

import dataclasses
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Kind = Literal["classes", "labels", "values"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """What a model decides for each example of a batch.

    Attributes:
      classes: Of shape (examples, decisions): one for a classifier, one for each label where there are several, one for
        each position of a map of classes.
      confidences: Of the same shape, the score of what was decided.
      tied: Whether any decision had two scores that were equally high, (examples,).
    """

    classes: npt.NDArray[np.int64]
    confidences: npt.NDArray[np.float64]
    tied: npt.NDArray[np.bool_]


def kind_of(labels: npt.NDArray[Any], scores: npt.NDArray[Any], declared: Kind | None = None) -> Kind:
    """Returns the kind of problem: as it was declared, else from types and shapes, never from values.

    Integer labels as wide as the scores are several labels, each there (1) or not (0); floats as many as the scores are
    values to come near to; anything else are classes. Where that may be wrong `label_clues.LabelClues` asks.

    Args:
      labels: Of shape (examples,) or (examples, ...).
      scores: Of shape (examples, ...).
      declared: "classes" for one class each, as an index or one-hot; "labels" for several, each there or not; "values"
        to come near to; None if nobody said.

    >>> kind_of(np.zeros((4, 1), int), np.zeros((4, 10)))
    'classes'
    >>> kind_of(np.zeros((4, 10), int), np.zeros((4, 10)))
    'labels'
    >>> kind_of(np.zeros((4, 1), "float32"), np.zeros((4, 1)))
    'values'
    """
    if declared:
        return declared
    if labels.dtype.kind == "f" and labels[:1].size == scores[:1].size:
        return "values"
    several = scores.ndim == 2 and scores.shape[1] > 1 and labels.shape == scores.shape
    return "labels" if several else "classes"


def decide(scores: npt.NDArray[Any], kind: Kind) -> Decided:
    """Returns what scores decide: the first of the highest, or for a score of its own whether it is above 0.5.

    Args:
      scores: Of shape (examples, ..., classes), or (examples, ..., 1) for the probability of one class.
      kind: "classes" or "labels".

    >>> decide(np.array([[0.1, 0.9], [0.5, 0.5]]), "classes").classes.tolist()
    [[1], [0]]
    >>> decide(np.array([[0.1, 0.9, 0.7]]), "labels").classes.tolist()
    [[0, 1, 1]]
    """
    count = len(scores)
    values = scores.astype(np.float64)
    if kind == "labels" or values.shape[-1] == 1 or values.ndim == 1:
        values = values.reshape(count, -1)
        classes = (values > 0.5).astype(np.int64)
        return Decided(
            classes=classes,
            confidences=np.where(classes == 1, values, 1.0 - values),
            tied=(values == 0.5).any(axis=1),
        )
    highest = values.max(axis=-1, keepdims=True)
    tied = (values == highest).sum(axis=-1) > 1
    return Decided(
        classes=values.argmax(axis=-1).reshape(count, -1),
        confidences=highest.reshape(count, -1),
        tied=tied.reshape(count, -1).any(axis=1),
    )


def decisions_of_labels(
    labels: npt.NDArray[Any], scores: npt.NDArray[Any], kind: Kind, where: str = "label"
) -> npt.NDArray[np.int64]:
    """Returns labels in the shape of the decisions, (examples, decisions).

    Args:
      labels: Integers; of classes their indices, or one-hot as wide as the scores.
      scores: The scores that they belong to.
      kind: "classes" or "labels".
      where: What to call the labels in an error.

    Raises:
      ValueError: If there are not as many as decisions, or one is no class that the model knows.
    """
    decided = decide(scores[:1], kind).classes.shape[1]
    if kind == "classes" and labels.shape == scores.shape and scores.ndim > 1 and scores.shape[-1] > 1:
        if not is_one_hot(labels).all():
            raise ValueError(f"{where}: got labels as wide as the scores that are not one-hot; give one class each")
        labels = labels.argmax(axis=-1)
    flat = labels.reshape(len(labels), -1).astype(np.int64)
    if flat.shape[1] != decided:
        raise ValueError(
            f"{where}: got {flat.shape[1]} labels for an example, expected {decided}, as scores of shape"
            f" {scores.shape[1:]} ask for"
        )
    classes = 2 if kind == "labels" else max(2, scores.shape[-1] if scores.ndim > 1 else 1)
    unknown = np.unique(flat[(flat < 0) | (flat >= classes)])
    if len(unknown):
        raise ValueError(
            f"{where}: got {', '.join(map(str, unknown[:5]))}, expected 0..{classes - 1}, the classes of the model;"
            " mend the labels, leave such examples out of the split, or, if they are values to come near to, set"
            " label_kind='values'"
        )
    return flat


def is_one_hot(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Returns whether along the last axis one value is 1 and the others are 0."""
    one_hot: npt.NDArray[np.bool_] = ((labels == 0) | (labels == 1)).all(axis=-1) & (labels.sum(axis=-1) == 1)
    return one_hot


def checked_labels(
    labels: npt.NDArray[Any], scores: npt.NDArray[Any], where: str, declared: Kind | None = None
) -> npt.NDArray[Any]:
    """Returns labels after a look at them.

    Args:
      labels: Of shape (examples,) or (examples, ...).
      scores: Of shape (examples, ...).
      where: What to call the labels in an error.
      declared: As of `kind_of`.

    Raises:
      ValueError: If labels are no numbers, too few or too many, or no classes of the model.
    """
    if labels.dtype.kind not in "fiub":
        raise ValueError(f"{where}: got {labels.dtype}, expected numbers; make them numbers in the preprocessing_fn")
    if not np.isfinite(labels).all():
        raise ValueError(f"{where}: got values that are not numbers; leave such examples out of the split")
    kind = kind_of(labels, scores, declared)
    if kind == "values" and labels[:1].size != scores[:1].size:
        raise ValueError(
            f"{where}: got {labels[:1].size} values for an example, expected {scores[:1].size}, as scores of shape"
            f" {scores.shape[1:]} ask for"
        )
    if kind != "values":
        if labels.dtype.kind == "f" and (labels != np.rint(labels)).any():
            raise ValueError(f"{where}: got fractions, expected classes, as scores of shape {scores.shape[1:]} ask for")
        decisions_of_labels(labels, scores, kind, where)
    return labels
