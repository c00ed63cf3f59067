"""References in a project file: files beside it, and code to run (``my_model:build``).

Relative paths are relative to the file they are written in. A code reference imports a module from the project's
folder: a stranger's project is a stranger's code.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from edgekd.agent.faults import is_shortage, is_want_of_memory
from edgekd.errors import ConfigurationError, EdgeKDError, Place, nearest_name
from edgekd.records import Record

__all__ = [
    "CodeReference",
    "ExistingFile",
    "ExistingFolder",
    "exit_of",
    "importable",
    "no_exit",
    "projects_frame",
    "quiet_imports",
    "running",
]


def _anchored(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    full = path if path.is_absolute() or folder is None else Path(folder) / path
    if full.exists() and not full.is_file():
        kind = "a folder" if full.is_dir() else "a pipe or a device"
        raise PydanticCustomError("no_file", "{reason}", {"reason": f"{full} is {kind}; a file is expected"})
    if not full.is_file():
        siblings = [p.name for p in full.parent.iterdir()] if full.parent.is_dir() else []
        near = nearest_name(full.name, siblings)
        hint = f"; did you mean `{near}`?" if near else ""
        raise PydanticCustomError("no_file", "{reason}", {"reason": f"no such file: {full}{hint}"})
    return full.parent.resolve() / full.name  # a link keeps its name: what it points to may have no suffix


ExistingFile = Annotated[Path, AfterValidator(_anchored)]
"""A path that must exist; made absolute with the validation context's ``folder``."""


def _anchored_folder(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    full = path if path.is_absolute() or folder is None else Path(folder) / path
    if not full.is_dir():
        raise PydanticCustomError("no_folder", "{reason}", {"reason": f"no such folder: {full}"})
    return full.resolve()


ExistingFolder = Annotated[Path, AfterValidator(_anchored_folder)]
"""A folder that must exist; made absolute as an `ExistingFile` is."""


class CodeReference(Record):
    """Reference ``module:attribute``, with the folder it is imported from.

    As a field it is written as that text, and its folder comes from the validation context's ``folder``.
    """

    target: str
    folder: Path

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return value
        reference = cls.parse(value, Path((info.context or {}).get("folder", ".")))
        return {"target": reference.target, "folder": reference.folder}

    @classmethod
    def parse(cls, text: str, folder: Path) -> CodeReference:
        """Parse ``module:attribute`` or ``my.py:build``. Raises ValueError on another text."""
        module, colon, attribute = text.partition(":")
        if not colon or not module or not attribute.isidentifier():
            raise ValueError(f"`{text}` is not a code reference. Write module:function, for example my_model:build")
        if module.endswith(".py"):
            path = Path(module[:-3])
            if "." in path.name:
                raise ValueError(f"`{module}` can't be imported: a module's name has no dot but that of .py")
            folder, module = (folder / path).resolve().parent, path.name
        return cls(target=f"{module}:{attribute}", folder=folder.resolve())

    def resolve(self) -> Callable[..., Any]:
        """Import it. Raises ConfigurationError, for a missing module or for one that fails while importing."""
        module_name, _, attribute = self.target.partition(":")
        self._forget_namesake(module_name.partition(".")[0])
        quiet_imports()
        with importable(self.folder):
            try:
                module = importlib.import_module(module_name)
            except ModuleNotFoundError as error:
                if error.name != module_name:
                    raise ConfigurationError.one(
                        f"`{self.target}`: importing it needs `{error.name}`", f"install {error.name}"
                    ) from error
                near = nearest_name(module_name, [p.stem for p in self.folder.glob("*.py")])
                hint = f"did you mean `{near}`?" if near else "write the module, or correct the name"
                raise ConfigurationError.one(
                    f"`{self.target}`: no module `{module_name}` in {self.folder}", hint
                ) from error
            except (Exception, SystemExit) as error:  # a person's code may raise anything while it is imported
                if _is_the_machines(error):
                    raise
                raise ConfigurationError.one(
                    f"`{self.target}`: importing it failed: {type(error).__name__}: {error}", "correct the module"
                ) from error
        found = getattr(module, attribute, None)
        if not callable(found):
            near = nearest_name(attribute, [name for name in vars(module) if not name.startswith("_")])
            hint = f"did you mean `{near}`?" if near else f"define a function `{attribute}` there"
            raise ConfigurationError.one(f"`{self.target}`: {module_name} has no function `{attribute}`", hint)
        function: Callable[..., Any] = found
        return function

    def _forget_namesake(self, top: str) -> None:
        """Forget a module of the same name from another folder: two projects may both have a ``model.py``."""
        here = [path for path in (self.folder / f"{top}.py", self.folder / top / "__init__.py") if path.is_file()]
        if not here:
            return
        if top in sys.stdlib_module_names:
            raise ConfigurationError.one(
                f"`{self.target}`: {top} is a module of Python's own library", f"rename {here[0].name}"
            )
        loaded = sys.modules.get(top)
        source = getattr(loaded, "__file__", None)
        if loaded is not None and source is not None and Path(source).resolve() not in [p.resolve() for p in here]:
            for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
                del sys.modules[name]
        importlib.invalidate_caches()


def quiet_imports() -> None:
    """Silence warnings of `torchao`, which Transformers imports where it is installed, as it is with edgekd.

    It names GPU kernels that don't load here, and torch its enumerations: nothing that concerns a person's model.
    """
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Put the folder first on the import path for the context; the working folder is restored at the end."""
    before = Path.cwd()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        os.chdir(before)  # relative paths of the command line are relative to the caller's folder
        if str(folder) in sys.path:  # the person's code may have taken it off
            sys.path.remove(str(folder))


@contextmanager
def running(reference: CodeReference, remedy: str) -> Iterator[None]:
    """Context of a call of the referenced function: its folder is on the import path.

    Raises ConfigurationError on any error of the function, and where it calls ``sys.exit``; errors of edgekd, lack of
    memory and a full disk unchanged.
    """
    try:
        with no_exit(), importable(reference.folder):
            yield
    except EdgeKDError:
        raise
    except Exception as error:  # a person's code may raise anything
        if _is_the_machines(error):
            raise
        raise ConfigurationError.one(
            f"`{reference.target}()` failed: {type(error).__name__}: {error}", remedy
        ) from error


def _is_the_machines(error: BaseException) -> bool:
    """Tell whether code failed because of the machine (memory, disk), and not of the code itself."""
    return is_want_of_memory(error) or is_shortage(error)


@contextmanager
def no_exit() -> Iterator[None]:
    """Context for a person's code: ``sys.exit`` there would end the command. Raises as `exit_of` says."""
    try:
        yield
    except SystemExit as error:
        raise exit_of(error) from error


def exit_of(error: SystemExit) -> EdgeKDError:
    """Error in place of a SystemExit: a ConfigurationError at the line of a person's code which ended the process.

    Where no such line is found, it is an error of edgekd.
    """
    said = "" if error.code is None else error.code
    frame = projects_frame(error)
    if frame is None:
        return EdgeKDError(f"the command was ended by sys.exit({said})", "see where with -v")
    return ConfigurationError.one(
        f"`{frame.name}` ended the process: sys.exit({said})",
        "let it return, or raise an error; arguments of the command line are not its own to read",
        Place(frame.filename, frame.lineno or 0, excerpt=(frame.line or "").strip()),
    )


def projects_frame(error: BaseException) -> traceback.FrameSummary | None:
    """Innermost frame of a person's code in an error's traceback; None where edgekd and libraries alone ran."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_a_persons(frame.filename)]
    return frames[-1] if frames else None


def _is_a_persons(file: str) -> bool:
    path = Path(file)
    own = [Path(__file__).parent, Path(sysconfig.get_path("stdlib"))]
    return (
        path.is_absolute()
        and {"site-packages", "dist-packages"}.isdisjoint(path.parts)
        and not any(map(path.is_relative_to, own))
    )
