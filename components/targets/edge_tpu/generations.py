"""Which ops each generation of compiler and runtime has.

Documented: https://coral.ai/docs/edgetpu/models-intro/#supported-operations . Where compiled models in public need an
older runtime than is documented, the older one stands here.
"""

import dataclasses
import logging
import re

from components.quantization.conversion import op_runtimes

_LOGGER = logging.getLogger(__name__)

# The newest runtime that a compiler builds for.
_COMPILERS = {(1, 0): 10, (2, 0): 12, (2, 1): 12, (14, 1): 13, (15, 0): 13, (16, 0): 14}
# The TensorFlow in work when each compiler was built, by the dates of the builds. What compilers are known to have
# refused (RESIZE_BILINEAR 3 by 2.0, RESIZE_NEAREST_NEIGHBOR 3 by 2.1, REVERSE_V2 3 by 15.0, CONV_2D 6, TRANSPOSE_CONV 4
# and QUANTIZE 3 by 16.0) came later, and all that is in compiled models in public came before.
TENSORFLOWS = {
    **{(1, 0): (1, 14, 0), (2, 0): (2, 0, 0), (2, 1): (2, 2, 0)},  # 1.15 and 2.0 were cut together
    **{(14, 1): (2, 3, 0), (15, 0): (2, 4, 0), (16, 0): (2, 6, 0)},
}
RUNTIMES = (10, 11, 12, 13, 14)
_OLDEST, _NEWEST = RUNTIMES[0], RUNTIMES[-1]
# The first runtime for INT8: all that older ones ran was UINT8.
FIRST_RUNTIME_OF_INT8 = 12
# Since compiler 16 a partly float model compiles, its float ops on the CPU.
FIRST_COMPILER_OF_FLOAT_PARTS = (16, 0)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """A compiler, and the oldest runtime that its output must work with."""

    compiler: tuple[int, int]
    runtime: int

    @classmethod
    def of(cls, compiler_version: str, min_runtime_version: int | None = None, quiet: bool = False) -> "Generation":
        """Returns the generation of a version as the compiler prints it, such as "16.0" or "16.0.384591198".

        Args:
          compiler_version: The version.
          min_runtime_version: The oldest runtime that its output must work with; None for its newest.
          quiet: Whether to say nothing of versions that are taken for others, where that was said already.

        Raises:
          ValueError: If it is no version, is older than the first compiler, or the runtime is none of `RUNTIMES`.
        """
        found = re.match(r"(\d{1,4})\.(\d{1,4})(\.|$)", compiler_version)
        compiler = (int(found.group(1)), int(found.group(2))) if found else (0, 0)
        known = [version for version in _COMPILERS if version <= compiler]
        if not known:
            raise ValueError(f"compiler_version: got {compiler_version!r}, expected 1.0 or newer, for example '16.0'")
        if compiler[0] > max(_COMPILERS)[0] and not quiet:
            _LOGGER.warning("edgetpu_compiler %s is not known: taken as %d.%d", compiler_version, *max(known))
        newest = _COMPILERS[max(known)]
        if min_runtime_version is not None and min_runtime_version not in RUNTIMES:
            raise ValueError(f"min_runtime_version: got {min_runtime_version}, expected one of {RUNTIMES}")
        if min_runtime_version is not None and min_runtime_version > newest and not quiet:
            _LOGGER.warning(
                "min_runtime_version %d is not known to edgetpu_compiler %s: taken as %d, its newest",
                *(min_runtime_version, compiler_version, newest),
            )
        return cls(compiler=compiler, runtime=min(newest, min_runtime_version or newest))

    @property
    def tensorflow(self) -> tuple[int, int, int]:
        """The TensorFlow that it reads models with, as (major, minor, patch)."""
        return TENSORFLOWS[max(version for version in TENSORFLOWS if version <= self.compiler)]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Support:
    """What is known about an op that the Edge TPU has.

    Attributes:
      runtime: The first runtime with it.
      compiler: The first compiler that maps it, whatever the runtime.
      version: Its highest version known to map; 0 if none is.
      elements: Elements of the largest tensor that it is known to map with; 0 if the op is known from logs or documents
        that do not say its sizes.
    """

    runtime: int = _OLDEST
    compiler: tuple[int, int] = (1, 0)
    version: int = 0
    elements: int = 0


# Versions and sizes are the largest seen in compiled models in public and their logs.
SUPPORTED = {
    "ADD": Support(version=2, elements=1_572_864),
    "AVERAGE_POOL_2D": Support(version=2, elements=348_480),
    "CONCATENATION": Support(version=2, elements=1_228_800),
    "CONV_2D": Support(version=3, elements=25_165_824),
    "DEPTHWISE_CONV_2D": Support(version=3, elements=25_264_224),
    "EXPAND_DIMS": Support(runtime=13),
    "FULLY_CONNECTED": Support(version=4, elements=114_688),
    "L2_NORMALIZATION": Support(),
    "LOGISTIC": Support(version=2, elements=1_638_400),
    "MAXIMUM": Support(version=2, elements=147_456),
    "MAX_POOL_2D": Support(version=2, elements=4_194_304),
    "MEAN": Support(version=2, elements=688_128),
    "MINIMUM": Support(version=2, elements=145),
    "MUL": Support(version=2, elements=1_638_400),
    "PACK": Support(runtime=13, version=2, elements=131_072),
    "PAD": Support(version=2, elements=25_264_224),
    "PADV2": Support(),
    "PRELU": Support(runtime=13),
    "QUANTIZE": Support(runtime=12, version=2, elements=1_228_800),
    "REDUCE_MAX": Support(runtime=12, version=1, elements=16_384),
    "REDUCE_MIN": Support(runtime=12),
    "RELU": Support(),
    "RELU6": Support(),
    "RELU_N1_TO_1": Support(),
    "RESHAPE": Support(version=1, elements=134_400),
    "RESIZE_BILINEAR": Support(elements=524_288),  # https://github.com/google-coral/edgetpu/issues/31
    "RESIZE_NEAREST_NEIGHBOR": Support(version=3, elements=2_097_152),
    "RSQRT": Support(runtime=14, version=2, elements=49),
    "SLICE": Support(),
    "SOFTMAX": Support(version=2, elements=537_600),
    "SPACE_TO_DEPTH": Support(),
    "SPLIT": Support(version=2, elements=6_144),
    "SQUARED_DIFFERENCE": Support(runtime=14, version=2, elements=25_088),
    "SQUEEZE": Support(),
    "STRIDED_SLICE": Support(version=2, elements=819_200),
    "SUB": Support(version=2, elements=196_608),
    "SUM": Support(runtime=13, version=2, elements=131_072),
    "TANH": Support(),
    # Compiler 15.0 says that it is not supported: https://github.com/google-coral/edgetpu/issues/342
    "TRANSPOSE": Support(runtime=13, compiler=(16, 0), version=2, elements=57_600),
    "TRANSPOSE_CONV": Support(runtime=13),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": Support(runtime=12, version=1, elements=784),
}
# Versions that TensorFlow reads and the compiler refuses. FULLY_CONNECTED 9 is documented nowhere.
_HIGHEST_MAPPED = {"FULLY_CONNECTED": 8, "RELU": 1}
# Compilers before 16 refuse half-pixel centers, which came with version 3.
_HIGHEST_MAPPED_BEFORE_16 = {"RESIZE_BILINEAR": 2, "RESIZE_NEAREST_NEIGHBOR": 2}


def highest_mapped(code: str, generation: Generation) -> int | None:
    """Returns the highest version of an op that a compiler may map; None if that is the highest that it reads."""
    if generation.compiler < FIRST_COMPILER_OF_FLOAT_PARTS and code in _HIGHEST_MAPPED_BEFORE_16:
        return _HIGHEST_MAPPED_BEFORE_16[code]
    return _HIGHEST_MAPPED.get(code)


def support_rows() -> tuple[tuple[str, str, str, str, str], ...]:
    """Returns the rows of the page of supported ops: op, first runtime, known and highest version, known size."""
    newest = Generation.of("16.0")
    rows = []
    for code, support in SUPPORTED.items():
        known = f"{support.elements:,}" if support.elements else "not known"
        readable = max(
            v for (op, v), since in op_runtimes.RUNTIMES.items() if op == code and since <= newest.tensorflow
        )
        highest = str(highest_mapped(code, newest) or readable)
        rows.append((code, str(support.runtime), str(support.version or "not known"), highest, known))
    return tuple(rows)
