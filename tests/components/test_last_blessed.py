"""The last blessed model on real ML Metadata: found, compared, refused, and never another pipeline's."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from evaluated_models import EvaluatedModel, example_columns, integer_contract, write_examples
from tfx import types
from tfx.dsl.components.common import importer, resolver
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.types import standard_artifacts

from components.edge_infra_validator import EdgeInfraValidator
from components.evaluation.gates import Gates
from components.last_blessed import MODEL_ID_KEY, ORIGIN_KEY, LastBlessedModelStrategy
from components.quantized_evaluator import QuantizedEvaluator
from pipelines.config import PipelineConfig
from pipelines.configs import load_config
from pipelines.last_blessed import last_blessed
from pipelines.metadata import MetadataStore
from pipelines.runners import load_runner
from pipelines.target_plan import ResolvedPlan

pytestmark = pytest.mark.long
_GATE = "accuracy drop vs last_blessed <= 0.05"


def _unvalidated(config: PipelineConfig, plan: ResolvedPlan, on_service: bool) -> resolver.Resolver:
    """That of pipelines without a validator, as most here are."""
    return last_blessed(config, plan, on_service, validated=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ran:
    """What a run said, and against which model."""

    codes: str
    blessed: bool
    baselines: list[str]


@dataclasses.dataclass(frozen=True)
class Store:
    """One metadata store for several pipelines, with models that they evaluate."""

    root: Path
    config: PipelineConfig

    def run(
        self, pipeline: str, model: str, target: str = "cpu", find: Callable[..., resolver.Resolver] = _unvalidated
    ) -> Ran:
        """Evaluates a model in a run of a pipeline."""
        config = dataclasses.replace(self.config, name=pipeline, target=target)
        origin = {"pipeline": pipeline, "task": "pipelines.tasks.digits", "profile": target}
        nodes = {
            "examples": _import(
                "examples", self.root, standard_artifacts.Examples, properties={"split_names": '["eval"]'}
            ),
            "float": _import("float", self.root, standard_artifacts.Model),
            "integer": _import(model, self.root, standard_artifacts.Model, custom_properties=origin),
        }
        outputs = {name: node.outputs["result"] for name, node in nodes.items()}
        (plan,) = config.plans
        found = find(config, plan, on_service=False)
        evaluator = QuantizedEvaluator(
            examples=outputs["examples"],
            model=outputs["integer"],
            baseline_model=outputs["float"],
            last_blessed_model=found.outputs["model"],
            label_key="kind",
            metrics={"accuracy": "SparseCategoricalAccuracy"},
            gates=Gates.of("accuracy >= 0.5", _GATE),
            target=target,
        )
        validators = []
        if find is last_blessed:
            validators = [EdgeInfraValidator(model=outputs["integer"], profile=target)]
        path = str(self.root / "metadata.sqlite")
        load_runner("local").run(
            Pipeline(
                pipeline_name=pipeline,
                pipeline_root=str(self.root / pipeline),
                components=[*nodes.values(), found, evaluator, *validators],
                metadata_connection_config=metadata.sqlite_metadata_connection_config(path),
                beam_pipeline_args=list(config.beam_pipeline_args),
            )
        )
        reader = MetadataStore(path)
        (execution,) = [one for one in reader.last_run(pipeline) if one.component == "QuantizedEvaluator"]
        said = execution.outputs["blessing"][0].properties
        given = reader.inputs(execution).get("last_blessed_model", [])
        return Ran(
            codes=str(said["reason_codes"]),
            blessed=said["blessed"] == 1,
            baselines=[Path(artifact.uri).name for artifact in given],
        )


def _import(name: str, root: Path, kind: type[types.Artifact], **properties: Mapping[str, Any]) -> importer.Importer:
    node = importer.Importer(source_uri=str(root / name), artifact_type=kind, reimport=True, **properties)
    return node.with_id(f"import_{name}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    EvaluatedModel(("kind",)).save(tmp_path / "float")
    write_examples(example_columns(200), tmp_path / "examples")
    for name, shift, labels in (
        ("first", 0.0, ("a", "b", "c")),
        ("second", 0.02, ("a", "b", "c")),
        ("relabelled", 0.0, ("a", "b", "d")),
    ):
        EvaluatedModel(("kind",), shift).save_tflite(tmp_path / name)
        (tmp_path / name / "Format-Serving" / "io_contract.json").write_text(integer_contract(labels).to_json())
    return Store(tmp_path, load_config("digits"))


@pytest.mark.long
def test_each_pipeline_is_held_against_its_own_last_blessed_model(store: Store) -> None:
    first = Ran(codes="holds, no_baseline", blessed=True, baselines=[])
    assert store.run("cats", "first") == first
    assert store.run("dogs", "second") == first  # the same metadata store, and yet nothing was blessed before
    held = Ran(codes="holds", blessed=True, baselines=["first"])
    assert store.run("cats", "second") == held
    assert store.run("dogs", "first") == dataclasses.replace(held, baselines=["second"])
    assert store.run("cats", "first") == dataclasses.replace(held, baselines=["second"])
    assert store.run("cats", "second", target="edge_tpu") == first  # no model of that target was blessed before
    # The newest blessing of the target counts, not that of the other target.
    assert store.run("cats", "second") == dataclasses.replace(held, baselines=["first"])


@pytest.mark.long
def test_other_labels_refuse_and_the_refused_model_is_no_baseline(store: Store) -> None:
    store.run("cats", "first")
    refused = Ran(codes="holds, incompatible_baseline", blessed=False, baselines=["first"])
    assert store.run("cats", "relabelled") == refused
    assert store.run("cats", "relabelled") == refused


def _stock(config: PipelineConfig, plan: ResolvedPlan, on_service: bool) -> resolver.Resolver:
    return resolver.Resolver(
        strategy_class=LatestBlessedModelStrategy,
        model=types.Channel(type=standard_artifacts.Model),
        model_blessing=types.Channel(type=standard_artifacts.ModelBlessing),
    ).with_id("latest")


def test_evaluator_refuses_a_baseline_of_another_target_that_another_resolver_found(store: Store) -> None:
    """TFX's strategy reads our blessings, too, and does not look at targets."""
    store.run("cats", "first")
    refused = Ran(codes="foreign_baseline, holds", blessed=False, baselines=["first"])
    assert store.run("cats", "second", target="edge_tpu", find=_stock) == refused
    (verdict,) = (store.root / "cats" / "QuantizedEvaluator" / "blessing").glob("*/NOT_BLESSED")
    reasons = json.loads((verdict.parent / "verdict.json").read_text())["reasons"]
    assert "it is of target cpu, not edge_tpu" in reasons[1]["text"]


def test_a_model_that_the_smoke_test_refused_is_no_baseline(store: Store) -> None:
    first = Ran(codes="holds, no_baseline", blessed=True, baselines=[])
    assert store.run("cats", "first", find=last_blessed) == first  # without golden vectors the validator refuses it
    assert store.run("cats", "second", find=last_blessed) == first


def _blessing(kind: type[types.Artifact], number: int, model: int, blessed: bool) -> types.Artifact:
    artifact = kind()
    artifact.id = number
    artifact.set_int_custom_property("blessed", int(blessed))
    artifact.set_int_custom_property("current_model_id", model)
    artifact.set_int_custom_property(MODEL_ID_KEY, model)
    artifact.set_string_custom_property(ORIGIN_KEY, "ours")
    return artifact


@pytest.mark.parametrize(
    ("infra", "expected"),
    [
        ([(1, True), (2, True)], 2),
        ([(1, True), (2, False)], 1),
        ([(1, True), (2, True), (2, False)], 1),  # the newest counts
        ([(1, True), (2, False), (2, True)], 2),
        ([(2, False)], None),
        ([], None),
    ],
)
def test_strategy_finds_the_newest_model_that_both_bless(infra: list[tuple[int, bool]], expected: int | None) -> None:
    models = [standard_artifacts.Model() for _ in range(2)]
    for number, model in enumerate(models, 1):
        model.id = number
    given = {
        "model": models,
        "model_blessing": [_blessing(standard_artifacts.ModelBlessing, 10 + n, n, True) for n in (1, 2)],
        "infra_blessing": [
            _blessing(standard_artifacts.InfraBlessing, 20 + number, *one) for number, one in enumerate(infra)
        ],
    }
    found = LastBlessedModelStrategy("ours").resolve_artifacts(None, given)
    assert [model.id for model in found["model"]] == ([] if expected is None else [expected])
    assert len(found["infra_blessing"]) == len(found["model"])
    del given["infra_blessing"]
    assert [model.id for model in LastBlessedModelStrategy("ours").resolve_artifacts(None, given)["model"]] == [2]
