"""BatchNorm folding: a BatchNorm that is the only reader of a convolution or linear layer becomes part of it.

With running statistics m, v and affine g, b: ``W' = W g / sqrt(v + eps)``, ``c' = (c - m) g / sqrt(v + eps) + b``
(Jacob et al. 2018, section 3.2). The order of operators comes from the exported graph, so that any module folds whose
layers compute with their own weight and bias, including their own padding; a folded BatchNorm becomes an `nn.Identity`.
A BatchNorm over an image that no convolution can absorb (after a sum, before an activation) becomes a depthwise 1 x 1
convolution with the same numbers, for which every runtime has an integer kernel. An average pool over the whole image
is replaced by an adaptive one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from edgekd.errors import ConfigurationError, first_line
from edgekd.ir.operators import aten_operator
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import InputSpec

__all__ = ["fold_module", "folded", "no_graph"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_TOLERANCE = 1e-3  # of the largest output
_OTHER_INPUTS = ("'indices'", "missing a required argument", "required positional argument")  # in torch's errors
_FIXED_BATCH = "Constraints violated (batch)"
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def folded(student: Student) -> Student:
    """Return a copy in eval mode with every foldable BatchNorm folded. The given student is not changed."""
    return student.but(module=fold_module(student.module, student.task.input))


def fold_module(module: nn.Module, given: InputSpec) -> nn.Module:
    """Return a folded copy of a module for this input; an unfolded one if folding would change its outputs.

    Raises ConfigurationError if it can't be exported.
    """
    result = copy.deepcopy(module).eval()
    _pool_to_one_pixel(result, given)
    modules = dict(result.named_modules())
    if not any(isinstance(part, _NORMS) for part in modules.values()):
        return result
    unfolded = copy.deepcopy(result)
    program = _exported(result, given)
    image = torch.from_numpy(given.random(0))
    before = _answers(result, image)
    pairs = _pairs(result, program)
    for source, norm in pairs:
        _fold(result, source, norm)
    for norm in _alone(result, program, {norm for _, norm in pairs}):
        _replace(result, norm, _depthwise(result.get_submodule(norm)))
    same = all(map(_is_close, _answers(result, image), before))
    return result if same else unfolded  # a file is compared with the folded copy alone


def _pool_to_one_pixel(module: nn.Module, given: InputSpec) -> None:
    """Replace each average pool over the whole image by an adaptive one to a single pixel.

    In `ceil_mode` a window may be larger than the image: TFLite's converter pads the image to it, and OpenVINO refuses
    it.
    """
    pools = {
        name: part
        for name, part in module.named_modules()
        if type(part) is nn.AvgPool2d and part.padding in (0, (0, 0)) and part.divisor_override is None
    }
    whole = dict.fromkeys(pools, True)

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            window = pools[name].kernel_size
            height, width = (window, window) if isinstance(window, int) else window
            fits = height >= inputs[0].shape[-2] and width >= inputs[0].shape[-1]
            whole[name] &= fits and output.shape[-2:] == (1, 1)

        return hook

    hooks = [pool.register_forward_hook(look(name)) for name, pool in pools.items()]
    if hooks:
        try:
            _answers(module, torch.from_numpy(given.example()))
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
            raise no_graph("the module", error) from error
    for hook in hooks:
        hook.remove()
    for name in (name for name, is_whole in whole.items() if is_whole):
        _replace(module, name, nn.AdaptiveAvgPool2d(1))


def _answers(module: nn.Module, image: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [leaf for leaf in pytree.tree_leaves(module(image.clone())) if isinstance(leaf, Tensor)]


def _is_close(found: Tensor, expected: Tensor) -> bool:
    limit = _TOLERANCE * max(1e-6, float(torch.nan_to_num(expected).abs().max())) if expected.numel() else 0.0
    return torch.allclose(found, expected, rtol=0.0, atol=limit, equal_nan=True)


def _exported(module: nn.Module, given: InputSpec) -> ExportedProgram:
    try:
        with torch.no_grad():
            return torch.export.export(module, (torch.from_numpy(given.example()),))
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:  # torch's own errors are among these
        raise no_graph("the module", error) from error


def no_graph(called: str, error: Exception) -> ConfigurationError:
    """Return the error for a module that torch.export can't trace with one image as its input."""
    reason = first_line(error)
    remedy = "torch.export needs a forward pass without branches on values; check it with torch.export.export"
    if any(words in reason for words in _OTHER_INPUTS):
        remedy = (
            "one input of the task is given here: several need a name each, as arrays of an .npz, a mapping of arrays "
            "in a task, or a shape, --input"
        )
    elif _FIXED_BATCH in reason:
        reason = "its forward pass fixes the number of images"
        remedy = "write images.shape[0] for len(images) and int(...) of it, and -1 where a size is of the batch"
    return ConfigurationError.one(f"{called} can't be turned into a graph: {reason}", remedy)


def _pairs(module: nn.Module, program: ExportedProgram) -> list[tuple[str, str]]:
    """Return (path of a convolution or linear layer, path of the BatchNorm that reads all of its output)."""
    modules, parameters = dict(module.named_modules(remove_duplicate=False)), _tensors_read(module, program)
    plain = _plain_norms(module, program)
    found = []
    for node in program.graph.nodes:
        if not _computes(node) or plain.get(_path(node)) != 1:
            continue
        source = node.args[0]
        if not isinstance(source, fx.Node) or not _computes(source) or len(source.users) != 1:
            continue
        layer, norm = modules.get(_path(source)), modules[_path(node)]
        if not isinstance(layer, _LAYERS) or norm.running_mean is None:
            continue
        if isinstance(layer, nn.Linear) and source.meta["val"].dim() != 2:
            continue  # the norm is over the second axis, and the layer's features are the last
        if _computes_with_its_own(source, layer, parameters) and _can_change(module, program, layer):
            found.append((_path(source), _path(node)))
    return found


def _tensors_read(module: nn.Module, program: ExportedProgram) -> Mapping[str, Tensor]:
    """Return the parameter of each placeholder: under which of its names a program reads one is by chance."""
    known = dict(module.named_parameters(remove_duplicate=False))
    return {place: known[name] for place, name in program.graph_signature.inputs_to_parameters.items()}


def _plain_norms(module: nn.Module, program: ExportedProgram) -> Mapping[str, int]:
    """Return the number of calls of each BatchNorm that computes exactly what torch's own does, children included."""
    own = {
        name: part
        for name, part in module.named_modules(remove_duplicate=False)
        if isinstance(part, _NORMS) and _forward_is_torchs(part)
    }
    operators = dict[str, list[str]]()
    for node in program.graph.nodes:
        if _computes(node):
            for path, _ in (node.meta.get("nn_module_stack") or {}).values():
                operators.setdefault(path, []).append(getattr(node.target, "_opname", ""))
    calls = dict[nn.Module, list[str]]()
    for name, part in own.items():
        calls.setdefault(part, []).extend(operators.get(name, ()))
    return {name: len(calls[part]) for name, part in own.items() if set(calls[part]) == {"batch_norm"}}


def _forward_is_torchs(norm: nn.Module) -> bool:
    return any(type(norm).forward is kind.forward for kind in _NORMS)


def _alone(module: nn.Module, program: ExportedProgram, gone: set[str]) -> list[str]:
    """Return the paths of the remaining BatchNorms with statistics that are only applied to images."""
    modules, ranks = dict(module.named_modules(remove_duplicate=False)), dict[str, set[int]]()
    plain = _plain_norms(module, program)
    for node in program.graph.nodes:
        if _computes(node) and _path(node) in plain and isinstance(modules[_path(node)], nn.BatchNorm2d):
            ranks.setdefault(_path(node), set()).add(node.args[0].meta["val"].dim())
    return [
        path
        for path, dims in ranks.items()
        if path not in gone and dims == {4} and modules[path].running_mean is not None
    ]


def _fold(root: nn.Module, source: str, norm: str) -> None:
    layer, batch_norm = root.get_submodule(source), root.get_submodule(norm)
    assert isinstance(layer, _LAYERS)
    assert isinstance(batch_norm, _NORMS)
    assert batch_norm.running_mean is not None
    mean = batch_norm.running_mean.double()
    gain, offset = _gain(batch_norm)
    bias = layer.bias.detach().double() if layer.bias is not None else torch.zeros_like(mean)
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    along = [1] * layer.weight.dim()
    along[axis] = -1
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter((layer.weight.detach().double() * gain.view(along)).to(dtype))
    layer.bias = nn.Parameter(((bias - mean) * gain + offset).to(dtype))
    _replace(root, norm, nn.Identity())


def _gain(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return factor and offset of a BatchNorm: ``(x - mean) * factor + offset``; each float64 (channels,)."""
    assert isinstance(norm, _NORMS)
    assert norm.running_var is not None
    gain = torch.rsqrt(norm.running_var.double() + norm.eps)
    if not norm.affine:
        return gain, torch.zeros_like(gain)
    return gain * norm.weight.detach().double(), norm.bias.detach().double()


def _depthwise(norm: nn.Module) -> nn.Conv2d:
    """Return the depthwise convolution equivalent to a BatchNorm."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    (gain, offset), channels = _gain(norm), norm.num_features
    layer = nn.Conv2d(channels, channels, 1, groups=channels, device=norm.running_mean.device)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.copy_(gain.view(-1, 1, 1, 1))
        layer.bias.copy_(offset - norm.running_mean.double() * gain)
    return layer.eval()


def _replace(root: nn.Module, path: str, module: nn.Module) -> None:
    """Replace a module under all its names."""
    old = root.get_submodule(path)
    for alias in [name for name, part in root.named_modules(remove_duplicate=False) if part is old]:
        parent, _, name = alias.rpartition(".")
        setattr(root.get_submodule(parent), name, module)


def _computes_with_its_own(node: fx.Node, layer: nn.Module, parameters: Mapping[str, Tensor]) -> bool:
    """Return whether a node is a layer's only product, with its weight unchanged, and its bias if it has one.

    A layer without a bias gets one: its class must use it, as torch's own do. Padding before the product is allowed.
    """
    if not aten_operator(getattr(node.target, "_opname", "")).weighted:
        return False
    if isinstance(layer, nn.ConvTranspose2d) and layer.groups > 1:
        return False
    given = [node.args[place] if len(node.args) > place else None for place in (1, 2)]
    weight, bias = (parameters.get(part.name) if isinstance(part, fx.Node) else None for part in given)
    has_bias = layer.bias is not None
    return weight is layer.weight and bias is layer.bias and (has_bias or _hands_on_bias(layer))


def _hands_on_bias(layer: nn.Module) -> bool:
    """Return whether a layer's class uses ``self.bias``: torch's own do, others are inspected."""
    forward = type(layer).forward
    if any(forward is kind.forward for kind in _LAYERS) or "_conv_forward" in forward.__code__.co_names:
        return True
    return "bias" in forward.__code__.co_names


def _can_change(root: nn.Module, program: ExportedProgram, layer: nn.Module) -> bool:
    """Return whether a layer's weight and bias may be replaced: no other has its weight, which is used once."""
    shared = {name for name, value in root.named_parameters(remove_duplicate=False) if value is layer.weight}
    owners = {root.get_submodule(name.rpartition(".")[0]) for name in shared}
    signature = program.graph_signature.inputs_to_parameters
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and signature.get(node.name) in shared]
    return owners == {layer} and sum(len(node.users) for node in nodes) == 1


def _computes(node: fx.Node) -> bool:
    return bool(node.op == "call_function")


def _path(node: fx.Node) -> str:
    stack = [entry[0] for entry in (node.meta.get("nn_module_stack") or {}).values()]
    return str(stack[-1]) if stack else ""
