"""Weights of a person's own PyTorch model: built by a named function, loaded from .safetensors, .npz, .pt or .pth.

A .pt file is read with ``weights_only=True`` only: it gives tensors, and no code in it runs.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgekd.code_references import CodeReference, running
from edgekd.errors import ConfigurationError, Problem, first_line, nearest_name
from edgekd.records import Digest, digest_file

__all__ = [
    "built_module",
    "forget_own_weights",
    "frozen",
    "load_weights",
    "model_digests",
    "read_weights",
    "source_file",
    "state_digest",
    "tie_equal_weights",
]

_SHOWN = 3
_SAFE = 'write one with safetensors.torch.save_file(model.state_dict(), "weights.safetensors")'
_PICKLED = (".pt", ".pth", ".bin", ".ckpt")
_INSIDE = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Keys of the model's weights in checkpoints of trainings."""
_WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes that DataParallel, torch.compile and trainers add to every name."""


def built_module(
    reference: CodeReference, weights: Path | None, notice: Callable[[str], None] = lambda _: None
) -> nn.Module:
    """Call the function, load the weights; float32, eval mode, no gradients. ``notice`` is called about a cast.

    Raises ConfigurationError if the function fails or returns no module, or the weights don't fit or aren't finite.
    """
    function = reference.resolve()
    words = "it is called without arguments and must return a torch.nn.Module"
    with running(reference, words), torch.no_grad():  # what `weight_norm` computes can then be copied
        module = function()
    if not isinstance(module, nn.Module):
        raise ConfigurationError.one(
            f"`{reference.target}()` returned {type(module).__name__}, and a torch.nn.Module was expected",
            "return the model itself",
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise ConfigurationError.one(
            f"`{reference.target}()` returned a TorchScript module, and its layers can't be read one by one",
            "return the model it was made from, before torch.jit.script or torch.jit.trace",
        )
    if weights is not None:
        load_weights(module, weights)
    damaged = [name for name, values in module.named_parameters() if not bool(torch.isfinite(values).all())]
    if damaged:
        raise ConfigurationError.one(
            f"`{reference.target}()`: the weights {_listed(damaged)} are NaN or infinite",
            f"write {weights.name} again from a model that works" if weights else "return a model that works",
        )
    return frozen(module, f"{reference.target}()", notice)


def frozen(module: nn.Module, called: str, notice: Callable[[str], None]) -> nn.Module:
    """Return a module in eval mode, frozen, float32. ``notice`` is called about a cast."""
    others = {str(t.dtype).removeprefix("torch.") for t in module.state_dict().values() if _is_cast(t)}
    if others:
        notice(f"`{called}` is {' and '.join(sorted(others))}: cast to float32")
        module = module.float()
    return module.eval().requires_grad_(False)


def _is_cast(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype is not torch.float32


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a file's weights into a module. Raises ConfigurationError naming missing, extra or misshapen tensors.

    Prefixes of wrappers (``module.`` from DataParallel) are removed. Batch counters, and all but one name of tied
    weights, may be absent.
    """
    expected = module.state_dict()
    found = _unwrapped(read_weights(path), expected)
    tied = {(one.data_ptr(), one.shape) for name, one in expected.items() if name in found and one.numel()}
    missing = [
        name
        for name, one in expected.items()
        if name not in found and not name.endswith("num_batches_tracked") and (one.data_ptr(), one.shape) not in tied
    ]
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
    """Read every tensor of a .safetensors, .npz or .pt file. Raises ConfigurationError for others and damaged ones."""
    if path.suffix in _PICKLED:
        return _of_checkpoint(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: torch.from_numpy(np.asarray(archive[name])) for name in archive.files}
    except Exception as error:  # numpy's reader passes on errors of zip, zlib and damaged headers
        raise ConfigurationError.one(
            f"{path} can't be read: {error}", "write it again; only plain arrays are read"
        ) from error
    raise ConfigurationError.one(
        f"weights are read from .safetensors, .npz, .pt and .pth files, and this is {path.name}", _SAFE
    )


def _of_checkpoint(path: Path) -> Mapping[str, Tensor]:
    """Return the state dict in a file of torch.save, possibly in a checkpoint beside an optimizer's state."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged zip files and streams raise many kinds
        named = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if named is None:
            script = "TorchScript" in str(error)
            raise ConfigurationError.one(
                f"{path} is a TorchScript archive, no state dict"
                if script
                else f"{path} can't be read: {first_line(error)}",
                'write it again: torch.save(model.state_dict(), "weights.pt")',
            ) from error
        raise ConfigurationError.one(
            f"{path} holds more than tensors ({named[1]}): a whole pickled model, or other Python objects. "
            "Reading it would run code in it, so it is not read",
            'save the weights alone: torch.save(model.state_dict(), "weights.pt"), or as .safetensors',
        ) from error
    if _is_state(loaded):
        return dict(loaded)
    inside = {name: part for name, part in loaded.items() if _is_state(part)} if isinstance(loaded, Mapping) else {}
    named_so = [name for name in _INSIDE if name in inside] or list(inside)
    if len(named_so) == 1:
        return dict(inside[named_so[0]])
    held = f"has {_listed(list(map(str, loaded)))}" if isinstance(loaded, Mapping) else f"is {type(loaded).__name__}"
    raise ConfigurationError.one(
        f"{path} {held}, and a state dict was expected: tensors by name",
        'save the weights alone: torch.save(model.state_dict(), "weights.pt")',
    )


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(part, Tensor) for part in value.values())


def _unwrapped(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    while found and not set(found) & set(expected):
        wrapper = next((w for w in _WRAPPERS if all(name.startswith(w) for name in found)), None)
        if wrapper is None:
            break
        found = {name.removeprefix(wrapper): value for name, value in found.items()}
    return found


def state_digest(module: nn.Module) -> Digest:
    """Return the digest of all parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def model_digests(reference: CodeReference, weights: Path | None) -> tuple[Digest, Digest | None]:
    """Return the digests of a model's source and of its weights: the file, or the tensors that the function returns.

    The latter is None where the function draws weights at random, from a seed of its own too. Each arch of a search
    asks, so they are kept until the file changes, or `forget_own_weights`. Raises as `built_module`.
    """
    source = source_file(reference)
    if weights is None:
        return _content(source), _own_weights(reference, *_changed(source))
    return _content(source), _content(weights)


def forget_own_weights() -> None:
    """Have functions called again that load weights themselves: what they read may have changed since."""
    _own_weights.cache_clear()


def _content(path: Path) -> Digest:
    return _content_of(path, *_changed(path))


def _changed(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=16)
def _content_of(path: Path, changed_ns: int, size: int) -> Digest:  # noqa: ARG001  # part of the cache key
    return digest_file(path)


@lru_cache(maxsize=4)
def _own_weights(reference: CodeReference, changed_ns: int, size: int) -> Digest | None:  # noqa: ARG001  # as above
    reference.resolve()
    with torch.random.fork_rng(devices=[]), _unseeded():
        torch.seed()
        first = state_digest(built_module(reference, None))
        torch.seed()
        second = state_digest(built_module(reference, None))
    return first if first == second else None


@contextmanager
def _unseeded() -> Iterator[None]:
    """Ignore `torch.manual_seed`: with it, random weights would be the same each time, as trained ones are."""
    kept = torch.manual_seed, torch.random.manual_seed
    torch.manual_seed = torch.random.manual_seed = lambda _: torch.default_generator  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.manual_seed, torch.random.manual_seed = kept


def tie_equal_weights(module: nn.Module) -> None:
    """Make weights (2 axes or more) of equal content one parameter, in place.

    Converters merge equal constants, and an encoding is found by the name of one.
    """
    kept: dict[torch.Size, list[nn.Parameter]] = {}
    for part in module.modules():
        for name, weight in [*part.named_parameters(recurse=False)]:
            if weight.dim() < 2:
                continue
            alike = kept.setdefault(weight.shape, [])
            same = next((other for other in alike if other is weight or torch.equal(other, weight)), None)
            if same is None:
                alike.append(weight)
            elif same is not weight:
                setattr(part, name, same)


def source_file(reference: CodeReference) -> Path:
    """Return the file of a code reference's module. Code that it imports is not included."""
    module = reference.target.partition(":")[0].replace(".", "/")
    for candidate in (reference.folder / f"{module}.py", reference.folder / module / "__init__.py"):
        if candidate.is_file():
            return candidate
    import importlib.util

    reference.resolve()  # has the best message for a wrong name
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
