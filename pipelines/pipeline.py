"""The pipeline: eleven components in a row, and before the trainer perhaps a Resolver."""

import os
from collections.abc import Mapping

# Not tfx.v1: that imports the whole of Google's Vertex client, which takes longer than TensorFlow.
from tfx import components as standard
from tfx import types
from tfx.dsl.components.base import base_node, executor_spec
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import example_gen_pb2, pusher_pb2

from components.edge_infra_validator import EdgeInfraValidator
from components.edge_tpu_compiler import EdgeTPUCompiler
from components.evaluation.measurements import FAKE_QUANT, LAST_BLESSED
from components.quantization import toolchain
from components.quantize_trainer import QuantizeTrainer
from components.quantized_evaluator import QuantizedEvaluator
from components.target_compiler import TargetCompiler
from components.tflite_int_converter import TFLiteIntConverter
from components.versioned_pusher import Executor as VersionedPush
from pipelines import tasks
from pipelines.config import PipelineConfig
from pipelines.last_blessed import last_blessed


def create_pipeline(config: PipelineConfig) -> Pipeline:
    """Returns the pipeline that a config describes for a run on this machine, with caching on and SQLite ML Metadata.

    Raises:
      ValueError: If the config's task, scheme, gates and so on are wrong; nothing is run or written.
    """
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=config.pipeline_root,
        components=pipeline_components(config),
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(config.metadata_path),
        beam_pipeline_args=list(config.beam_pipeline_args),
    )


def pipeline_components(config: PipelineConfig, on_service: bool = False) -> list[base_node.BaseNode]:
    """Returns all components of a config's pipeline, the Pusher last.

    Args:
      config: The config.
      on_service: Whether they will be compiled for a service, whose Resolver is another.

    Raises:
      ValueError: As `create_pipeline`.
    """
    _check_features(config, tasks.load_task(config.task).RAW_FEATURE_SPEC)
    data = data_components(config)
    return [*data, *model_components(config, data, on_service)]


def _check_features(config: PipelineConfig, spec: Mapping[str, object]) -> None:
    evaluation = config.evaluation
    named = {*evaluation.labels.values(), *(key for keys in config.slices for key in keys), config.weight_key} - {""}
    unknown = sorted(named - set(spec))
    if unknown:
        raise ValueError(
            f"config {config.name!r}: label_key, weight_key or slices name {', '.join(unknown)}, no feature of the"
            f" task; there are {', '.join(spec)}"
        )


def data_components(config: PipelineConfig) -> list[base_node.BaseNode]:
    """Returns ImportExampleGen, StatisticsGen, SchemaGen, ExampleValidator and Transform, in this order."""
    split = example_gen_pb2.SplitConfig.Split
    splits = [split(name="train", hash_buckets=config.eval_buckets - 1), split(name="eval", hash_buckets=1)]
    local = "://" not in config.examples_uri
    example_gen = standard.ImportExampleGen(
        input_base=os.path.abspath(config.examples_uri) if local else config.examples_uri,
        output_config=example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=splits)),
    )
    examples = example_gen.outputs["examples"]
    statistics_gen = standard.StatisticsGen(examples=examples)
    statistics = statistics_gen.outputs["statistics"]
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
    return [example_gen, statistics_gen, schema_gen, validator, transform]


def model_components(
    config: PipelineConfig, data: list[base_node.BaseNode], on_service: bool = False
) -> list[base_node.BaseNode]:
    """Returns the components that train, convert, compile, validate, evaluate and push, on those of `data_components`.

    With a warm start, or where it is evaluated, the Resolver of the last blessed model is the first of them.
    """
    example_gen, _, schema_gen, _, transform = data
    schema = schema_gen.outputs["schema"]
    transformed = {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
    }
    resolvers = [last_blessed(config, on_service)] if config.needs_last_blessed else []
    earlier_model = resolvers[0].outputs["model"] if resolvers else None
    trainer = QuantizeTrainer(
        **transformed,
        schema=schema,
        module=tasks.task_path(config.task),
        label_key=config.label_key,
        weight_key=config.weight_key,
        scheme=config.scheme,
        training=config.training,
        profile=config.target,
        io_dtype=config.io_dtype,
        gates=config.gates,
        warm_start_model=earlier_model if config.warm_start else None,
    )
    converter = TFLiteIntConverter(
        **transformed,
        model=trainer.outputs["model"],
        float_model=trainer.outputs["float_model"],
        schema=schema,
        raw_examples=example_gen.outputs["examples"],
        labels=tasks.labels(config.task),
        scheme=None if config.training.strategy == "auto" else config.scheme,
        profile=config.target,
        io_dtype=config.io_dtype,
        representative_examples=config.representative_examples,
        seed=config.training.seed,
        label_key=config.label_key if isinstance(config.label_key, str) else "",
        attribution_examples=config.attribution_examples,
        cache_dir=os.path.abspath(config.conversion_cache) if config.conversion_cache else "",
        pipeline=config.name,
    )
    compiler = _compiler(config, converter.outputs["tflite_model"])
    evaluator = QuantizedEvaluator(
        examples=example_gen.outputs["examples"],
        model=converter.outputs["tflite_model"],
        baseline_model=trainer.outputs["float_model"],
        compiled_model=compiler.outputs["compiled_model"],
        label_key=config.label_key,
        metrics=config.metrics,
        gates=config.gates,
        slices=config.slices,
        label_kind=config.label_kind,
        weight_key=config.weight_key,
        target=config.target,
        fake_quant_model=trainer.outputs["model"] if FAKE_QUANT in config.compared_models else None,
        last_blessed_model=earlier_model if LAST_BLESSED in config.compared_models else None,
    )
    validator = EdgeInfraValidator(
        model=converter.outputs["tflite_model"],
        compiled_model=compiler.outputs["compiled_model"],
        profile=config.target,
        settings=config.smoke,
    )
    destination = pusher_pb2.PushDestination.Filesystem(base_directory=config.push_uri)
    pusher = standard.Pusher(
        model=compiler.outputs["compiled_model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=validator.outputs["blessing"],
        push_destination=pusher_pb2.PushDestination(filesystem=destination),
        custom_executor_spec=executor_spec.ExecutorClassSpec(VersionedPush),
    )
    return [*resolvers, trainer, converter, compiler, validator, evaluator, pusher]


def _compiler(config: PipelineConfig, model: types.BaseChannel) -> TargetCompiler:
    if config.target == "edge_tpu":
        return EdgeTPUCompiler(model=model, when_missing=config.when_missing, options=config.compiler_options)
    return TargetCompiler(
        model=model, target=config.target, when_missing=config.when_missing, options=config.compiler_options
    )
