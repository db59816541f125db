"""Reads the lineage of one model."""

import itertools
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from components.quantization.calibration_set import PROPERTY, sets_from_json
from components.retraining.spans import SPAN_FINGERPRINTS, spans_of
from pipelines.lineage.chain import chain_of, gaps_of, problems_of
from pipelines.lineage.find import MODEL, PUSHED, is_push
from pipelines.lineage.graph import Graph
from pipelines.lineage.story import Data, Judgement, Lineage, Link, Node, Push, Sibling
from pipelines.metadata import ArtifactRecord, Value

# Of these models only the weights go on, or nothing but a comparison; each has a lineage of its own.
_EARLIER = ("warm_start_model",)
_BLESSINGS = ("ModelBlessing", "InfraBlessing")
_ORIGIN = (
    "task",
    "task_sha256",
    "training_examples_sha256",
    "evaluation_examples_sha256",
    "examples_span",
    "examples_fingerprint",
    "examples_spans",
    "examples_span_fingerprints",
    "schema_sha256",
    "transform_sha256",
    "base_model_sha256",
    "warm_start_model_sha256",
    "seed",
    "training_platform",
)
_CONVERSION = ("profile", "io_dtype", "calibration", "representative_examples", "representative_seed")
_TARGET = ("target", "compiled", "compiler", "ops_on_target", "ops_on_cpu")
_VERSION = "_version"
_TRAINED = ("float", "ptq", "selective", "qat", "mixed")  # the kinds of models that a training measured
# Properties of TFX's own that say nothing about the artifact's content.
_PLUMBING = frozenset({"name", "state", "pipeline_name", "producer_component", "is_external", "__is_null__"})


def trace(graph: Graph, model: ArtifactRecord) -> Lineage:
    """Returns what produced a model and what became of it.

    Args:
      graph: The store.
      model: The Model artifact.
    """
    return _Trace(graph, model).lineage()


class _Trace:
    """What is looked up more than once for one model."""

    def __init__(self, graph: Graph, model: ArtifactRecord) -> None:
        self._graph, self._model = graph, model
        self._ancestors = graph.ancestors(model.id, _EARLIER)
        self._makers = graph.makers(self._ancestors)
        self._runs = graph.runs(self._makers.values())
        self._pipeline, self._run = self._runs.get(self._makers.get(model.id, 0), ("", ""))
        self._of_run = self._models_of_run()
        same = [one.id for one in self._of_run if self._is_same(one)]
        self._same = sorted({model.id, *same})
        self._all_pushes = [one for one in graph.of_type(PUSHED) if is_push(one)]

    def lineage(self) -> Lineage:
        """Puts all of it together."""
        judges, pushers = self._judges(), self._pushers()
        pushes = self._pushes(pushers)
        newest = [push.id for push in pushes if self._graph.inputs(self._maker(push.id))["model"] == [self._model.id]]
        chain = chain_of(self._graph, newest[-1] if newest else self._model.id)
        facts = self._model.properties
        return Lineage(
            id=self._model.id,
            store=self._graph.url,
            sha256=str(facts.get("sha256", "")),
            kind=str(facts.get("kind", "")),
            target=target_of(self._model),
            pipeline=self._pipeline,
            run=self._run,
            reused=sum(edge.is_output for edge in self._graph.edges_of_artifacts([self._model.id])) - 1,
            chain=chain,
            problems=problems_of(chain),
            gaps=gaps_of(chain),
            data=self._data(),
            calibration_sets=sets_from_json(str(facts.get(PROPERTY, ""))),
            origin={name: facts[name] for name in _ORIGIN if facts.get(name, "") != ""},
            settings=self._settings(judges),
            versions={
                name.removesuffix(_VERSION).replace("_", "-"): str(value)
                for name, value in sorted(facts.items())
                if name.endswith(_VERSION)
            },
            metrics=self._metrics(chain, judges),
            judgements=self._judgements(judges),
            pushes=pushes,
            siblings=self._siblings(),
            earlier_models=tuple(dict.fromkeys(itertools.chain(*(self._earlier(one) for one in self._ancestors)))),
            nodes=tuple(map(self._node, self._ancestors)),
        )

    def _models_of_run(self) -> list[ArtifactRecord]:
        """The models that the run gave; ML Metadata counts those that it only took to the run, too."""
        models = [one for one in self._graph.of_run(self._run) if one.type == MODEL]
        given = self._graph.given_by_run([one.id for one in models], (self._pipeline, self._run))
        return [one for one in models if one.id in given]

    def _is_same(self, other: ArtifactRecord) -> bool:
        sha256 = self._model.properties.get("sha256")
        return bool(sha256) and other.properties.get("sha256") == sha256

    def _maker(self, artifact: int) -> int:
        return self._graph.makers([artifact])[artifact]

    def _judges(self) -> list[int]:
        """The executions that judged the model, or that which it was compiled from together with it."""
        maker = self._makers.get(self._model.id)
        parents = self._graph.inputs(maker).get("model", []) if maker else []
        found = []
        for one in self._graph.takers([*self._same, *parents], ("model", "compiled_model")):
            inputs = self._graph.inputs(one)
            judged = inputs.get("compiled_model") or inputs.get("model", [])
            if set(judged) & set(self._same) and self._given(one, _BLESSINGS):
                found.append(one)
        return found

    def _pushers(self) -> list[int]:
        """The executions that pushed the model, or to which this file was the same model, of another run."""
        pushed = [one.id for one in self._all_pushes if self._is_same(one)]
        takers = self._graph.takers(self._same, ("model",))
        found = [one for one in takers if any(map(is_push, self._given(one, (PUSHED,))))]
        return sorted({*found, *self._graph.makers(pushed).values()})

    def _given(self, execution: int, types: Sequence[str]) -> list[ArtifactRecord]:
        """What an execution gave, of some types."""
        given = [self._graph.artifacts[one] for ids in self._graph.outputs(execution).values() for one in ids]
        return [artifact for artifact in given if artifact.type in types]

    def _judgements(self, judges: Sequence[int]) -> tuple[Judgement, ...]:
        runs = self._graph.runs(judges)
        return tuple(
            Judgement(
                id=blessing.id,
                component=self._graph.executions[judge].component,
                blessed=blessing.properties.get("blessed") == 1,
                at=utc(self._graph.executions[judge].started_s),
                run=runs[judge][1],
                reasons=tuple(_json(blessing, "reasons") or ()),
                codes=tuple(filter(None, str(blessing.properties.get("reason_codes", "")).split(", "))),
                overrides=tuple(_json(blessing, "overrides") or ()),
            )
            for judge in judges
            for blessing in self._given(judge, _BLESSINGS)
        )

    def _pushes(self, pushers: Sequence[int]) -> tuple[Push, ...]:
        runs = self._graph.runs(pushers)
        found = []
        for pusher in pushers:
            inputs = self._graph.inputs(pusher)
            for pushed in self._given(pusher, (PUSHED,)):
                facts = {name: str(value) for name, value in pushed.properties.items()}
                found.append(
                    Push(
                        id=pushed.id,
                        at=facts.get("pushed_at") or utc(self._graph.executions[pusher].started_s),
                        run=runs[pusher][1],
                        target=target_of(self._graph.artifacts[inputs["model"][0]]),
                        destination=facts.get("pushed_destination", ""),
                        version=facts.get("pushed_version", ""),
                        sha256=facts.get("sha256", ""),
                        blessings=tuple(
                            itertools.chain(inputs.get("model_blessing", ()), inputs.get("infra_blessing", ()))
                        ),
                        replaced_version=facts.get("replaced_version"),
                        replaced_sha256=facts.get("replaced_sha256", ""),
                        replaced_by=_replaced_by(pushed, self._all_pushes),
                    )
                )
        return tuple(sorted(found, key=lambda push: push.id))

    def _data(self) -> tuple[Data, ...]:
        examples = [self._graph.artifacts[one] for one in self._ancestors]
        return tuple(
            Data(
                id=one.id,
                span=int(one.properties["span"]) if one.properties.get("span", "") != "" else None,
                fingerprint=str(one.properties.get("input_fingerprint", "")),
                spans=spans_of(one.properties),
                span_fingerprints=tuple(_json(one, SPAN_FINGERPRINTS) or ()),
                splits=tuple(_json(one, "split_names") or ()),
                uri=one.uri,
                component=self._component(one.id),
            )
            for one in examples
            if one.type == "Examples"
        )

    def _settings(self, judges: Sequence[int]) -> dict[str, Mapping[str, Any]]:
        facts = self._model.properties
        gates = [self._graph.executions[one].properties.get("gates", "") for one in judges]
        found = {
            "scheme": _json(self._model, "scheme"),
            "training": next(
                filter(None, (_json(self._graph.artifacts[one], "training") for one in self._ancestors)), None
            ),
            "conversion": {name: facts[name] for name in _CONVERSION if name in facts},
            "target": {name: facts[name] for name in _TARGET if name in facts},
            "gates": next((json.loads(str(text)) for text in reversed(gates) if text), None),
        }
        return {name: group for name, group in found.items() if group}

    def _metrics(self, chain: Sequence[Link], judges: Sequence[int]) -> dict[str, float]:
        found = {}
        for link in chain:
            for name, value in self._graph.artifacts[link.id].properties.items():
                if name.startswith("eval_") and link.kind in _TRAINED:
                    found[f"{link.kind}.{name}"] = float(value)
        evaluations = [one for judge in judges for one in self._given(judge, ("ModelEvaluation",))]
        for name, value in evaluations[-1].properties.items() if evaluations else ():
            if isinstance(value, float):
                found[f"evaluation.{name}"] = value
        return dict(sorted(found.items()))

    def _siblings(self) -> tuple[Sibling, ...]:
        return tuple(
            Sibling(
                id=one.id,
                kind=str(one.properties.get("kind", "")),
                target=target_of(one),
                sha256=str(one.properties.get("sha256", "")),
                uri=one.uri,
            )
            for one in self._of_run
            if one.id not in self._ancestors
        )

    def _earlier(self, artifact: int) -> list[int]:
        maker = self._makers.get(artifact)
        return [one for key in _EARLIER for one in self._graph.inputs(maker).get(key, [])] if maker else []

    def _component(self, artifact: int) -> str:
        maker = self._makers.get(artifact)
        return self._graph.executions[maker].component if maker else ""

    def _node(self, artifact: int) -> Node:
        record, maker = self._graph.artifacts[artifact], self._makers.get(artifact)
        execution = self._graph.executions[maker] if maker else None
        return Node(
            id=record.id,
            type=record.type,
            uri=record.uri,
            properties={name: value for name, value in sorted(record.properties.items()) if name not in _PLUMBING},
            component=execution.component if execution else "",
            made_at=utc(execution.started_s) if execution else "",
            seconds=execution.seconds if execution else 0.0,
            run=self._runs[maker][1] if maker else "",
            inputs={key: tuple(ids) for key, ids in self._graph.inputs(maker).items()} if maker else {},
        )


def utc(seconds: float) -> str:
    """Returns a time as 2026-11-25T13:36:52Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _replaced_by(pushed: ArtifactRecord, all_pushes: Sequence[ArtifactRecord]) -> str:
    """The version that was pushed to the same place next."""
    where, version = _place(pushed)
    later = (_place(other) for other in all_pushes if other.id > pushed.id)
    return next((other for place, other in later if place == where and other != version), "")


def _place(pushed: ArtifactRecord) -> tuple[str, str]:
    destination = str(pushed.properties.get("pushed_destination", ""))
    return os.path.dirname(destination), str(pushed.properties.get("pushed_version", ""))


def target_of(model: ArtifactRecord) -> str:
    """Returns the target that a model is for; "" for none."""
    return str(model.properties.get("target", "") or model.properties.get("profile", ""))


def _json(artifact: ArtifactRecord, name: str) -> Any:
    """What a property holds as JSON; None if it holds none."""
    text: Value = artifact.properties.get(name, "")
    return json.loads(str(text)) if text else None
