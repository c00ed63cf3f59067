"""A person's own PyTorch model: built by a function they name, weights read from safetensors or .npz."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgekd.errors import ConfigurationError, Problem, nearest_name
from edgekd.records import Digest
from edgekd.references import CodeReference, importable

__all__ = ["built_module", "load_weights", "read_weights", "source_file", "state_digest"]

_SHOWN = 3


def built_module(reference: CodeReference, weights: Path | None) -> nn.Module:
    """Call the function, load the weights, eval mode, no gradients.

    Raises ConfigurationError where the function fails or gives no module, or the weights are another model's.
    """
    function = reference.resolve()
    try:
        with importable(reference.folder):
            module = function()
    except Exception as error:  # a person's code may raise anything
        raise ConfigurationError.one(
            f"`{reference.target}()` failed: {type(error).__name__}: {error}",
            "it is called without arguments and must return a torch.nn.Module",
        ) from error
    if not isinstance(module, nn.Module):
        raise ConfigurationError.one(
            f"`{reference.target}()` returned {type(module).__name__}, and a torch.nn.Module was expected",
            "return the model itself",
        )
    if weights is not None:
        load_weights(module, weights)
    return module.eval().requires_grad_(False)


def load_weights(module: nn.Module, path: Path) -> None:
    """Put a file's weights into a module. Raises ConfigurationError that names what is missing, left over or misshapen.

    A ``module.`` in front of every name (from DataParallel) is taken off; batch counters may be absent.
    """
    found, expected = read_weights(path), module.state_dict()
    if found and all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): value for name, value in found.items()}
    missing = [name for name in expected if name not in found and not name.endswith("num_batches_tracked")]
    extra = [name for name in found if name not in expected]
    shaped = [name for name in expected if name in found and expected[name].shape != found[name].shape]
    problems = []
    if missing:
        problems.append(Problem(f"{path.name} lacks {_listed(missing)}", _near(missing[0], extra)))
    if extra:
        problems.append(
            Problem(f"{path.name} has {_listed(extra)}, which the model does not", _near(extra[0], missing))
        )
    problems += [
        Problem(f"{path.name}: `{name}` is {tuple(found[name].shape)}, and the model has {tuple(expected[name].shape)}")
        for name in shaped[:_SHOWN]
    ]
    if problems:
        raise ConfigurationError(problems)
    module.load_state_dict(found, strict=False)


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Every tensor of a .safetensors or .npz file. Raises ConfigurationError on other files and on damaged ones."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: torch.from_numpy(np.asarray(archive[name])) for name in archive.files}
    except Exception as error:  # numpy's reader hands on whatever zip, zlib and a damaged header raise
        raise ConfigurationError.one(
            f"{path} can't be read: {error}", "write it again; only plain arrays are read"
        ) from error
    raise ConfigurationError.one(
        f"weights are read from .safetensors or .npz files, and this is {path.name}",
        'write one with safetensors.torch.save_file(model.state_dict(), "weights.safetensors")',
    )


def state_digest(module: nn.Module) -> Digest:
    """Digest of all parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def source_file(reference: CodeReference) -> Path:
    """The file a code reference's module lives in. Code it imports in turn is not looked at."""
    module = reference.target.partition(":")[0].replace(".", "/")
    for candidate in (reference.folder / f"{module}.py", reference.folder / module / "__init__.py"):
        if candidate.is_file():
            return candidate
    import importlib.util

    spec = importlib.util.find_spec(reference.target.partition(":")[0])
    if spec is None or spec.origin is None:
        raise ConfigurationError.one(f"`{reference.target}`: its source can't be found", "name a Python file")
    return Path(spec.origin)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _near(name: str, others: Sequence[str]) -> str:
    near = nearest_name(name, others)
    return f"is `{name}` the other's `{near}`?" if near else "use the weights this model was saved with"
