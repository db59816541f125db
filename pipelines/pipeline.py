"""The pipeline: eleven components in a row, before the trainer perhaps a Resolver, and before Transform drift's two.

With several targets those behind the trainer are there once for each, with the target in their ids.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping

# Not tfx.v1: that imports the whole of Google's Vertex client, which takes longer than TensorFlow.
from tfx import components as standard
from tfx import types
from tfx.dsl.components.base import base_node, executor_spec
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import example_gen_pb2, pusher_pb2

from components.anomaly_gate import AnomalyGate
from components.edge_infra_validator import EdgeInfraValidator
from components.edge_tpu_compiler import EdgeTPUCompiler
from components.evaluation.drift import CALIBRATION, INPUTS, RANGE, of_drift
from components.evaluation.measurements import FAKE_QUANT, LAST_BLESSED
from components.quantization import toolchain
from components.quantize_trainer import QuantizeTrainer
from components.quantized_evaluator import QuantizedEvaluator
from components.schema_file import SchemaFile
from components.span_example_gen import span_example_gen
from components.target_compiler import TargetCompiler
from components.target_gates.planned_target import PlannedTarget
from components.targets import options_json
from components.tflite_int_converter import TFLiteIntConverter
from components.versioned_pusher import Executor as VersionedPush
from pipelines import tasks
from pipelines.beam_arguments import set_beam_arguments
from pipelines.config import PipelineConfig
from pipelines.drift import drift_components
from pipelines.last_blessed import last_blessed
from pipelines.metadata_connection import parse_connection
from pipelines.target_plan import ResolvedPlan


def create_pipeline(config: PipelineConfig) -> Pipeline:
    """Returns the pipeline that a config describes for a run on this machine, with caching on.

    Raises:
      ValueError: If the config's task, scheme, gates and so on are wrong; nothing is run or written.
    """
    components = pipeline_components(config)
    if config.metadata_url.startswith("postgresql://"):
        require_storable(components)
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=config.pipeline_root,
        components=components,
        enable_cache=True,
        metadata_connection_config=parse_connection(config.metadata_url).configuration(),
    )


def require_storable(components: Iterable[base_node.BaseNode]) -> None:
    """Raises ValueError for a property that ML Metadata's client for PostgreSQL cannot write, before anything runs."""
    wrong = [
        f"{component.id}.{name}"
        for component in components
        for name, value in component.exec_properties.items()
        if isinstance(value, str) and "\\" in value
    ]
    if wrong:
        raise ValueError(
            f"metadata: backslashes in {', '.join(wrong)}, which ML Metadata's client for PostgreSQL cannot write;"
            " leave them out, non-ASCII letters of labels included, or keep ML Metadata in MySQL or SQLite"
        )


def pipeline_components(config: PipelineConfig, on_service: bool = False) -> list[base_node.BaseNode]:
    """Returns all components of a config's pipeline.

    Args:
      config: The config.
      on_service: Whether they will be compiled for a service, whose Resolver is another.

    Raises:
      ValueError: As `create_pipeline`.
    """
    _check_features(config, tasks.load_task(config.task).RAW_FEATURE_SPEC)
    data = data_components(config)
    components = [*data, *model_components(config, data, on_service)]
    set_beam_arguments(components, config)
    return components


def _check_features(config: PipelineConfig, spec: Mapping[str, object]) -> None:
    evaluation = config.evaluation
    named = {*evaluation.labels.values(), *(key for keys in config.slices for key in keys), config.weight_key}
    drifting = {gate.output for plan in config.plans for gate in of_drift(plan.gates)}
    # What the model's inputs are called is known when there is a model.
    raw = {name for name in drifting if not name.startswith((INPUTS, CALIBRATION, RANGE))}
    for what, names in (("label_key, weight_key or slices", named), ("gates on drift", raw)):
        if unknown := sorted(names - {"", *spec}):
            raise ValueError(
                f"config {config.name!r}: {what} name {', '.join(unknown)}, no feature of the task; there are"
                f" {', '.join(spec)}"
            )


def data_components(config: PipelineConfig) -> list[base_node.BaseNode]:
    """Returns ImportExampleGen, StatisticsGen, SchemaGen, ExampleValidator and Transform, in this order."""
    example_gen = _example_gen(config)
    examples = example_gen.outputs["examples"]
    statistics_gen = standard.StatisticsGen(examples=examples)
    statistics = statistics_gen.outputs["statistics"]
    if config.schema_file:
        schema_gen = SchemaFile(schema_file=_absolute(config.schema_file)).with_id("SchemaGen")
        schema = schema_gen.outputs["schema"]
        validator = AnomalyGate(statistics=statistics, schema=schema).with_id("ExampleValidator")
    else:
        schema_gen = standard.SchemaGen(statistics=statistics, infer_feature_shape=True)
        schema = schema_gen.outputs["schema"]
        validator = standard.ExampleValidator(statistics=statistics, schema=schema)
    transform = standard.Transform(
        examples=examples,
        schema=schema,
        preprocessing_fn=f"{tasks.task_path(config.task)}.preprocessing_fn",
        disable_statistics=True,
        # Not read by anyone: it makes a changed preprocessing_fn miss the cache, which hashes its name alone.
        custom_config={"module_sha256": toolchain.module_sha256(tasks.task_path(config.task))},
    )
    if config.schema_file:
        transform.add_upstream_node(validator)
    return [example_gen, statistics_gen, schema_gen, validator, transform]


def _example_gen(config: PipelineConfig) -> base_node.BaseNode:
    split = example_gen_pb2.SplitConfig.Split
    splits = [split(name="train", hash_buckets=config.eval_buckets - 1), split(name="eval", hash_buckets=1)]
    output_config = example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=splits))
    if config.spans:
        return span_example_gen(config.spans, output_config, "ImportExampleGen")
    return standard.ImportExampleGen(input_base=_absolute(config.examples_uri), output_config=output_config)


def _absolute(uri: str) -> str:
    return uri if "://" in uri else os.path.abspath(uri)


def model_components(
    config: PipelineConfig, data: list[base_node.BaseNode], on_service: bool = False
) -> list[base_node.BaseNode]:
    """Returns the components that train, convert, compile, validate, evaluate and push, on those of `data_components`.

    With a warm start, or where it is evaluated, the Resolvers of the last blessed models are the first of them.
    """
    example_gen, _, schema_gen, _, transform = data
    resolvers = {
        plan.target: last_blessed(config, plan, on_service) for plan in config.plans if config.needs_last_blessed(plan)
    }
    earlier = {target: resolver.outputs["model"] for target, resolver in resolvers.items()}
    measured = drift_components(config, data, earlier[config.plans[0].target]) if config.measures_drift else []
    first, *others = (
        PlannedTarget(
            target=plan.target,
            io_dtype=plan.io_dtype,
            options=options_json(plan.compiler_options),
            gates=plan.gates,
        )
        for plan in config.plans
    )
    trainer = QuantizeTrainer(
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema_gen.outputs["schema"],
        raw_examples=example_gen.outputs["examples"],
        module=tasks.task_path(config.task),
        label_key=config.label_key,
        weight_key=config.weight_key,
        scheme=config.scheme,
        training=config.training,
        profile=first.target,
        io_dtype=first.io_dtype,
        gates=first.gates,
        compiler_options=config.plans[0].compiler_options,
        also_for=others,
        warm_start_model=earlier.get(first.target) if config.warm_start else None,
    )
    drift = measured[0].outputs["drift"] if measured else None
    behind = [
        component
        for plan in config.plans
        for component in target_components(config, plan, data, trainer, earlier.get(plan.target), drift).all
    ]
    return [*resolvers.values(), *measured, trainer, *behind]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TargetComponents:
    """What is behind the trainer for one target, as `target_components` makes it."""

    converter: TFLiteIntConverter
    compiler: TargetCompiler
    validator: EdgeInfraValidator
    evaluator: QuantizedEvaluator
    pusher: standard.Pusher

    @property
    def all(self) -> tuple[base_node.BaseNode, ...]:
        """All of them, in order."""
        return self.converter, self.compiler, self.validator, self.evaluator, self.pusher


def target_components(
    config: PipelineConfig,
    plan: ResolvedPlan,
    data: list[base_node.BaseNode],
    trainer: QuantizeTrainer,
    earlier_model: types.BaseChannel | None,
    drift: types.BaseChannel | None,
) -> TargetComponents:
    """Returns the components that make and judge the model of one target.

    Args:
      config: The config.
      plan: The target.
      data: What `data_components` returned.
      trainer: The trainer, of all targets.
      earlier_model: The target's last blessed model; None if nobody asked for it.
      drift: What SpanDrift measured; None if it is not there.
    """
    example_gen, statistics_gen, schema_gen, _, transform = data
    compared = config.compared_models(plan)
    converter = TFLiteIntConverter(
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        model=trainer.outputs["model"],
        float_model=trainer.outputs["float_model"],
        schema=schema_gen.outputs["schema"],
        raw_examples=example_gen.outputs["examples"],
        statistics=statistics_gen.outputs["statistics"],
        labels=tasks.labels(config.task),
        scheme=None if config.training.strategy == "auto" else config.scheme,
        profile=plan.target,
        io_dtype=plan.io_dtype,
        representative_examples=config.representative_examples,
        seed=config.training.seed,
        label_key=config.label_key if isinstance(config.label_key, str) else "",
        attribution_examples=config.attribution_examples,
        cache_dir=os.path.abspath(config.conversion_cache) if config.conversion_cache else "",
        pipeline=config.name,
    )
    compiler = _compiler(plan, converter.outputs["tflite_model"])
    validator = EdgeInfraValidator(
        model=converter.outputs["tflite_model"],
        compiled_model=compiler.outputs["compiled_model"],
        profile=plan.target,
        settings=plan.smoke,
    )
    evaluator = QuantizedEvaluator(
        examples=example_gen.outputs["examples"],
        model=converter.outputs["tflite_model"],
        baseline_model=trainer.outputs["float_model"],
        compiled_model=compiler.outputs["compiled_model"],
        label_key=config.label_key,
        metrics=config.metrics,
        gates=plan.gates,
        slices=config.slices,
        label_kind=config.label_kind,
        weight_key=config.weight_key,
        flipped_examples=config.flipped_examples,
        latency_runs=config.latency_runs,
        target=plan.target,
        compiler_options=plan.compiler_options,
        infra_blessing=validator.outputs["blessing"],
        model_run=trainer.outputs["model_run"],
        drift=drift,
        fake_quant_model=trainer.outputs["model"] if FAKE_QUANT in compared else None,
        last_blessed_model=earlier_model if LAST_BLESSED in compared else None,
    )
    destination = pusher_pb2.PushDestination.Filesystem(base_directory=plan.push_uri)
    pusher = standard.Pusher(
        model=compiler.outputs["compiled_model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=validator.outputs["blessing"],
        push_destination=pusher_pb2.PushDestination(filesystem=destination),
        custom_executor_spec=executor_spec.ExecutorClassSpec(VersionedPush),
    )
    made = TargetComponents(
        converter=converter, compiler=compiler, validator=validator, evaluator=evaluator, pusher=pusher
    )
    if plan.suffix:
        for component in made.all:
            component.with_id(f"{component.id}{plan.suffix}")
    return made


def _compiler(plan: ResolvedPlan, model: types.BaseChannel) -> TargetCompiler:
    if plan.target == "edge_tpu":
        return EdgeTPUCompiler(model=model, when_missing=plan.when_missing, options=plan.compiler_options)
    return TargetCompiler(
        model=model, target=plan.target, when_missing=plan.when_missing, options=plan.compiler_options
    )
