"""The image, and what is written about what it consists of: as far as it can be checked without building it."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import Marker

from infra.supply_chain import audit, sbom, stacks

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

REPOSITORY = Path(__file__).parents[2]
_DOCKERFILE = REPOSITORY / "infra/Dockerfile"
_SCRIPTS = REPOSITORY / "infra/image"


def instructions(name: str) -> list[str]:
    """The arguments of all instructions of one kind, continuation lines joined."""
    text = re.sub(r"\\\n\s*", "", _DOCKERFILE.read_text())
    return [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith(f"{name} ")]


def locked_version(package: str, stack: str) -> str:
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    (version,) = (
        entry["version"]
        for entry in lock["package"]
        if entry["name"] == package
        and any(
            Marker(marker).evaluate(stacks.environment(stack))
            for marker in entry.get("resolution-markers", ["python_version > '3'"])
        )
    )
    return version


def test_dockerfile_starts_workers_with_the_beam_of_the_lock() -> None:
    image = next(source for source in instructions("FROM") if "beam" in source)
    python, version = stacks.STACKS["tfx-1.21"], locked_version("apache-beam", "tfx-1.21")
    assert image == f"apache/beam_python{python}_sdk:{version} AS beam"


def test_dockerfile_ends_with_an_unprivileged_user_by_number() -> None:
    assert instructions("USER")[-1] == "${RUN_AS}"
    (default,) = (argument for argument in instructions("ARG") if argument.startswith("RUN_AS="))
    uid = int(default.removeprefix("RUN_AS="))
    assert uid >= 1000
    assert f"--uid {uid} " in (_SCRIPTS / "runtime.sh").read_text()


def test_dockerfile_has_no_place_for_a_secret() -> None:
    settings = instructions("ARG") + instructions("ENV")
    assert settings
    assert not [setting for setting in settings if re.search("key|token|secret|passw|credential", setting, re.I)]
    assert "PYTHONDONTWRITEBYTECODE" not in " ".join(settings)


def test_dockerfile_pins_every_base() -> None:
    stages = {source.rpartition(" AS ")[2] for source in instructions("FROM")}
    bases = {source.partition(" ")[0] for source in instructions("FROM")} - stages
    assert [base for base in bases if ":" not in base and base != "${BASE}"] == []
    assert "BASE=debian:trixie-slim" in instructions("ARG")


def test_dockerfile_and_newest_apply_the_same_scripts() -> None:
    scripts = {path.name for path in _SCRIPTS.iterdir() if path.suffix in {".sh", ".py"}}
    in_dockerfile = set(re.findall(r"/mnt/image/([\w.]+)", " ".join(instructions("RUN"))))
    assert in_dockerfile == scripts
    in_newest = set(re.findall(r"image/([\w.]+\.(?:sh|py))", (REPOSITORY / "infra/newest.sh").read_text()))
    assert in_newest == scripts - {"edgetpu_compiler.sh"}


def test_dockerignore_lets_in_only_what_the_dockerfile_copies() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    copied = {
        source
        for arguments in instructions("COPY")
        if not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    }
    assert {pattern[1:] for pattern in patterns if pattern.startswith("!")} == copied | {"infra/image"}


def test_uv_of_the_image_is_pinned_by_its_hash() -> None:
    (line,) = (line for line in (_SCRIPTS / "uv.txt").read_text().splitlines() if not line.startswith("#"))
    assert re.fullmatch(r"uv==[\d.]+ --hash=sha256:[0-9a-f]{64}", line)


@pytest.mark.parametrize("accepted", [None, "no", "true"])
def test_edgetpu_compiler_is_not_installed_when_its_licence_is_not_accepted(accepted: str | None) -> None:
    environment = {"PATH": os.environ["PATH"]}
    if accepted is not None:
        environment["EDGETPU_COMPILER_LICENCE_ACCEPTED"] = accepted
    result = subprocess.run([_SCRIPTS / "edgetpu_compiler.sh"], env=environment, capture_output=True, text=True)
    assert result.returncode == 0
    assert "not installed" in result.stdout


def test_install_says_what_to_do_when_it_is_called_wrongly(tmp_path: Path) -> None:
    def last_line(*arguments: str) -> str:
        result = subprocess.run([_SCRIPTS / "install.sh", *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 1
        return result.stderr

    assert "say what and where to" in last_line()
    assert "repository's root" in last_line("dependencies", "/nowhere")


_REQUIREMENTS = """\
# a comment
numpy==1.26.4 ; python_full_version < '3.11' \\
    --hash=sha256:00
numpy==2.4.6 ; python_full_version >= '3.11' \\
    --hash=sha256:00
appnope==1.0.0 ; sys_platform == 'darwin' \\
    --hash=sha256:00
apache-beam[gcp]==2.74.0 \\
    --hash=sha256:00
"""


@pytest.mark.parametrize(("stack", "numpy"), [("tfx-1.16", "1.26.4"), ("tfx-1.21", "2.4.6")])
def test_audit_looks_at_what_a_stack_installs(stack: str, numpy: str) -> None:
    assert audit.installed(_REQUIREMENTS, stack) == [f"numpy=={numpy}", "apache-beam==2.74.0"]


def report(*packages: dict[str, object]) -> dict[str, object]:
    return {"dependencies": list(packages), "fixes": []}


def vulnerable(package: str, identifier: str) -> dict[str, object]:
    entry = {"id": identifier, "aliases": [f"CVE-{identifier}"], "fix_versions": ["2"], "description": ""}
    return {"name": package, "version": "1", "vulns": [entry]}


def test_audit_reads_vulnerabilities_of_a_report() -> None:
    (found,) = audit.vulnerabilities(report(vulnerable("a", "X"), {"name": "b", "version": "1", "vulns": []}))
    assert str(found) == "a 1: X, mended in 2"
    assert found.identifiers == ("X", "CVE-X")


def test_audit_passes_nothing_silently_when_the_database_lacks_a_package() -> None:
    skipped = {"name": "b", "skip_reason": "Dependency not found on PyPI"}
    with pytest.raises(audit.NotScannedError, match="1 of 2 packages, such as b"):
        audit.vulnerabilities(report(vulnerable("a", "X"), skipped))


def test_audit_tells_what_an_upgrade_would_mend_from_what_bounds_hold() -> None:
    found = audit.vulnerabilities(report(vulnerable("a", "X"), vulnerable("b", "Y")))
    upgraded = audit.vulnerabilities(report({"name": "a", "version": "2", "vulns": []}, vulnerable("b", "CVE-Y")))
    assert [entry.package for entry in audit.mendable(found, upgraded)] == ["a"]


def test_audit_accepts_only_with_a_reason() -> None:
    assert audit.read_ignored("# why\n\nX  never called\n") == {"X": "never called"}
    with pytest.raises(ValueError, match="line 1: X has no reason"):
        audit.read_ignored("X\n")


def test_ignored_vulnerabilities_all_have_a_reason() -> None:
    audit.read_ignored((REPOSITORY / "infra/audit-ignore.txt").read_text())


def test_sbom_has_what_a_stack_installs_and_how_it_depends() -> None:
    def component(reference: str, marker: str | None) -> dict[str, object]:
        properties = [{"name": "uv:package:marker", "value": marker}] if marker else []
        return {"bom-ref": reference, "name": reference, "version": "1", "properties": properties}

    everything = {
        "bomFormat": "CycloneDX",
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [component("old", "python_full_version < '3.11'"), component("any", None)],
        "dependencies": [{"ref": "root", "dependsOn": ["old", "any"]}, {"ref": "old", "dependsOn": ["any"]}],
    }
    document = sbom.sbom_of("tfx-1.21", everything)
    assert [component["name"] for component in document["components"]] == ["any"]
    assert document["dependencies"] == [{"ref": "root", "dependsOn": ["any"]}]
    assert document["bomFormat"] == "CycloneDX"
