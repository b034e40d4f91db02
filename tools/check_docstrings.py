"""Checks the docstrings of all public names by numpydoc, and prints NAME: CODE MESSAGE for each fault.

The package is imported, not read, because the docstrings of its functions are completed at import.
"""

import sys
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from inspect import isclass, isfunction, isroutine

from numpydoc.validate import validate

MODULES = ("fastkl", "fastkl.capi", "fastkl.compat.scipy", "fastkl.compat.sklearn", "fastkl.compat.torch")
IGNORED = {
    "ES01": "a second paragraph stands only where there is more to say than what is returned",
    "GL01": "ruff wants the first line right after the quotes",
    "GL02": "a docstring that is completed at import ends without the line break of the source",
}
IGNORED_OF_MEMBERS = {"SA01": "the class refers to what is related", "EX01": "the class has an example"}
# Users do not construct these: their fields are described as attributes, and what returns or raises them has the examples.
NOT_CONSTRUCTED = ("fastkl.Comparison", "fastkl.InvalidRowError")
IGNORED_OF_THEM = {"PR01", "EX01"}


def public() -> Iterator[tuple[str, set[str]]]:
    """Yield the public functions, classes, methods and properties, and the checks that are ignored for each."""
    for module in MODULES:
        for name in import_module(module).__all__:
            value = getattr(import_module(module), name)
            if isclass(value) and issubclass(value, Enum):
                continue  # Cython gives its enums no docstring
            if isclass(value) or isroutine(value):
                whole = f"{module}.{name}"
                yield whole, {*IGNORED, *(IGNORED_OF_THEM if whole in NOT_CONSTRUCTED else ())}
            for member, what in vars(value).items() if isclass(value) else ():
                if not member.startswith("_") and (isfunction(what) or isinstance(what, property | classmethod)):
                    yield f"{module}.{name}.{member}", {*IGNORED, *IGNORED_OF_MEMBERS}


if __name__ == "__main__":
    faults = [(name, *fault) for name, ignored in public() for fault in validate(name)["errors"] if fault[0] not in ignored]
    for name, code, message in faults:
        print(f"{name}: {code} {message}")
    sys.exit(bool(faults))
