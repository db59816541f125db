"""Handwritten digits for the Edge TPU: runs in about a minute on two cores."""

from components.evaluation.gates import Gates
from components.quantization.qat.parameters import TrainingParameters
from pipelines.config import PipelineConfig

CONFIG = PipelineConfig(
    name="digits",
    task="digits",
    label_key="label",
    root="runs/digits",
    training=TrainingParameters(
        float_epochs=15,
        qat_epochs=5,
        batch_size=64,
        float_learning_rate=2e-3,
        qat_learning_rate=2e-4,
        early_stopping_patience=5,
    ),
    gates=Gates.of("accuracy >= 0.97", "accuracy drop <= 0.01"),
    slices=(("label",),),
    latency_runs=50,
)
