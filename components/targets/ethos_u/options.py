"""Options of Vela, and of how it is run, as one value that can be written down."""

import dataclasses
import json
from typing import Any

from components.targets._options import TargetOptions, wrong_counts

CUSTOM_OP = "ethos-u"
"""Name of the op that Vela puts in place of each part for the NPU."""
COMPILER = "vela"

# Configurations in Vela's own file of them, by family of accelerators; the first is what Vela takes unless told.
# https://pypi.org/project/ethos-u-vela/5.2.0/ ethosu/config_files/Arm/vela.ini
SYSTEM_CONFIGS = {
    "ethos-u55": ("Ethos_U55_High_End_Embedded", "Ethos_U55_Deep_Embedded"),
    "ethos-u65": ("Ethos_U65_Client_Server", "Ethos_U65_High_End", "Ethos_U65_Mid_End", "Ethos_U65_Embedded"),
    "ethos-u85": (
        "Ethos_U85_SYS_DRAM_Mid",
        "Ethos_U85_SYS_DRAM_High",
        "Ethos_U85_SYS_DRAM_Low",
        "Ethos_U85_SYS_Flash_High",
        "Ethos_U85_SYS_Flash_Low",
    ),
}
# Those whose second memory is flash: it cannot be written, so feature maps have to fit into SRAM.
_WITHOUT_DRAM = frozenset(
    {
        *SYSTEM_CONFIGS["ethos-u55"],
        "Ethos_U65_Embedded",
        "Ethos_U85_SYS_Flash_High",
        "Ethos_U85_SYS_Flash_Low",
    }
)
DEDICATED_SRAM = ("Dedicated_Sram_384KB", "Dedicated_Sram", "Dedicated_Sram_256KB", "Dedicated_Sram_512KB")
MEMORY_MODES = ("Shared_Sram", "Sram_Only", *DEDICATED_SRAM)
# Multiplications per cycle that each family is made with.
_MACS = {"ethos-u55": (32, 64, 128, 256), "ethos-u65": (256, 512), "ethos-u85": (128, 256, 512, 1024, 2048)}
ACCELERATORS = tuple(f"{family}-{macs}" for family, sizes in _MACS.items() for macs in sizes)
_STRATEGIES = ("Performance", "Size")
_MOST_CACHE_BYTES = 2**32  # what 32-bit addresses of the U55 reach


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class VelaOptions(TargetOptions):
    """What Vela is asked for: https://pypi.org/project/ethos-u-vela/ describes its options.

    Attributes:
      accelerator_config: The NPU and its multiplications per cycle.
      system_config: Clock and memories of the system, a section of the configuration file; "" for the one that Vela
        takes for that NPU.
      memory_mode: Which memory holds constants, feature maps and the cache, a section of the configuration file; "" for
        the one that Vela takes for that NPU.
      optimise: "Performance", or "Size" to use little memory at the cost of time.
      arena_cache_size: Bytes of SRAM that Vela may plan with; None for those of the memory mode.
      config_file: Path of an .ini file with a system configuration and a memory mode of your own; "" for Vela's.
      compiler: Name of the program on PATH, its path, or the path of a Python that has the package; "vela" may be
        overruled by the variable TFX_QAT_VELA.
      timeout_sec: Limit of time.
    """

    accelerator_config: str = "ethos-u55-256"
    system_config: str = ""
    memory_mode: str = ""
    optimise: str = "Performance"
    arena_cache_size: int | None = None
    config_file: str = ""
    compiler: str = COMPILER
    timeout_sec: int = 600

    def __post_init__(self) -> None:
        """Fills in what follows from the NPU and checks everything at once; raises ValueError with all violations."""
        wrong = self._wrong_types()
        if not wrong:
            self._fill_in()
            wrong = self._wrong_values()
        if wrong:
            raise ValueError(f"Vela options: {'; '.join(wrong)}")

    @property
    def family(self) -> str:
        """The NPU without its size, such as "ethos-u55"."""
        return self.accelerator_config.rpartition("-")[0]

    def arguments(self, *, per_layer: bool = True) -> list[str]:
        """Returns the command line without the program, the model and the folder of the output.

        Args:
          per_layer: Whether to ask for the table by layers.

        >>> VelaOptions(accelerator_config="ethos-u55-128", arena_cache_size=65536).arguments()[:4]
        ['--accelerator-config', 'ethos-u55-128', '--system-config', 'Ethos_U55_High_End_Embedded']
        """
        named = {
            "--accelerator-config": self.accelerator_config,
            "--system-config": self.system_config,
            "--memory-mode": self.memory_mode,
            "--config": self.config_file or "Arm/vela.ini",
            "--optimise": self.optimise,
        }
        arguments = [word for pair in named.items() for word in pair]
        if self.arena_cache_size is not None:
            arguments += ["--arena-cache-size", str(self.arena_cache_size)]
        return [*arguments, "--verbose-performance"] if per_layer else arguments

    @classmethod
    def from_json(cls, text: str) -> "VelaOptions":
        """Reads what `to_json` wrote, or some of its keys; "" for the defaults.

        Raises:
          ValueError: If the text is not JSON, its keys are no options, or a value has no meaning.
        """
        try:
            values: dict[str, Any] = json.loads(text) if text else {}
            return cls(**values)
        except (TypeError, json.JSONDecodeError) as error:
            names = ", ".join(field.name for field in dataclasses.fields(cls))
            raise ValueError(f"not options of Vela: {text!r} ({error}); there are {names}") from error

    def _fill_in(self) -> None:
        if self.config_file or self.accelerator_config not in ACCELERATORS:
            return
        if not self.system_config:
            object.__setattr__(self, "system_config", SYSTEM_CONFIGS[self.family][0])
        if not self.memory_mode:
            mode = "Shared_Sram" if self.system_config in _WITHOUT_DRAM else DEDICATED_SRAM[0]
            object.__setattr__(self, "memory_mode", mode)

    def _wrong_types(self) -> list[str]:
        wrong = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            is_size = field.name == "arena_cache_size"
            expected = (int, type(None)) if is_size else (type(field.default),)
            if type(value) not in expected:
                example = "a number of bytes or None" if is_size else f"something like {field.default!r}"
                wrong.append(f"{field.name}: got {value!r}, expected {example}")
        return wrong

    def _wrong_values(self) -> list[str]:
        wrong = self._wrong_configs() if self.accelerator_config in ACCELERATORS else []
        for name, known in (("accelerator_config", ACCELERATORS), ("optimise", _STRATEGIES)):
            if getattr(self, name) not in known:
                wrong.append(f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(known)}")
        size = self.arena_cache_size
        if size is not None and not 0 < size <= _MOST_CACHE_BYTES:
            wrong.append(f"arena_cache_size: got {size}, expected 1 to {_MOST_CACHE_BYTES} bytes")
        if not self.compiler or self.compiler.startswith("-"):
            wrong.append(f"compiler: got {self.compiler!r}, expected a program's name or path")
        return wrong + wrong_counts(self, "timeout_sec")

    def _wrong_configs(self) -> list[str]:
        if self.config_file:
            return self._wrong_own_configs()
        wrong = []
        if self.system_config not in SYSTEM_CONFIGS[self.family]:
            known = ", ".join(SYSTEM_CONFIGS[self.family])
            # Vela itself takes the system of another NPU, and estimates nonsense.
            wrong.append(
                f"system_config of {self.accelerator_config}: got {self.system_config!r}, expected one of {known}, or"
                " a config_file that has it"
            )
        if self.memory_mode not in MEMORY_MODES:
            known = ", ".join(MEMORY_MODES)
            wrong.append(
                f"memory_mode: got {self.memory_mode!r}, expected one of {known}, or a config_file that has it"
            )
        elif self.memory_mode in DEDICATED_SRAM and self.system_config in _WITHOUT_DRAM:
            wrong.append(
                f"memory_mode: {self.memory_mode} keeps feature maps in DRAM, and {self.system_config} has none;"
                " expected Shared_Sram or Sram_Only"
            )
        return wrong

    def _wrong_own_configs(self) -> list[str]:
        wrong = []
        if not self.config_file.endswith(".ini"):
            wrong.append(f"config_file: got {self.config_file!r}, expected a path that ends with .ini")
        for name in ("system_config", "memory_mode"):
            if not getattr(self, name):
                wrong.append(f"{name}: got '', expected the name of a section of config_file {self.config_file}")
        return wrong
