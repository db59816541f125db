"""Writes what each stack consists of, as CycloneDX 1.5, into build/sbom: `make sbom`."""

import json
import sys
from pathlib import Path
from typing import Any

from packaging.markers import Marker

from infra.supply_chain import stacks

_DIRECTORY = Path("build/sbom")


def sbom_of(stack: str, everything: dict[str, Any]) -> dict[str, Any]:
    """The part of a CycloneDX document of all stacks that is installed in one of them."""
    components = [component for component in everything["components"] if _is_installed(component, stack)]
    root = everything["metadata"]["component"]["bom-ref"]
    kept = {root, *(component["bom-ref"] for component in components)}
    dependencies = [
        entry | {"dependsOn": [reference for reference in entry.get("dependsOn", []) if reference in kept]}
        for entry in everything["dependencies"]
        if entry["ref"] in kept
    ]
    return everything | {"components": components, "dependencies": dependencies}


def _is_installed(component: dict[str, Any], stack: str) -> bool:
    markers = [entry["value"] for entry in component.get("properties", []) if entry["name"] == "uv:package:marker"]
    return all(Marker(marker).evaluate(stacks.environment(stack)) for marker in markers)


def main() -> None:
    """Writes one file for each stack."""
    try:
        everything = json.loads(stacks.export("cyclonedx1.5"))
    except ValueError as error:
        sys.exit(f"make sbom: {error}")
    _DIRECTORY.mkdir(parents=True, exist_ok=True)
    for stack, python in stacks.STACKS.items():
        path = _DIRECTORY / f"{stack}.cdx.json"
        document = sbom_of(stack, everything)
        path.write_text(json.dumps(document, indent=2) + "\n")
        print(f"{path}: {len(document['components'])} packages on Python {python}")


if __name__ == "__main__":
    main()
