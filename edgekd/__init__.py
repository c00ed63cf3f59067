"""edgekd: make an image model small and fast enough for a device, and prove it by measurement.

``edgekd.search("project.yaml")``: every function of :mod:`edgekd.api` is here too. Importing this package loads neither
torch nor a runtime, nor that module.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekd import api as api
    from edgekd.api import (
        begin,
        bench,
        bench_devices,
        check,
        compare,
        compress,
        devices,
        distill,
        doctor,
        export,
        export_model,
        export_table,
        import_tables,
        install,
        losses,
        new_target,
        predict,
        probe,
        profile,
        replay,
        report,
        runs,
        search,
        silent,
        tables,
        target,
        targets,
        trials,
        verify,
    )
    from edgekd.version import __version__ as __version__

__all__ = [
    "__version__",
    "api",
    "begin",
    "bench",
    "bench_devices",
    "check",
    "compare",
    "compress",
    "devices",
    "distill",
    "doctor",
    "export",
    "export_model",
    "export_table",
    "import_tables",
    "install",
    "losses",
    "new_target",
    "predict",
    "probe",
    "profile",
    "replay",
    "report",
    "runs",
    "search",
    "silent",
    "tables",
    "target",
    "targets",
    "trials",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module `edgekd` has no attribute `{name}`")
    try:
        return importlib.import_module(f"edgekd.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"edgekd.{name}":
            raise
    return getattr(importlib.import_module("edgekd.version" if name == "__version__" else "edgekd.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Room(ModuleType):
    """A package with the name of a function of `edgekd.api`, and calls it: ``edgekd.search`` is both."""

    @property
    def __call__(self) -> Any:
        return getattr(importlib.import_module("edgekd.api"), self.__name__.rpartition(".")[2])

    @property
    def __signature__(self) -> Any:
        import inspect

        return inspect.signature(self.__call__)


class _Edgekd(ModuleType):
    """This package. Python binds ``edgekd.search`` to the package of that name as soon as anything imports it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in __all__ and name != "api" and isinstance(value, ModuleType):
            value.__class__ = _Room
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Edgekd
