"""Front matter of a model card: the YAML block by which the Hugging Face Hub files and filters a model.

Fields: https://huggingface.co/docs/hub/model-cards (model card metadata). ``license``, ``base_model`` and ``datasets``
are left out: edgekd doesn't know them. So is ``model-index``, whose results name a data set of the Hub.
"""

from __future__ import annotations

from edgekd.artefacts import Format
from edgekd.ir.numerics import Precision
from edgekd.tasks._protocol import TaskSpec

__all__ = ["front_matter"]

_PIPELINES = {"detection": "object-detection", "segmentation": "image-segmentation"}


def front_matter(task: TaskSpec, form: Format, precision: Precision) -> list[str]:
    """Lines of the block, an empty one behind it."""
    pipeline = _pipeline(task)
    tags = ", ".join(("edgekd", form.value, precision.value))
    lines = [f"library_name: {form.value}", f"tags: [{tags}]", *([f"pipeline_tag: {pipeline}"] if pipeline else [])]
    lines += ["metrics: [accuracy]"] if task.metric.name == "top1" else []
    return ["---", *lines, "---", ""]


def _pipeline(task: TaskSpec) -> str:
    """The Hub's name of the task, or nothing where it has none: several kinds of heads, numbers, other signals."""
    kinds = {head.kind for head in task.heads}
    if kinds != {"classification"}:
        return _PIPELINES.get(kinds.pop(), "") if len(kinds) == 1 else ""
    if task.input.text is not None:
        return "text-classification"
    if task.input.sound is not None:
        return "audio-classification"
    return "image-classification" if task.input.is_image else ""
