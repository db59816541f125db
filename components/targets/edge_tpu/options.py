"""Options of edgetpu_compiler 16.0, and of how it is run, as one value that can be written down."""

import dataclasses
import json
import re
from typing import Any, TypedDict

from components.targets._options import TargetOptions, wrong_counts

CUSTOM_OP = "edgetpu-custom-op"
"""Name of the op that the compiler puts in place of what it maps."""
COMPILER = "edgetpu_compiler"
RUNTIME_VERSIONS = (10, 11, 12, 13, 14)
_NEWEST_RUNTIME_BEFORE_16 = 13
# The first generation whose logs speak of a timer.
_FIRST_WITH_TIMER = 16


class Generation(TypedDict):
    """Arguments of `mapping.predict`."""

    compiler_version: str
    min_runtime_version: int | None
    multiple_subgraphs: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CompilerOptions(TargetOptions):
    """What edgetpu_compiler is asked for.

    The options of the program are those of https://coral.ai/docs/edgetpu/compiler/.

    Attributes:
      show_operations: Print the table of operations, on which the report rests.
      min_runtime_version: The oldest Edge TPU runtime that is to run the file; an older one maps fewer ops. 14 is the
        newest and what compiler 16.0 assumes; None leaves it to the compiler.
      intermediate_tensors: Names of the tensors where the Edge TPU's part is to end; ops behind them run on the CPU.
      num_segments: Into how many files to split a model, for as many Edge TPUs in a pipeline.
      search_delegate: Whether to drop ops from the end until the rest compiles.
      delegate_search_step: How many ops that search drops at a time.
      timeout_sec: The compiler's own limit for one attempt.
      enable_multiple_subgraphs: Whether to map ops behind one that is not supported; experimental, may be slower.
      compiler: Name of the program on PATH, or its path.
      image: A container image that has the program on its PATH; "" to run it on this machine.
      container_runtime: Program that runs containers: "docker" or "podman".
      attempts: How often at most a run that failed without a reason in the model is repeated as it was.
      search_steps: Steps of the delegate searches that are tried when the plain compilation does not succeed.
      budget_sec: Limit for all attempts together.
    """

    show_operations: bool = True
    min_runtime_version: int | None = 14
    intermediate_tensors: tuple[str, ...] = ()
    num_segments: int = 1
    search_delegate: bool = False
    delegate_search_step: int = 1
    timeout_sec: int = 180
    enable_multiple_subgraphs: bool = False
    compiler: str = COMPILER
    image: str = ""
    container_runtime: str = "docker"
    attempts: int = 3
    search_steps: tuple[int, ...] = (30, 10, 1)
    budget_sec: int = 1800

    def __post_init__(self) -> None:
        """Checks everything at once; raises ValueError that lists all violations."""
        wrong = self._wrong_types() or self._wrong_values()
        if wrong:
            raise ValueError(f"compiler options: {'; '.join(wrong)}")

    def arguments(self, major: int = 16) -> list[str]:
        """Returns the command line without the program, the models and the folder of the output.

        Args:
          major: Generation of the compiler, which older ones know fewer options.

        >>> CompilerOptions().arguments()
        ['--show_operations', '--min_runtime_version', '14', '--timeout_sec', '180']
        """
        arguments = ["--show_operations"] if self.show_operations else []
        runtime = self.min_runtime_version
        if runtime is not None and (major >= _FIRST_WITH_TIMER or runtime <= _NEWEST_RUNTIME_BEFORE_16):
            arguments += ["--min_runtime_version", str(runtime)]
        if self.intermediate_tensors:
            arguments += ["--intermediate_tensors", ",".join(self.intermediate_tensors)]
        if self.num_segments > 1:
            arguments += ["--num_segments", str(self.num_segments)]
        if self.search_delegate:
            arguments += ["--search_delegate", "--delegate_search_step", str(self.delegate_search_step)]
        if major >= _FIRST_WITH_TIMER:
            arguments += ["--timeout_sec", str(self.timeout_sec)]
        if self.enable_multiple_subgraphs:
            arguments.append("--enable_multiple_subgraphs")
        return arguments

    def searching(self, step: int) -> "CompilerOptions":
        """Returns a copy that searches for the ops that compile, by that step."""
        return dataclasses.replace(self, search_delegate=True, delegate_search_step=step)

    def generation(self, compiler_version: str = "16.0") -> Generation:
        """Returns what a prediction of the compiler's mapping depends on."""
        return Generation(
            compiler_version=compiler_version,
            min_runtime_version=self.min_runtime_version,
            multiple_subgraphs=self.enable_multiple_subgraphs,
        )

    @classmethod
    def from_json(cls, text: str) -> "CompilerOptions":
        """Reads what `to_json` wrote, or some of its keys; "" for the defaults.

        Raises:
          ValueError: If the text is not JSON, its keys are no options, or a value has no meaning.
        """
        try:
            values: Any = json.loads(text) if text else {}
            if not isinstance(values, dict):
                raise TypeError("expected an object such as {}")
            for name in ("intermediate_tensors", "search_steps"):
                if isinstance(values.get(name), list):  # all else is for the check of types
                    values[name] = tuple(values[name])
            return cls(**values)
        except (TypeError, json.JSONDecodeError) as error:
            names = ", ".join(field.name for field in dataclasses.fields(cls))
            raise ValueError(f"not options of {COMPILER}: {text!r} ({error}); there are {names}") from error

    def _wrong_types(self) -> list[str]:
        wrong = []
        for field in dataclasses.fields(self):
            value, default = getattr(self, field.name), field.default
            expected = f"something like {default!r}"
            fits = type(value) is type(default) or (field.name == "min_runtime_version" and value is None)
            if isinstance(default, tuple):
                inner, what = (str, "names") if field.name == "intermediate_tensors" else (int, "numbers")
                expected = f"a list of {what}"
                fits = fits and all(type(item) is inner for item in value)
            if not fits:
                wrong.append(f"{field.name}: got {value!r}, expected {expected}")
        return wrong

    def _wrong_values(self) -> list[str]:
        wrong = []
        if self.min_runtime_version not in (None, *RUNTIME_VERSIONS):
            known = ", ".join(map(str, RUNTIME_VERSIONS))
            wrong.append(f"min_runtime_version: got {self.min_runtime_version}, expected one of {known}")
        wrong += wrong_counts(self, "num_segments", "delegate_search_step", "timeout_sec", "attempts", "budget_sec")
        if any(step < 1 for step in self.search_steps):
            wrong.append(f"search_steps: got {self.search_steps}, expected numbers of at least 1")
        if any(not name or "," in name for name in self.intermediate_tensors):
            wrong.append(f"intermediate_tensors: got {self.intermediate_tensors}, expected names without commas")
        if self.num_segments > 1 and (self.intermediate_tensors or self.search_delegate):
            wrong.append("num_segments with intermediate_tensors or search_delegate: choose one")
        if self.container_runtime not in ("docker", "podman"):
            wrong.append(f"container_runtime: got {self.container_runtime!r}, expected docker or podman")
        if not self.compiler or self.compiler.startswith("-"):
            wrong.append(f"compiler: got {self.compiler!r}, expected a program's name or path")
        # A name that begins with a dash would be read as an option.
        if self.image and not re.fullmatch(r"[A-Za-z0-9][\w./:@-]*", self.image):
            wrong.append(f"image: got {self.image!r}, expected a reference such as registry/name:tag")
        return wrong
