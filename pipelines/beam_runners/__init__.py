"""Where the Beam pipelines inside components run. One file per Beam runner, holding a dataclass as `RUNNER`.

ImportExampleGen, StatisticsGen, Transform and QuantizedEvaluator compute in Beam; the rest has no use for these.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from components.quantization import plugins

_FURTHER = re.compile(r"--(?P<name>[A-Za-z][A-Za-z0-9_-]*)(=.*)?", re.DOTALL)
# These may be given several times.
_REPEATED = frozenset(
    [
        "experiment",
        "experiments",
        "label",
        "labels",
        "dataflow_service_option",
        "dataflow_service_options",
        "extra_package",
        "extra_packages",
        "environment_option",
        "environment_options",
        "sdk_harness_container_image_overrides",
    ]
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BeamRunner:
    """A Beam runner with its settings.

    Attributes:
      further_args: Arguments of Beam for which there is no field, each as "--name=value" or "--name".
    """

    further_args: tuple[str, ...] = ()

    # Names of Beam's arguments that the fields stand for, beside "runner".
    OWN_ARGS: typing.ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        """Raises one ValueError for all that is wrong by itself."""
        wrong = [*self.problems(), *self._further_problems()]
        if wrong:
            raise ValueError(f"Beam's runner {self.name}: {'; '.join(wrong)}")

    @property
    def name(self) -> str:
        """Name of the file that holds it."""
        return type(self).__module__.rpartition(".")[2]

    def problems(self) -> list[str]:
        """Returns what is wrong with the fields."""
        raise NotImplementedError

    def problems_in(self, uris: Mapping[str, str], image: str) -> list[str]:
        """Returns what does not go together with the rest of a pipeline.

        Args:
          uris: Directories that Beam's workers read or write, by what they are called.
          image: The deployment's container image; may be "".
        """
        raise NotImplementedError

    def own_arguments(self, image: str) -> list[str]:
        """Returns the arguments that the fields stand for, the runner first."""
        raise NotImplementedError

    def arguments(self, image: str = "") -> tuple[str, ...]:
        """Returns what Beam is given.

        Args:
          image: The deployment's container image, where the runner needs one and has none of its own.
        """
        return (*self.own_arguments(image), *self.further_args)

    def _further_problems(self) -> list[str]:
        matches = {arg: _FURTHER.fullmatch(arg) for arg in self.further_args}
        wrong = [f"further argument {arg!r} (as '--name=value')" for arg, match in matches.items() if not match]
        names = [match["name"] for match in map(_FURTHER.fullmatch, self.further_args) if match]
        own = self.OWN_ARGS | {"runner"}
        wrong += [f"further argument --{name} (a field says this already)" for name in names if name in own]
        twice = sorted({name for name in names if names.count(name) > 1 and name not in _REPEATED})
        return [*wrong, *(f"further argument --{name} twice (once)" for name in twice)]


def beam_runner_names() -> tuple[str, ...]:
    """Returns the names of the Beam runners that ship."""
    return plugins.member_names(__name__)


def load_beam_runner(name: str) -> type[BeamRunner]:
    """Returns the class of the Beam runner of that name.

    Raises:
      ValueError: If there is none.
    """
    found: type[BeamRunner] = plugins.load_member(__name__, name, "Beam runner").RUNNER
    return found


def parse_beam_runner(name: str, options: Sequence[str]) -> BeamRunner:
    """Returns a Beam runner with its settings as a command line has them.

    Args:
      name: Its name.
      options: Fields as "name=value"; one that holds several values may be there several times.

    Raises:
      ValueError: If there is no such runner or field, or a value is wrong.

    >>> parse_beam_runner("direct", ["mode=multi_processing", "workers=2"]).arguments()[-2:]
    ('--direct_running_mode=multi_processing', '--direct_num_workers=2')
    """
    runner = load_beam_runner(name)
    kinds = typing.get_type_hints(runner)
    names = [field.name for field in dataclasses.fields(runner)]
    given: dict[str, Any] = {}
    for option in options:
        key, is_set, text = option.partition("=")
        if not is_set or key not in names:
            raise ValueError(f"Beam's runner {name}: option {option!r}, expected NAME=VALUE of {', '.join(names)}")
        if key in given and not isinstance(given[key], tuple):
            raise ValueError(f"Beam's runner {name}: option {key} is there twice; give it once")
        value = _value(name, option, text, kinds[key])
        given[key] = given.get(key, ()) + value if isinstance(value, tuple) else value
    return runner(**given)


def _value(runner: str, option: str, text: str, kind: Any) -> Any:
    if isinstance(kind, types.GenericAlias):  # of strings
        return (text,)
    try:
        return {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (KeyError, ValueError):
        expected = "true or false" if kind is bool else "a whole number"
        raise ValueError(f"Beam's runner {runner}: option {option!r}, expected {expected}") from None
