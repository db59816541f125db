"""Android's Neural Networks API, through TFLite's delegate.

A phone compiles a model when it is loaded, with the driver of its chip; nothing is compiled here. So the artifact is a
copy of the model, and its report an analysis by the delegate's documented checks, which never claims to be a
compilation: a driver may still refuse what the delegate hands it.
"""

import dataclasses
from pathlib import Path

from components.targets import CompiledModel, CompileReport, Mapping, analysis
from components.targets._options import TargetOptions, options_from_json
from components.targets._rules import by_rules
from components.targets._target import CopyingTarget
from components.targets.nnapi.operations import API_LEVELS, FIRST_LEVEL_OF_INT8
from components.targets.nnapi.rules import MAPPED, RULES, edit


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NnapiOptions(TargetOptions):
    """Which phones a model is meant for.

    Attributes:
      api_level: The lowest API level of Android that is to run the model on NNAPI; 30, that of Android 11, is the first
        with INT8.
    """

    api_level: int = FIRST_LEVEL_OF_INT8

    def __post_init__(self) -> None:
        """Checks the level; raises ValueError if NNAPI has none such."""
        if self.api_level not in API_LEVELS:
            levels = ", ".join(map(str, API_LEVELS))
            raise ValueError(f"options of target 'nnapi': api_level: got {self.api_level}, expected one of {levels}")


class Nnapi(CopyingTarget):
    """Phones with NNAPI."""

    name = "nnapi"
    options = NnapiOptions

    def inspect(self, tflite: bytes, *, api_level: int = FIRST_LEVEL_OF_INT8) -> Mapping:
        """Says which ops the delegate hands to NNAPI on phones of an API level."""
        return by_rules(self.name, tflite, RULES, NnapiOptions(api_level=api_level).api_level, lambda operation: MAPPED)

    def report(self, tflite: bytes, mapping: Mapping, *, api_level: int = FIRST_LEVEL_OF_INT8) -> CompileReport:
        """Returns the analysis of a model of that mapping."""
        measurements = {"api_level": float(api_level)}
        return dataclasses.replace(analysis(mapping, tflite, edit), measurements=measurements)

    def analyze(self, tflite: bytes, options: str = "") -> tuple[Mapping, CompileReport]:
        """Says what the rules of the options' API level do."""
        level = options_from_json(self.name, NnapiOptions, options).api_level
        mapping = self.inspect(tflite, api_level=level)
        return mapping, self.report(tflite, mapping, api_level=level)

    def compile(
        self, tflite: bytes, when_missing: str = "analyze", options: str = "", directory: Path | None = None
    ) -> CompiledModel:
        """Passes the model on: the phone compiles it."""
        del when_missing, directory
        mapping, report = self.analyze(tflite, options)
        return CompiledModel(tflite=tflite, report=report, mapping=mapping)


TARGET = Nnapi()
