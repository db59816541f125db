"""What targets have in common."""

from typing import ClassVar

from components.quantization.conversion.profiles import load_profile
from components.quantization.schemes import QuantizationScheme
from components.targets import CompileReport, Mapping
from components.targets._options import TargetOptions, options_from_json


class ProfiledTarget:
    """A target whose conversion profile has its name."""

    name: str
    compiles = True

    def check(self, scheme: QuantizationScheme) -> None:
        """Checks the scheme by the profile of the same name."""
        load_profile(self.name).check(scheme)

    def hasty(self, options: str) -> str:
        """The same: nothing is searched or repeated."""
        return options


class CopyingTarget(ProfiledTarget):
    """A target without a compiler: the device, or its driver, takes the model as it is."""

    compiles = False
    options: ClassVar[type[TargetOptions]]

    def inspect(self, tflite: bytes) -> Mapping:
        """Says by the target's rules where every op would run."""
        raise NotImplementedError

    def report(self, tflite: bytes, mapping: Mapping) -> CompileReport:
        """Returns the analysis of a model of that mapping."""
        raise NotImplementedError

    def analyze(self, tflite: bytes, options: str = "") -> tuple[Mapping, CompileReport]:
        """Says what the rules do; no option changes it."""
        self.require_options(options)
        mapping = self.inspect(tflite)
        return mapping, self.report(tflite, mapping)

    def require_options(self, options: str) -> str:
        """Reads the target's options."""
        return options_from_json(self.name, self.options, options).to_json()

    def compiler_version(self, options: str = "") -> str:
        """There is no compiler."""
        del options
        return ""
