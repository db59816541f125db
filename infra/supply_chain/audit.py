"""Looks up known vulnerabilities of what each stack consists of, into build/audit: `make audit`.

It fails on those that an upgrade within the bounds of pyproject.toml would mend, unless infra/audit-ignore.txt accepts
them with a reason. Those that TFX's own bounds hold back are reported, and do not fail: nobody could mend them here.
"""

import argparse
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from infra.supply_chain import stacks

_DIRECTORY = Path("build/audit")
_IGNORED = Path("infra/audit-ignore.txt")
# A release with vulnerabilities that every database knows; one that does not know them answers nothing.
_KNOWN_TO_BE_VULNERABLE = "jinja2==2.4.1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Vulnerability:
    """A known vulnerability of a locked package."""

    package: str
    version: str
    identifiers: tuple[str, ...]
    mended_in: tuple[str, ...]

    def __str__(self) -> str:
        versions = ", ".join(self.mended_in) or "no version yet"
        return f"{self.package} {self.version}: {self.identifiers[0]}, mended in {versions}"


class NotScannedError(Exception):
    """The database did not answer, or not for everything."""


def installed(requirements: str, stack: str) -> list[str]:
    """Those lines `name==version` of exported requirements that are installed in a stack."""
    lines = []
    for line in requirements.splitlines():
        if line and line[0].isalnum():
            requirement = Requirement(line.removesuffix("\\").strip())
            if requirement.marker is None or requirement.marker.evaluate(stacks.environment(stack)):
                lines.append(f"{requirement.name}{requirement.specifier}")
    return lines


def vulnerabilities(report: dict[str, Any]) -> list[Vulnerability]:
    """Those in a report that pip-audit wrote as JSON.

    Raises:
        NotScannedError: the database knows nothing about some packages, which says nothing about them.
    """
    skipped = [package for package in report["dependencies"] if "skip_reason" in package]
    if skipped:
        names = ", ".join(package["name"] for package in skipped[:3])
        raise NotScannedError(
            f"it knows nothing of {len(skipped)} of {len(report['dependencies'])} packages, such as {names}"
        )
    return [
        Vulnerability(
            package=package["name"],
            version=package["version"],
            identifiers=(entry["id"], *entry.get("aliases", ())),
            mended_in=tuple(entry.get("fix_versions", ())),
        )
        for package in report["dependencies"]
        for entry in package["vulns"]
    ]


def read_ignored(text: str) -> dict[str, str]:
    """Accepted identifiers with their reasons.

    Raises:
        ValueError: a line has no reason.
    """
    ignored = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            identifier, _, reason = line.partition(" ")
            if not reason.strip():
                raise ValueError(f"{_IGNORED}, line {number}: {identifier} has no reason; write one behind it")
            ignored[identifier] = reason.strip()
    return ignored


def scan(requirements: Iterable[str], arguments: Sequence[str] = ()) -> dict[str, Any]:
    """What pip-audit says of pinned requirements, `name==version`, without installing anything.

    Raises:
        NotScannedError: pip-audit failed.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "requirements.txt")
        path.write_text("\n".join(requirements) + "\n")
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(path), "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--progress-spinner", "off", *arguments]
        result = subprocess.run(command, capture_output=True, text=True)
    try:
        report: dict[str, Any] = json.loads(result.stdout)
    except json.JSONDecodeError:
        end = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise NotScannedError(f"pip-audit failed with exit status {result.returncode}: {end}") from None
    return report


@functools.cache
def newest_within_bounds() -> str:
    """The requirements that uv.lock would have after an upgrade of everything that pyproject.toml allows."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for file in ("pyproject.toml", "uv.lock", "README.md", "LICENSE"):
            shutil.copy(file, directory)
        stacks.uv("lock", "--quiet", "--upgrade", directory=directory)
        return stacks.export("requirements.txt", directory=directory)


def mendable(found: list[Vulnerability], upgraded: list[Vulnerability]) -> list[Vulnerability]:
    """Those that an upgrade makes disappear."""
    remaining = {(entry.package, identifier) for entry in upgraded for identifier in entry.identifiers}
    return [entry for entry in found if not any((entry.package, name) in remaining for name in entry.identifiers)]


def audit(stack: str, requirements: str, ignored: dict[str, str], arguments: Sequence[str]) -> bool:
    """Prints what is known about a stack; returns whether nothing has to be done."""
    report = scan(installed(requirements, stack), arguments)
    (_DIRECTORY / f"{stack}.json").write_text(json.dumps(report, indent=2) + "\n")
    found = vulnerabilities(report)
    print(f"{stack}: {len(report['dependencies'])} packages, {len(found)} known vulnerabilities")
    to_mend: list[Vulnerability] = []
    if found:
        names = {entry.package for entry in found}
        newest = [line for line in installed(newest_within_bounds(), stack) if line.partition("==")[0] in names]
        to_mend = mendable(found, vulnerabilities(scan(newest, arguments)))
    for entry in found:
        reason = next((ignored[name] for name in entry.identifiers if name in ignored), None)
        if reason is not None:
            print(f"  accepted: {entry}: {reason}")
        elif entry in to_mend:
            print(f"  TO MEND:  {entry}; run `uv lock --upgrade-package {entry.package}`")
        else:
            print(f"  held:     {entry}; not within the bounds of TFX and of pyproject.toml")
    return all(any(name in ignored for name in entry.identifiers) for entry in to_mend)


def main() -> None:
    """Looks up known vulnerabilities of both stacks; exit status 1 if one is to be mended, 2 if that is not known."""
    parser = argparse.ArgumentParser(prog="make audit", description=main.__doc__)
    parser.add_argument(
        "--unreachable", choices=["fail", "warn"], default="fail", help="if the database cannot be asked; default: fail"
    )
    parser.add_argument("arguments", nargs="*", metavar="-- PIP-AUDIT'S OPTIONS", help="such as -- -s osv")
    options = parser.parse_args()
    _DIRECTORY.mkdir(parents=True, exist_ok=True)
    try:
        ignored = read_ignored(_IGNORED.read_text())
        if not vulnerabilities(scan([_KNOWN_TO_BE_VULNERABLE], options.arguments)):
            raise NotScannedError(f"it does not know the vulnerabilities of {_KNOWN_TO_BE_VULNERABLE}")
        requirements = stacks.export("requirements.txt")
        results = [audit(stack, requirements, ignored, options.arguments) for stack in stacks.STACKS]
    except ValueError as error:
        sys.exit(f"make audit: {error}")
    except NotScannedError as error:
        message = f"NOT SCANNED: the database of known vulnerabilities could not be asked: {error}"
        (_DIRECTORY / "not-scanned.txt").write_text(message + "\n")
        print(f"{message}\nRun `make audit` again where it can be reached, or ask another, see `pip-audit --help`")
        sys.exit(0 if options.unreachable == "warn" else 2)
    (_DIRECTORY / "not-scanned.txt").unlink(missing_ok=True)
    if not all(results):
        sys.exit(f"make audit: upgrade what is to be mended, or accept it with a reason in {_IGNORED}")


if __name__ == "__main__":
    main()
