"""Handwritten digits, trained once, for two targets: the Edge TPU with its own gates, and any CPU."""

import dataclasses

from components.evaluation.gates import Gates
from pipelines.configs import digits
from pipelines.target_plan import TargetPlan

CONFIG = dataclasses.replace(
    digits.CONFIG,
    name="devices",
    root="runs/devices",
    training=dataclasses.replace(digits.CONFIG.training, float_epochs=8, qat_epochs=2),
    gates=Gates.of("accuracy >= 0.9", "accuracy drop <= 0.02"),
    attribution_examples=0,
    targets=(
        TargetPlan(
            target="edge_tpu",
            io_dtype="uint8",
            gates=Gates.of("accuracy >= 0.9", "accuracy drop <= 0.02", "macs_on_target >= 0.95"),
        ),
        TargetPlan(target="cpu"),
    ),
)
