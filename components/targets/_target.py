"""What targets have in common."""

from typing import ClassVar

from components.quantization.conversion.profiles import load_profile
from components.quantization.schemes import QuantizationScheme
from components.targets._options import TargetOptions, options_from_json


class ProfiledTarget:
    """A target whose conversion profile has its name."""

    name: str

    def check(self, scheme: QuantizationScheme) -> None:
        """Checks the scheme by the profile of the same name."""
        load_profile(self.name).check(scheme)


class CopyingTarget(ProfiledTarget):
    """A target without a compiler: the device, or its driver, takes the model as it is."""

    options: ClassVar[type[TargetOptions]]

    def require_options(self, options: str) -> str:
        """Reads the target's options."""
        return options_from_json(self.name, self.options, options).to_json()

    def compiler_version(self, options: str = "") -> str:
        """There is no compiler."""
        del options
        return ""
