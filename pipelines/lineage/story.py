"""What lineage says of a model: plain values, which the tree, the page, the JSON and the comparison show."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from components.quantization.calibration_set import CalibrationSet
from components.quantization.dataclass_schema import schema_of
from pipelines.metadata import Value

FORMAT = 2
WHOLE, INCOMPLETE, BROKEN = "whole", "incomplete", "broken"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """A model that a training began with.

    Attributes:
      id: Of the artifact.
      taken_as: "warm_start_model", of which the weights were taken, or "base_model".
      sha256: As it was recorded with that model; "" if nobody recorded it.
      taken_sha256: What the model that was trained says that it took; "" if nobody recorded it.
    """

    id: int
    taken_as: str
    sha256: str
    taken_sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """One model of the chain from the pushed file back to the float model.

    Attributes:
      id: Of the artifact.
      kind: "pushed", "compiled", "not compiled", "int8" or the scheme, "qat" or another rung, "float".
      sha256: As it was recorded.
      parent_sha256: That of what it was made of, as it was recorded; "" for the float model.
      size_bytes: Of the file, or of a SavedModel's variables; 0 if nobody recorded it.
      uri: Where it is.
      component: Class of the component that made it.
      made_at: When that began, in UTC.
      run: Id of the pipeline's run in which it was made.
      file: "as recorded", "changed" or "gone"; "remote" if it is not on this machine and so was not read;
        "not recorded" if it is there, but nobody recorded a hash to compare it with.
      earlier: Models that its training began with.
    """

    id: int
    kind: str
    sha256: str
    parent_sha256: str
    size_bytes: int
    uri: str
    component: str
    made_at: str
    run: str
    file: str
    earlier: tuple[Earlier, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Examples that the model was made of.

    Attributes:
      id: Of the artifact.
      span: Number of the span, of a window the newest; None of examples that have none, as transformed ones.
      fingerprint: What ExampleGen noted of the input files of that span; "" if nothing.
      spans: All spans, the oldest first; () of examples that have none.
      span_fingerprints: Of a window, the fingerprint of each of them; () of a single span.
      splits: Names of the splits.
      uri: Where they are.
      component: Class of the component that made them.
    """

    id: int
    span: int | None
    fingerprint: str
    spans: tuple[int, ...]
    span_fingerprints: tuple[str, ...]
    splits: tuple[str, ...]
    uri: str
    component: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What gates or a smoke test said.

    Attributes:
      id: Of the blessing.
      component: Class of the component that said it.
      blessed: Whether the model may be pushed.
      at: When, in UTC.
      run: Id of the run.
      reasons: One sentence for each gate or check.
      codes: Codes of the reasons, as components/evaluation/verdict.py has them.
      overrides: Gates that the model need not keep: "gate", "because", "until", "by".
    """

    id: int
    component: str
    blessed: bool
    at: str
    run: str
    reasons: tuple[str, ...]
    codes: tuple[str, ...]
    overrides: tuple[Mapping[str, str], ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Push:
    """That the model was pushed.

    Attributes:
      id: Of the PushedModel.
      at: When, in UTC.
      run: Id of the run.
      target: Of the model.
      destination: Directory of the version.
      version: Its name.
      sha256: Of its file; another than the model's if the same model, of another run, was there already; "" if unknown.
      blessings: Ids of the blessings that it was pushed with.
      replaced_version: What was latest before; "" for none, as of the first; None if nobody recorded it.
      replaced_sha256: Its file's; "" if unknown.
      replaced_by: The version that replaced it, by another push; "" for none so far.
    """

    id: int
    at: str
    run: str
    target: str
    destination: str
    version: str
    sha256: str
    blessings: tuple[int, ...]
    replaced_version: str | None
    replaced_sha256: str
    replaced_by: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One artifact among the ancestors.

    Attributes:
      id: Of the artifact.
      type: Of the artifact, such as "Schema".
      uri: Where it is.
      properties: What its maker noted.
      component: Class of the component that made it; "" if that is unknown.
      made_at: When that began, in UTC.
      seconds: How long it took.
      run: Id of the run.
      inputs: Ids of what it was made of, by the component's input.
    """

    id: int
    type: str
    uri: str
    properties: Mapping[str, Value]
    component: str
    made_at: str
    seconds: float
    run: str
    inputs: Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sibling:
    """Another model of the same run.

    Attributes:
      id: Of the artifact.
      kind: As of a `Link`.
      target: Its target; "" for none.
      sha256: As recorded; "" if nothing was.
      uri: Where it is.
    """

    id: int
    kind: str
    target: str
    sha256: str
    uri: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """What produced a model and what became of it.

    Attributes:
      format: Version of what `to_json` writes; it changes when a name or meaning does.
      id: Of the Model artifact.
      store: The ML Metadata that the ids are of.
      sha256: Of its file.
      kind: As of a `Link`.
      target: Its target; "" for none.
      pipeline: Name of the pipeline that made it.
      run: Id of the run.
      reused: In how many later runs it was taken from the cache.
      chain: From the newest push, or the model itself, back to the float model.
      problems: Where hashes or files say that the chain is broken, one sentence each.
      gaps: Where a hash was never recorded, so that nobody can tell, one sentence each.
      data: The examples.
      calibration_sets: Which examples ranges are from; empty if all ranges were trained, or nobody noted them.
      origin: Hashes of data, schema, transform and code, and the seed.
      settings: Scheme, training, conversion and target, by group.
      versions: What it was made with, by distribution.
      metrics: By "evaluation.NAME", and "KIND.eval_NAME" of the training.
      judgements: Of gates and smoke tests, the oldest first.
      pushes: The oldest first.
      siblings: Other models that the same run made or took from the cache, those of other targets among them.
      earlier_models: Ids of models whose weights the training began with; their own ancestors are not shown.
      nodes: The model and all its ancestors, the nearest first.
    """

    id: int
    store: str
    sha256: str
    kind: str
    target: str
    pipeline: str
    run: str
    reused: int
    chain: tuple[Link, ...]
    problems: tuple[str, ...]
    gaps: tuple[str, ...]
    data: tuple[Data, ...]
    calibration_sets: tuple[CalibrationSet, ...]
    origin: Mapping[str, Value]
    settings: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str]
    metrics: Mapping[str, float]
    judgements: tuple[Judgement, ...]
    pushes: tuple[Push, ...]
    siblings: tuple[Sibling, ...]
    earlier_models: tuple[int, ...]
    nodes: tuple[Node, ...]
    format: int = FORMAT

    @property
    def chain_state(self) -> str:
        """Either "whole", "broken" where a hash or file differs, or "incomplete" where one was never recorded."""
        return BROKEN if self.problems else INCOMPLETE if self.gaps else WHOLE

    def to_json(self) -> str:
        """Returns all of it as indented JSON, of the schema that `lineage_schema` returns."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def lineage_schema() -> dict[str, object]:
    """Returns the JSON schema of what `Lineage.to_json` writes.

    >>> sorted(lineage_schema()["required"])[:3]
    ['calibration_sets', 'chain', 'data']
    """
    return schema_of(Lineage)
