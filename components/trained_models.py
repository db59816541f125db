"""The outputs of a training: both models with their facts, and what people read beside the logs."""

from collections.abc import Mapping
from pathlib import Path

import tensorflow_transform as tft
from tfx import types

from components import model_artifact
from components.quantization import calibration_set, toolchain
from components.quantization.calibration_set import CalibrationSet
from components.quantization.file_hash import sha256
from components.quantization.qat import export
from components.quantization.qat.ladder import receipts_json
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.session import FLOAT
from components.quantization.qat.training import TrainedModels


def export_models(
    trained: TrainedModels,
    parameters: TrainingParameters,
    origin: Mapping[str, model_artifact.Fact],
    transform: tft.TFTransformOutput,
    serving_features: frozenset[str],
    staged: dict[str, Path],
    outputs: dict[str, types.Artifact],
    calibrated: CalibrationSet | None = None,
) -> None:
    """Writes both models and their facts.

    Args:
      trained: The models.
      parameters: What they were trained with.
      origin: What they were made of, by whose code.
      transform: The graph that made the examples; it becomes part of the models.
      serving_features: Names of the raw features that are there at serving time.
      staged: Directories of the outputs by key.
      outputs: The outputs "float_model" and "model".
      calibrated: Which examples the quantized model's ranges are from; None if they were trained.
    """
    settings: dict[str, model_artifact.Fact] = {
        "scheme": trained.scheme.to_json(),
        "training": parameters.to_json(),
        "seed": parameters.seed,
        **origin,
        **toolchain.version_facts(),
    }
    transform_layer = transform.transform_features_layer()
    parent = ""
    quantized: dict[str, model_artifact.Fact] = {
        "float_model_uri": str(outputs["float_model"].uri),
        "parameter_coverage": trained.plan.coverage,
        "mac_coverage": trained.plan.mac_coverage,
        "calibrated_layers": len(trained.plan.calibrated),
        **({"receipts": receipts_json(trained.receipts)} if trained.receipts else {}),
        **({calibration_set.PROPERTY: calibration_set.sets_json([calibrated])} if calibrated else {}),
    }
    for key, kind, model, metrics, further in (
        ("float_model", FLOAT, trained.float_model, trained.float_metrics, _warm_start_facts(trained)),
        ("model", trained.rung, trained.quantized_model, trained.quantized_metrics, quantized),
    ):
        saved = staged[key] / model_artifact.SERVING_DIR
        export.export_saved_model(
            model,
            saved,
            transform=transform_layer,
            raw_feature_spec=transform.raw_feature_spec(),
            serving_features=serving_features,
            output_names=tuple(trained.float_model.output_names),
        )
        facts: dict[str, model_artifact.Fact] = {
            "kind": kind,
            "sha256": sha256(saved),
            "parent_sha256": parent,
            "size_bytes": sum(file.stat().st_size for file in (saved / "variables").glob("*.data*")),
            **{f"eval_{name}": value for name, value in metrics.items()},
            **further,
            **settings,
        }
        model_artifact.record_facts(outputs[key], staged[key], facts)
        parent = str(facts["sha256"])


def write_reports(trained: TrainedModels, directory: Path) -> None:
    """Writes what people read beside the logs: the plan, the rungs, the layers of a warm start."""
    (directory / "plan.txt").write_text(f"{trained.plan}\n")
    if trained.receipts:
        (directory / "receipts.json").write_text(receipts_json(trained.receipts) + "\n")
    if trained.warm_start is not None:
        (directory / "warm_start.json").write_text(trained.warm_start.to_json())


def _warm_start_facts(trained: TrainedModels) -> dict[str, model_artifact.Fact]:
    warm_start = trained.warm_start
    if warm_start is None:
        return {}
    return {"warm_start_layers": warm_start.taken, "warm_start": warm_start.to_json()}
