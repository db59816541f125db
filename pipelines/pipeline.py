"""The pipeline: ten components in a row. Knows no runner."""

import os

# Not tfx.v1: that imports the whole of Google's Vertex client, which takes longer than TensorFlow.
from tfx import components as standard
from tfx.dsl.components.base import base_component
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import example_gen_pb2, pusher_pb2

from components.edge_tpu_compiler import EdgeTPUCompiler
from components.quantize_trainer import QuantizeTrainer
from components.quantized_evaluator import QuantizedEvaluator
from components.target_compiler import TargetCompiler
from components.tflite_int_converter import TFLiteIntConverter
from pipelines import tasks
from pipelines.config import PipelineConfig


def create_pipeline(config: PipelineConfig) -> Pipeline:
    """Returns the pipeline that a config describes, with caching on and SQLite ML Metadata.

    Raises:
      ValueError: If the config's task, scheme, gates and so on are wrong; nothing is run or written.
    """
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=config.pipeline_root,
        components=_components(config),
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(config.metadata_path),
        beam_pipeline_args=list(config.beam_pipeline_args),
    )


def _components(config: PipelineConfig) -> list[base_component.BaseComponent]:
    task = tasks.task_path(config.task)
    tasks.load_task(config.task)
    split = example_gen_pb2.SplitConfig
    example_gen = standard.ImportExampleGen(
        input_base=os.path.abspath(config.examples_uri) if "://" not in config.examples_uri else config.examples_uri,
        output_config=example_gen_pb2.Output(
            split_config=split(
                splits=[
                    split.Split(name="train", hash_buckets=config.eval_buckets - 1),
                    split.Split(name="eval", hash_buckets=1),
                ]
            )
        ),
    )
    examples = example_gen.outputs["examples"]
    statistics = standard.StatisticsGen(examples=examples)
    schema_gen = standard.SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=True)
    schema = schema_gen.outputs["schema"]
    validator = standard.ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema)
    transform = standard.Transform(
        examples=examples, schema=schema, preprocessing_fn=f"{task}.preprocessing_fn", disable_statistics=True
    )
    trainer = QuantizeTrainer(
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema,
        module=task,
        label_key=config.label_key,
        scheme=config.scheme,
        training=config.training,
    )
    converter = TFLiteIntConverter(
        model=trainer.outputs["model"],
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema,
        scheme=config.scheme,
        profile=config.target,
        io_dtype=config.io_dtype,
        representative_examples=config.representative_examples,
        seed=config.training.seed,
    )
    tflite_model = converter.outputs["tflite_model"]
    compiler: TargetCompiler = (
        EdgeTPUCompiler(model=tflite_model, when_missing=config.when_missing)
        if config.target == "edge_tpu"
        else TargetCompiler(model=tflite_model, target=config.target, when_missing=config.when_missing)
    )
    evaluator = QuantizedEvaluator(
        examples=examples,
        model=tflite_model,
        baseline_model=trainer.outputs["float_model"],
        compiled_model=compiler.outputs["compiled_model"],
        label_key=config.label_key,
        metrics=config.metrics,
        gates=config.gates,
        slices=config.slices,
    )
    pusher = standard.Pusher(
        model=compiler.outputs["compiled_model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=config.push_uri)
        ),
    )
    return [
        example_gen, statistics, schema_gen, validator, transform, trainer, converter, compiler, evaluator, pusher,
    ]  # fmt: skip
