"""What decides a component's result besides its inputs and parameters: versions and source code.

The cache key of a component hashes its execution properties, not its code; so these go into the properties.
"""

import hashlib
import importlib
import json
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

_DISTRIBUTIONS = (
    "numpy",
    "tensorflow",
    "tensorflow-model-analysis",
    "tensorflow-transform",
    "tf-keras",
    "tfx",
)
_PACKAGE = "tfx-qat"
SOURCES_NOTE = "what stands behind the + of tfx-qat is a digest of its Python sources, no commit"
"""What to say where that version is shown."""


@cache
def versions() -> dict[str, str]:
    """Returns the version of each distribution that decides what a model becomes, by its name.

    This package's own version carries a hash of its sources, so that a change in a working copy counts too.
    """
    found = {name: metadata.version(name) for name in _DISTRIBUTIONS}
    own = _sources_sha256(Path(__file__).parent.parent)[:12]
    return {_PACKAGE: f"{metadata.version(_PACKAGE)}+{own}", **found}


def version_facts() -> dict[str, str]:
    """Returns `versions` under the names that facts of models have, such as tf_keras_version."""
    return {f"{name.replace('-', '_')}_version": version for name, version in versions().items()}


def process_facts() -> dict[str, str]:
    """Returns what this process runs on, as facts of the models that it trains; no cache key has them."""
    return {"training_python_version": platform.python_version(), "training_platform": platform.platform()}


def versions_json() -> str:
    """Returns `versions` as canonical JSON."""
    return json.dumps(versions(), sort_keys=True, separators=(",", ":"))


def module_sha256(path: str) -> str:
    """Returns the sha256 of the sources that a module of that dotted path is likely to import.

    Those are all of its top-level package, or the module alone if it is in none. A change in another package of the
    user's is not noticed, unless the version of a distribution named above changes with it.
    """
    source = importlib.import_module(path).__file__
    package = importlib.import_module(path.split(".")[0])
    if hasattr(package, "__path__"):
        return _sources_sha256(Path(package.__path__[0]))
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""


def _sources_sha256(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*.py")):
        digest.update(path.relative_to(directory).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
