"""Plug-in folders: every module of a package is one member, named after itself.

There is no registry to edit. A member is found by its module name, so adding one is adding one file.
"""

import importlib
import pkgutil
from types import ModuleType


def member_names(package: str) -> tuple[str, ...]:
    """Returns the sorted names of the members of plug-in `package` (a dotted module path)."""
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return tuple(sorted(info.name for info in found if not info.name.startswith("_")))


def require_member(package: str, name: str, kind: str) -> None:
    """Checks that there is a member of that name, without importing it.

    Args:
      package: Dotted path of the plug-in package.
      name: Module name of the member.
      kind: What a member is called in an error, for example "scheme".

    Raises:
      ValueError: If there is no such member; the message lists those there are.
    """
    names = member_names(package)
    if name not in names:
        path = package.replace(".", "/")
        raise ValueError(f"unknown {kind} {name!r}: there are {', '.join(names)}; to add one, create {path}/<name>.py")


def load_member(package: str, name: str, kind: str) -> ModuleType:
    """Imports member `name` of plug-in `package`; arguments and errors as `require_member`."""
    require_member(package, name, kind)
    return importlib.import_module(f"{package}.{name}")


def load_user_module(path: str, required: tuple[str, ...]) -> ModuleType:
    """Imports a user's module and checks that it offers what is needed.

    Args:
      path: Its dotted path.
      required: Names that it must define.

    Raises:
      ValueError: If it cannot be imported or misses a name.
    """
    try:
        module = importlib.import_module(path)
    except Exception as error:  # whatever the user's code raises
        raise ValueError(
            f"module {path!r} cannot be imported: {type(error).__name__}: {error}; give the dotted path of an"
            " installed module that imports nothing that is missing"
        ) from error
    missing = [name for name in required if not hasattr(module, name)]
    if missing:
        raise ValueError(f"module {path} does not define {', '.join(missing)}; see pipelines/tasks/__init__.py")
    return module
