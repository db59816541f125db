"""The output of a conversion: the model with its facts, what a device needs, and what people read beside it."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from tfx import types

from components import drift_statistics, model_artifact
from components.quantization import toolchain
from components.quantization.attribution import saved_models
from components.quantization.attribution.report import Attribution
from components.quantization.calibration_set import PROPERTY, sets_json
from components.quantization.contract import VECTORS_FILE
from components.quantization.contract.build import Knowledge
from components.quantization.contract.device_files import deploy
from components.quantization.contract.file_metadata import ModelIdentity, content_sha256
from components.quantization.contract.golden import golden_outputs
from components.quantization.conversion import flatbuffer
from components.quantization.conversion.audit import Audit
from components.quantization.conversion.deployed_audit import audit_deployed
from components.quantization.conversion.report import Conversion
from components.quantization.origin_facts import ORIGIN_FACTS
from components.quantization.schemes import QuantizationScheme

REPORT_FILE = "conversion.json"
AUDIT_FILE = "audit.json"
COVERAGE_FILE = "representative.json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConvertedModel:
    """A conversion and what is known of it.

    Attributes:
      made: The conversion.
      scheme: Its scheme.
      profile: Name of its target.
      knowledge: How the inputs are made of raw features.
      features: Some examples, as the model takes them.
      attribution: Where accuracy went; None if that was not measured.
      coverage: How the sample that ranges were calibrated with stands for its split, as JSON; "" if training gave all.
      pipeline: Name of the pipeline; "" for none.
      settings: What it was converted with, and the examples that the model was made of.
      statistics: Of these examples, as files of components/drift_statistics.py; empty if nobody gave any.
    """

    made: Conversion
    scheme: QuantizationScheme
    profile: str
    knowledge: Knowledge
    features: Mapping[str, npt.NDArray[Any]]
    attribution: Attribution | None
    coverage: str
    pipeline: str
    settings: Mapping[str, model_artifact.Fact]
    statistics: Mapping[str, bytes]

    def publish(self, source: types.Artifact, output: types.Artifact, run_id: str) -> None:
        """Writes the artifact.

        Args:
          source: What was converted.
          output: The artifact.
          run_id: Of the pipeline's run; "" for none.
        """
        parent, known = source.get_string_custom_property("sha256"), model_artifact.read_facts(source)
        identity = ModelIdentity(
            run_id=run_id,
            parent_sha256=parent,
            scheme=self.scheme.to_json(),
            labels={name: tuple(classes) for name, classes in self.knowledge.labels.items()},
            versions=toolchain.versions(),
        )
        with model_artifact.staged_output(output) as directory:
            serving = model_artifact.serving_directory(directory)
            tflite = deploy(serving, self.made.tflite, identity, self.knowledge, self.features)
            outputs = golden_outputs(serving / VECTORS_FILE)
            audit = audit_deployed(tflite, self.profile, self.scheme, self.made.report.io_dtypes, outputs)
            self._write_reports(directory, audit)
            facts: dict[str, model_artifact.Fact] = {
                **self._facts(tflite, audit),
                "parent_sha256": parent,
                "pipeline": self.pipeline,
                "task": source.get_string_custom_property("task"),
                "float_model_uri": source.get_string_custom_property("float_model_uri"),
                **{name: known[name] for name in ORIGIN_FACTS if name in known},
                **{f"parent_{name}": value for name, value in known.items() if name.startswith("eval_")},
                **self.settings,
                **({PROPERTY: sets_json(sets)} if (sets := self.made.report.calibration_sets) else {}),
                **toolchain.version_facts(),
            }
            model_artifact.record_facts(output, directory, facts)

    def _write_reports(self, directory: Path, audit: Audit) -> None:
        (directory / REPORT_FILE).write_text(self.made.report.to_json())
        (directory / AUDIT_FILE).write_text(audit.to_json())
        if self.coverage:
            (directory / COVERAGE_FILE).write_text(self.coverage)
        if self.statistics:
            (directory / drift_statistics.DIRECTORY).mkdir()
        for name, content in self.statistics.items():
            (directory / drift_statistics.DIRECTORY / name).write_bytes(content)
        if self.attribution is not None:
            saved_models.write_files(self.attribution, directory)

    def _facts(self, tflite: bytes, audit: Audit) -> dict[str, model_artifact.Fact]:
        graph = flatbuffer.read_subgraphs(tflite)[0]
        edges = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
        quantized = sorted({tensor.dtype.lower() for tensor in edges if tensor.scale or tensor.dtype == "FLOAT32"})
        return {
            "kind": "int8" if self.scheme.all_activation_bits == (8,) else self.scheme.name,
            "scheme": self.scheme.to_json(),
            "profile": self.profile,
            "io_dtype": ", ".join(quantized),
            "integer_only": int(audit.integer_only),  # floats outside of the edges that were asked for: none
            "sha256": hashlib.sha256(tflite).hexdigest(),
            "content_sha256": content_sha256(tflite),  # the same in each run, which the metadata name
            "size_bytes": len(tflite),
            **({} if self.attribution is None else saved_models.headline(self.attribution)),
        }
