"""Shapes of a model's inputs, with a number for each dimension that the model leaves unknown."""

from collections.abc import Mapping, Sequence

InputShapes = Mapping[str, Sequence[int]] | Sequence[int] | None
# Without the batch; a dimension that is not known is None, and so is a shape whose rank is not.
KnownShape = tuple[int | None, ...] | None


def fixed_shapes(known: Mapping[str, KnownShape], given: InputShapes = None) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each input, without the batch.

    Args:
      known: The shapes that the model has, by name of the input.
      given: Shapes to give them, without the batch: by name, or that of the only input. Those of inputs whose
        dimensions are all known may be left out.

    Raises:
      ValueError: If a name is no input, a shape does not fit the model's, or a dimension stays unknown; lists all.

    >>> fixed_shapes({"image": (None, None, 3), "age": (1,)}, {"image": (32, 32, 3)})
    {'image': (32, 32, 3), 'age': (1,)}
    """
    by_name, problems = _by_name(known, given)
    problems += [f"got one for {name!r}, expected inputs of the model" for name in by_name if name not in known]
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in known.items():
        numbers = by_name.get(name, shape)
        if name not in by_name and not _is_known(shape):
            problems.append(f"input {name!r} has unknown dimensions, {_pattern(shape)}")
        elif not _fits(numbers, shape):
            problems.append(f"input {name!r}: got {numbers}, expected {_pattern(shape)}")
        else:
            found[name] = tuple(int(size) for size in numbers or () if size is not None)
    if problems:
        raise ValueError(f"input shapes: {'; '.join(problems)}; {_remedy(known)}")
    return found


def _by_name(
    known: Mapping[str, KnownShape], given: InputShapes
) -> tuple[dict[str, tuple[int | None, ...]], list[str]]:
    """The shapes that are given, by name, and what is wrong with the form that they are given in."""
    if given is None:
        return {}, []
    if isinstance(given, Mapping):
        return {name: tuple(shape) for name, shape in given.items()}, []
    if len(known) != 1:
        return {}, [f"got {tuple(given)} for {len(known)} inputs, expected a shape by name"]
    return {next(iter(known)): tuple(given)}, []


def _is_known(shape: KnownShape) -> bool:
    return shape is not None and None not in shape


def _fits(numbers: KnownShape, shape: KnownShape) -> bool:
    if numbers is None or any(size is None or size < 1 for size in numbers):
        return False
    if shape is None:
        return True
    return len(numbers) == len(shape) and all(old in (None, new) for old, new in zip(shape, numbers, strict=True))


def _pattern(shape: KnownShape) -> str:
    """A shape as Python writes it, with N for what is unknown."""
    if shape is None:
        return "(N, ...)"
    return f"({', '.join(_sizes(shape))}{',' if len(shape) == 1 else ''})"


def _sizes(shape: KnownShape) -> list[str]:
    return ["N", "..."] if shape is None else ["N" if size is None else str(size) for size in shape]


def _remedy(known: Mapping[str, KnownShape]) -> str:
    unknown = {name: shape for name, shape in known.items() if not _is_known(shape)}
    if not unknown:
        return f"the shapes of {', '.join(known)} are known, leave these out"
    argument = ", ".join(f"{name!r}: {_pattern(shape)}" for name, shape in unknown.items())
    options = " ".join(f"--input-shape {name}={','.join(_sizes(shape))}" for name, shape in unknown.items())
    return f"pass input_shapes={{{argument}}}, or to `convert` {options}, with a number for each N"
