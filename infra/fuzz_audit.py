"""Audits broken .tflite files, each of which must end in an Audit or one clear ValueError: `make fuzz`.

Files are broken by seeded mutations of small models: bits, numbers of extreme size, cuts, pieces moved about, and
fields of the schema set to wrong values. Generic fuzzers add little here: hypothesis shrinks what is small already, and
atheris needs a compiler of its own to follow coverage in Python; the fields and offsets that matter are known from the
schema.
"""

import argparse
import dataclasses
import random
import resource
import signal
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.audit import audit

_FAILED = Path("build/fuzz")
# Far above what any of the small models takes.
_SECONDS_PER_CASE = 5
_MEBIBYTES_MORE = 256
_NUMBERS = (0, 1, -1, 2, 3, 127, 128, 255, 256, 2**15, 2**16, 2**24, 2**28, 2**31 - 1, -(2**31), -(2**31) + 1)
_SCALARS = (0, -1, 1, 7, 2**31 - 1, -(2**31))
_LISTS: tuple[Any, ...] = (None, [], [-1], [0], [2**31 - 1], [-(2**31)] * 5, list(range(40)), [0] * 3)
_PROFILES = (None, "edge_tpu", "cpu")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How many cases ended how."""

    audits: int
    errors: int


def mutated(random_: random.Random, files: list[bytes]) -> bytes:
    """Returns a file with one to four mutations."""
    content, few = random_.choice(files), 1
    if random_.random() < 0.4:
        content, few = _with_wrong_field(random_, content), 0
    mutations = (_flipped, _overwritten, _overwritten, _cut, _spliced)
    for _ in range(random_.randint(few, 1 + 2 * few)):
        content = random_.choice(mutations)(random_, content, files)
    return content


def check(content: bytes, profile: str | None) -> bool:
    """Audits a file, and reads it as an object.

    Returns:
      Whether there is an Audit.

    Raises:
      Exception: Whatever else than an Audit or a ValueError comes of it.
    """
    try:
        flatbuffer.read_object(content)
    except ValueError as error:
        _require_clear(error)
    try:
        found = audit(content, profile)
    except ValueError as error:
        _require_clear(error)
        return False
    if len(found.to_json()) < len(str(found)) // 4:
        raise AssertionError("the table is much larger than the JSON form")
    return True


def run(files: list[bytes], seed: int, cases: int) -> Counts:
    """Checks so many mutated files.

    Raises:
      Exception: What `check` raises; its note names the case.
    """
    audits = sum(_checked(files, seed, case) for case in range(cases))
    return Counts(audits=audits, errors=cases - audits)


def _checked(files: list[bytes], seed: int, case: int) -> bool:
    random_ = random.Random(f"{seed}:{case}")
    return check(mutated(random_, files), random_.choice(_PROFILES))


def _require_clear(error: ValueError) -> None:
    if "TFLite flatbuffer" not in str(error) or len(str(error)) > 1000:
        raise AssertionError(f"unclear error: {str(error)[:300]}") from error


def _flipped(random_: random.Random, content: bytes, _: list[bytes]) -> bytes:
    changed = bytearray(content)
    for _ in range(random_.randint(1, 8)):
        if changed:
            changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
    return bytes(changed)


def _overwritten(random_: random.Random, content: bytes, _: list[bytes]) -> bytes:
    changed = bytearray(content)
    for _ in range(random_.randint(1, 4)):
        size = random_.choice((1, 2, 4, 4, 8))
        if len(changed) > size:
            position = random_.randrange(0, len(changed) - size)
            position -= position % size if random_.random() < 0.9 else 0
            number = random_.choice((*_NUMBERS, len(changed), random_.getrandbits(32)))
            changed[position : position + size] = struct.pack("<q", number)[:size]
    return bytes(changed)


def _cut(random_: random.Random, content: bytes, _: list[bytes]) -> bytes:
    return content[: random_.randrange(len(content) + 1)]


def _spliced(random_: random.Random, content: bytes, files: list[bytes]) -> bytes:
    other = random_.choice((content, random_.choice(files)))
    start = random_.randrange(len(other) + 1)
    piece, place = other[start : start + random_.randint(1, 256)], random_.randrange(len(content) + 1)
    kept = place + (len(piece) if random_.random() < 0.7 else 0)
    return content[:place] + piece + content[kept:]


def _with_wrong_field(random_: random.Random, content: bytes) -> bytes:
    try:
        model = flatbuffer.read_object(content)
        for _ in range(random_.randint(1, 3)):
            _set_wrong(random_, random_.choice(list(_objects(model))))
        return flatbuffer.write_object(model)
    except Exception:  # what the schema's own writer cannot write is no case
        return content


def _objects(model: Any) -> Iterator[Any]:
    yield from model.operatorCodes or ()
    yield from model.buffers or ()
    for graph in model.subgraphs or ():
        yield graph
        yield from graph.operators or ()
        for tensor in graph.tensors or ():
            yield tensor
            if tensor.quantization is not None:
                yield tensor.quantization


def _set_wrong(random_: random.Random, target: Any) -> None:
    field = random_.choice(sorted(vars(target)))
    value = vars(target)[field]
    if isinstance(value, bool | int):
        setattr(target, field, random_.choice(_SCALARS))
    elif value is None or not isinstance(value, str | bytes):
        floats = (None, [], [0.0], [float("nan")] * 3, [float("inf")], [-1.0], [1e-45])
        setattr(target, field, random_.choice(floats if field == "scale" else _LISTS))
    else:
        setattr(target, field, random_.choice(("", "x" * 5000, "a;b/c:" * 100)))


def _models() -> list[bytes]:
    sys.path.insert(0, "tests")
    import audited_models as models

    return models.all_models()


def _too_slow(*_: Any) -> None:
    raise TimeoutError(f"more than {_SECONDS_PER_CASE} s")


def _fail(content: bytes, error: BaseException, seed: int, case: int) -> None:
    _FAILED.mkdir(parents=True, exist_ok=True)
    path = _FAILED / f"{seed}-{case}.tflite"
    path.write_bytes(content)
    sys.exit(f"seed {seed}, case {case}: {type(error).__name__}: {str(error)[:500]}\nsaved as {path}")


def main() -> None:
    """Checks mutated files for a while and shows how far it is; ends with status 1 at the first failure."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which cases (default: %(default)s)")
    options = parser.parse_args()
    files, case, audits, grown = _models(), 0, 0, 0.0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    signal.signal(signal.SIGALRM, _too_slow)
    started = shown = time.monotonic()
    while time.monotonic() - started < options.seconds:
        random_ = random.Random(f"{options.seed}:{case}")
        content, profile = mutated(random_, files), random_.choice(_PROFILES)
        signal.setitimer(signal.ITIMER_REAL, _SECONDS_PER_CASE)
        try:
            audits += check(content, profile)
        except Exception as error:
            _fail(content, error, options.seed, case)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - used
        if grown > _MEBIBYTES_MORE:
            _fail(content, MemoryError(f"{grown:.0f} MiB more than at the start"), options.seed, case)
        case += 1
        if time.monotonic() - shown > 5:
            shown = time.monotonic()
            print(f"{shown - started:4.0f} s: {case} cases, {audits} audits, {case - audits} errors", flush=True)
    print(f"{case} cases of seed {options.seed}: {audits} audits, {case - audits} errors, {grown:.0f} MiB more")


if __name__ == "__main__":
    main()
