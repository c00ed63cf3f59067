"""Registry of backends: one record each, from the entry points of ``edgekd.backends``, edgekd's and plugins' alike.

A backend is a runtime with a provider or delegate: ``litert/xnnpack``. Its record states the file formats it loads, its
precisions, its abilities, how the runtime is found on a device, and how it is installed there. Every list of runtimes
or backends (target files, `edgekd init`, `doctor`, `devices install`, `bench`, the agent) comes from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from edgekd import plugins
from edgekd.artefacts import Backend, Format
from edgekd.errors import ConfigurationError, UnknownName, nearest_name
from edgekd.ir.numerics import Precision
from edgekd.records import Record

__all__ = [
    "BACKENDS",
    "SHIPPED",
    "Ability",
    "BackendSpec",
    "Home",
    "RuntimeSpec",
    "asked_of_agent",
    "backend_hint",
    "can",
    "formats_of",
    "runtimes",
]

Ability = Literal["execute", "measure", "simulate"]
"""``execute``: answers samples. ``measure``: its calls are timed where it runs. ``simulate``: its figures are estimates
of a compiler, by its model of the hardware."""


SHIPPED = frozenset({"litert/xnnpack", "litert/builtin", "onnxruntime/cpu", "openvino/cpu"})
"""Backends of edgekd itself. Their runtimes are a part of every device's identity: another one here changes it for all
devices that have its runtime (`edgekd.devices._protocol.Fingerprint.identity`)."""


class Home(Record):
    """Python package that provides a runtime on a device."""

    module: str  # looked for, not imported: ai_edge_litert
    distributions: tuple[str, ...]  # pip's names of packages that may hold it; the first whose metadata is there counts
    requirements: tuple[str, ...] = ()  # for pip, of `edgekd devices install`; empty: not installed by name
    imports: str = ""  # imported once after installing, to see that it works there; empty: ``module``


class RuntimeSpec(Record):
    """A runtime: how it is found and installed on a device, and the agent's module that drives it.

    The agent's module is Python 3.8, imports numpy, the runtime and `edgekd.agent.runtimes.base`, and has ``PROVIDERS``
    and ``open_runtime(provider, threads)``.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    homes: tuple[Home, ...] = ()  # the first one found is used; none: it is no Python package, and no agent drives it
    agent: str = ""  # importable here, shipped to the device; empty: edgekd's own module of this name

    @property
    def package(self) -> str:
        """Name in pip, or the runtime's own if pip has none."""
        return self.homes[0].distributions[0] if self.homes else self.name

    @property
    def installs(self) -> Mapping[str, Home]:
        """Homes by their names in `edgekd devices install --runtime`: the first by the runtime's, others by pip's."""
        named = {self.name if not place else home.distributions[0]: home for place, home in enumerate(self.homes)}
        return {name: home for name, home in named.items() if home.requirements}


class BackendSpec(Record):
    """A runtime with one way of execution."""

    runtime: RuntimeSpec
    provider: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    formats: Annotated[tuple[Format, ...], Field(min_length=1)]  # that it loads, the native one first
    precisions: tuple[Precision, ...]  # that it has at all; an operator of a given model may still rule one out
    can: Annotated[frozenset[Ability], Field(min_length=1)] = frozenset({"execute", "measure"})
    reference: bool = False  # its kernels are for reference: never the default of its runtime, and not profiled
    delegates: bool = False  # operators run in several places, and the runtime tells in which
    agent: str = ""  # importable here, shipped to the device: drives this provider in the place of the runtime's module
    example: str = ""  # lines of a bundle's example.py that answer `inputs`, a list: see `edgekd.bundle.example`
    example_heads: str = ""  # in the place of the last of them, where a model has several outputs

    @model_validator(mode="after")
    def _can_run(self) -> BackendSpec:
        if "execute" in self.can and not self.runtime.homes:
            raise ValueError("a backend that executes needs `homes`: the package that brings its runtime")
        if "execute" in self.can and not (self.agent or self.runtime.agent or self.name in SHIPPED):
            raise ValueError(
                "a backend that executes needs `agent`, its own or its runtime's: the module that drives it on a device"
            )
        if "execute" in self.can and not (self.example and self.example_heads):
            raise ValueError(
                "a backend that executes needs `example` and `example_heads`: lines of a bundle's example.py that set "
                "`answer`, and `answers` by name"
            )
        return self

    @property
    def driver(self) -> str:
        """Name of the agent's module that drives it: the runtime's, or with an ``agent`` of its own the provider's."""
        return f"{self.runtime.name}__{self.provider.replace('-', '_')}" if self.agent else self.runtime.name

    @property
    def name(self) -> str:
        """Name in target files."""
        return f"{self.runtime.name}/{self.provider}"


class _Registered(Mapping[str, BackendSpec]):
    """All backends by name, edgekd's own runtimes first, each runtime's default first. Loaded on first use.

    Raises MissingError if a package's record can't be imported, and ConfigurationError if it is not a record.
    """

    def __getitem__(self, name: str) -> BackendSpec:
        return _loaded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_loaded())

    def __len__(self) -> int:
        return len(_loaded())


BACKENDS: Mapping[str, BackendSpec] = _Registered()


@cache
def _loaded() -> Mapping[str, BackendSpec]:
    found: dict[str, BackendSpec] = {}
    for name in plugins.names("edgekd.backends"):
        spec = plugins.load("edgekd.backends", name)
        if not isinstance(spec, BackendSpec) or spec.name != name:
            whose = isinstance(spec, BackendSpec)
            what = f"the record of `{spec.name}`" if whose else f"an object of type {type(spec).__name__}"
            raise ConfigurationError.one(
                f"the entry point `{name}` of edgekd.backends gives {what}",
                f"expected a BackendSpec of edgekd.ir.backends that is called `{name}`: ask the package's author",
            )
        found[name] = spec
    if not found:
        raise ConfigurationError.one(
            "no backend is registered, not even edgekd's own: its installed metadata is older than its code",
            "install it again: pip install --no-deps -e . in its folder",
        )
    return {spec.name: spec for spec in sorted(found.values(), key=_place)}


def _place(spec: BackendSpec) -> tuple[bool, str, bool, str]:
    own = spec.name in SHIPPED  # a format's default is never another package's
    return not own, spec.runtime.name, spec.reference, spec.provider


@cache
def runtimes() -> Mapping[str, RuntimeSpec]:
    """Return all runtimes by name. Raises ConfigurationError if two packages describe one name differently."""
    found: dict[str, RuntimeSpec] = {}
    for spec in BACKENDS.values():
        if found.setdefault(spec.runtime.name, spec.runtime) != spec.runtime:
            raise ConfigurationError.one(
                f"two packages describe a runtime `{spec.runtime.name}`, and differently",
                "uninstall one of them, or ask its author to rename it",
            )
    return found


def formats_of(backend: Backend) -> tuple[Format, ...]:
    """Return the formats that a backend loads, the native one first. Raises UnknownName if it isn't registered."""
    try:
        return BACKENDS[str(backend)].formats
    except KeyError:
        raise UnknownName("backend", str(backend), BACKENDS, remedy=backend_hint(str(backend), near=False)) from None


def can(backend: Backend, *abilities: Ability) -> bool:
    """True where a backend's record has all of these abilities; False on one that isn't registered."""
    spec = BACKENDS.get(str(backend))
    return spec is not None and spec.can.issuperset(abilities)


def backend_hint(name: str, near: bool = True) -> str:
    """Return a suggestion for an unknown backend name, with a trailing space; empty if there is none.

    ``near``: suggest the nearest name too.
    """
    first = name.partition("/")[0]
    for backend, spec in BACKENDS.items():
        native = spec.formats[0]
        if first in (native.value, native.suffix.removeprefix(".")):
            return f"{native.suffix} files run on `{backend}` "
        if first == spec.runtime.name and first == name:
            return f"did you mean `{backend}`? "
    found = nearest_name(name, BACKENDS) if near else None
    return f"did you mean `{found}`? " if found else ""


def asked_of_agent() -> Mapping[str, Any]:
    """Return what to look for on a device, as JSON: by runtime its providers and homes [module, [distributions]]."""
    return {
        name: {
            "providers": [spec.provider for spec in BACKENDS.values() if spec.runtime.name == name],
            "homes": [[home.module, list(home.distributions)] for home in runtime.homes],
        }
        for name, runtime in runtimes().items()
        if runtime.homes
    }
