"""What decides a component's result besides its inputs and parameters: versions and source code.

The cache key of a component hashes its execution properties, not its code; so these go into the properties.
"""

import hashlib
import importlib
import json
from functools import cache
from importlib import metadata
from pathlib import Path

_DISTRIBUTIONS = ("tensorflow", "tf-keras", "tensorflow-model-optimization")
_PACKAGE = "tfx-qat"


@cache
def versions() -> dict[str, str]:
    """Returns the version of each distribution that decides what a model becomes, by its name.

    This package's own version carries a hash of its sources, so that a change in a working copy counts too.
    """
    found = {name: metadata.version(name) for name in _DISTRIBUTIONS}
    sources = sorted(Path(__file__).parent.parent.rglob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    return {_PACKAGE: f"{metadata.version(_PACKAGE)}+{digest}", **found}


def versions_json() -> str:
    """Returns `versions` as canonical JSON."""
    return json.dumps(versions(), sort_keys=True, separators=(",", ":"))


def module_sha256(path: str) -> str:
    """Returns the sha256 of the source of the module of that dotted path."""
    source = importlib.import_module(path).__file__
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""
