"""Handwritten digits that arrive in spans: what `python -m pipelines schedule stream` retrains."""

from pathlib import Path

from components.evaluation.gates import Gates
from components.quantization.qat.parameters import TrainingParameters
from components.retraining.policy import RetrainingPolicy
from components.retraining.spans import SpanSource
from pipelines.config import PipelineConfig

CONFIG = PipelineConfig(
    name="stream",
    task="digits",
    label_key="label",
    root="runs/stream",
    spans=SpanSource(pattern="runs/stream/data/span-{SPAN:3}/*.tfrecord", window=4),
    schema_file=str(Path(__file__).with_name("stream.pbtxt")),
    retraining=RetrainingPolicy(max_failures=2, backoff_s=5.0, hold_after=6, keep_runs=4),
    training=TrainingParameters(
        float_epochs=6, qat_epochs=2, batch_size=32, float_learning_rate=2e-3, qat_learning_rate=2e-4
    ),
    warm_start=True,
    attribution_examples=0,
    representative_examples=100,
    gates=Gates.of("accuracy >= 0.85", "accuracy drop <= 0.05", "accuracy drop vs last_blessed <= 0"),
)
