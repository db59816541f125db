"""What can be said of a model's files without running it: whether they belong together, and what the audit finds."""

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from components.evaluation.checks import fails, holds, within
from components.evaluation.smoke_settings import Smoke
from components.evaluation.verdict import Reason
from components.quantization.contract import CONTRACT_FILE, TFLITE_FILE, VECTORS_FILE
from components.quantization.contract.schema import Contract, Edge
from components.quantization.conversion import flatbuffer
from components.quantization.conversion.audit import audit
from components.quantization.conversion.deployed_audit import float_edges, with_float_edges
from components.quantization.conversion.profiles import load_profile

PUSHED = "pushed file"
"""The check of the file that is pushed, where another one was run."""
FILES = (TFLITE_FILE, CONTRACT_FILE, VECTORS_FILE)
_MOST_OFFENDERS = 3


def is_compiled(tflite: bytes, profile: str) -> bool:
    """Returns whether a file has an op that was compiled for the target's accelerator, which no CPU runs."""
    compiled = load_profile(profile).allowed_custom_ops
    try:
        model = flatbuffer.read_model(tflite)
    except ValueError:
        return False
    return any(op.custom_code in compiled for graph in model.subgraphs for op in graph.ops)


def same_files(one: Path, other: Path) -> bool:
    """Returns whether two directories have the same model, contract and golden vectors, byte by byte."""
    return all(
        (one / name).is_file() and (other / name).is_file() and (one / name).read_bytes() == (other / name).read_bytes()
        for name in FILES
    )


def refusals(directory: Path, profile: str) -> Iterator[Reason]:
    """Yields why the model of a directory need not be run, or must not be."""
    missing = [name for name in FILES if not (directory / name).is_file()]
    if missing:
        text = f"{', '.join(missing)} missing beside the model; serve what TFLiteIntConverter made"
        yield fails("files", "incomplete", text)
        return
    tflite = (directory / TFLITE_FILE).read_bytes()
    try:
        contract = _contract(directory)
    except ValueError as error:
        yield fails("files", "incomplete", f"{CONTRACT_FILE} cannot be read: {error}")
        return
    try:
        audited = list(_audited(tflite, profile))
    except ValueError as error:
        yield fails("files", "unreadable", str(error))
        return
    sha256 = hashlib.sha256(tflite).hexdigest()
    if sha256 != contract.tflite_sha256:
        text = f"the file is {sha256[:12]}, the contract is of {contract.tflite_sha256[:12]}"
        yield fails("files", "incomplete", text, sha256, contract.tflite_sha256)
    yield from audited or _strays_of_contract(tflite, contract)


def of_compiled(pushed: Path, tested: Path, smoke: Smoke) -> Iterator[Reason]:
    """Yields what can be said of a file with a compiled op: its other ops, contract, golden vectors and size.

    Args:
      pushed: Its directory.
      tested: That of the model that it was compiled of, of which `refusals` found nothing.
      smoke: What it must keep to.
    """
    found = list(refusals(pushed, smoke.profile)) or list(_strays_of_parent(pushed, tested))
    yield from as_pushed(found)
    size = (pushed / TFLITE_FILE).stat().st_size
    yield within(PUSHED, size, smoke.file_bytes, "; read, not run: no CPU runs a compiled op")


def of_other(pushed: Path, tested: Path) -> Iterator[Reason]:
    """Yields how the golden vectors of a pushed file, which is not the tested one, are not those of that."""
    if _vectors(pushed) != _vectors(tested):
        yield fails(PUSHED, "incomplete", f"its {VECTORS_FILE} is not that of the model that it was made of")


def of_same() -> Reason:
    """Returns the reason of a pushed file that is the one that was run."""
    return holds(PUSHED, "the file that was run, byte by byte")


def as_pushed(reasons: list[Reason]) -> Iterator[Reason]:
    """Yields reasons as those of the pushed file."""
    for reason in reasons:
        word, _, text = reason.text.partition(": ")
        yield Reason(
            code=reason.code,
            gate=f"{PUSHED}, {reason.gate}",
            got=reason.got,
            limit=reason.limit,
            text=f"{word}: {PUSHED}, {text}",
        )


def _contract(directory: Path) -> Contract:
    contract = Contract.from_json((directory / CONTRACT_FILE).read_text())
    if not contract.inputs or not contract.outputs or not isinstance(contract.tflite_sha256, str):
        raise ValueError("no inputs, no outputs, or no hash of the model")
    return contract


def _audited(tflite: bytes, profile: str) -> Iterator[Reason]:
    found = audit(tflite, profile)
    graph = flatbuffer.read_subgraphs(tflite)[0]
    inside = with_float_edges(found, graph, float_edges(graph))
    for offender in inside.offenders[:_MOST_OFFENDERS]:
        text = f"{offender.op} {offender.tensor}: {offender.reason}; {offender.fix}"
        yield fails("audit", "audit", f"{offender.rule}: {text}")
    if len(inside.offenders) > _MOST_OFFENDERS:
        yield fails("audit", "audit", f"and {len(inside.offenders) - _MOST_OFFENDERS} more")


def _strays_of_parent(pushed: Path, tested: Path) -> Iterator[Reason]:
    """How contract and vectors of a compiled file stray from those of the model that it was compiled of."""
    contracts = _contract(pushed), _contract(tested)
    if any(getattr(contracts[0], name) != getattr(contracts[1], name) for name in ("inputs", "outputs")):
        yield fails("files", "incomplete", f"its {CONTRACT_FILE} is not that of the model that it was made of")
    if _vectors(pushed) != _vectors(tested):
        yield fails("files", "incomplete", f"its {VECTORS_FILE} is not that of the model that it was made of")


def _strays_of_contract(tflite: bytes, contract: Contract) -> Iterator[Reason]:
    """How the inputs and outputs of a file stray from what its contract says, by which clients quantize."""
    graph = flatbuffer.read_subgraphs(tflite)[0]
    for kind, indices, edges in (("input", graph.inputs, contract.inputs), ("output", graph.outputs, contract.outputs)):
        if len(indices) != len(edges):
            yield fails("files", "signature", f"{len(indices)} {kind}s, the contract has {len(edges)}")
            continue
        for edge in edges:
            tensor = graph.tensors[indices[edge.position]] if edge.position in range(len(indices)) else None
            wrong = _differences(tensor, edge) if tensor is not None else ["is not there"]
            if wrong:
                yield fails("files", "signature", f"{kind} {edge.name!r}: {'; '.join(wrong)}")


def _differences(tensor: flatbuffer.Tensor, edge: Edge) -> list[str]:
    scale = tensor.scale[0] if len(tensor.scale) == 1 else None
    pairs = (
        ("shape", tensor.shape, edge.shape),
        ("dtype", tensor.dtype.lower(), edge.dtype),
        ("scale", scale, edge.scale),
        ("zero_point", tensor.zero_point[0] if scale is not None else 0, edge.zero_point),
    )
    return [f"{what} {got}, the contract has {expected}" for what, got, expected in pairs if got != expected]


def _vectors(directory: Path) -> dict[str, tuple[int, int]] | None:
    """Size and checksum of each array; whoever reads it compares it with both. None if there are none."""
    try:
        with zipfile.ZipFile(directory / VECTORS_FILE) as file:
            return {one.filename: (one.file_size, one.CRC) for one in file.infolist()}
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return None
