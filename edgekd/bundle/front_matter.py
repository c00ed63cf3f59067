"""Front matter of a model card: the YAML block by which the Hugging Face Hub files, filters and lists a model.

Fields: https://huggingface.co/docs/hub/model-cards (model card metadata). ``license``, ``base_model`` and ``datasets``
are left out: they are facts about a person's model and data that edgekd doesn't know.
"""

from __future__ import annotations

from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from edgekd.artefacts import Format
from edgekd.ir.numerics import Precision
from edgekd.tasks._protocol import TaskSpec

__all__ = ["front_matter"]

_PIPELINES = {"detection": "object-detection", "segmentation": "image-segmentation"}
_METRICS = {"top1": "accuracy"}  # the Hub's name of a metric, where it is another


def front_matter(
    task: TaskSpec, title: str, form: Format, precision: Precision, accuracy: float | None, scored: str
) -> list[str]:
    """Lines of the block. ``title`` names the model, ``scored`` says what ``accuracy`` (0 to 1) was scored on.

    ``accuracy`` None: it was not scored, and no result is listed.
    """
    pipeline = _pipeline(task)
    fields: dict[str, Any] = {"library_name": form.value, "tags": ["edgekd", form.value, precision.value]}
    if pipeline:
        fields["pipeline_tag"] = pipeline
    if accuracy is not None:
        metric = _METRICS.get(task.metric.name, task.metric.name)
        result = {
            "task": {"type": pipeline or task.kind},
            "dataset": {"name": task.name, "type": task.name},
            "metrics": [{"type": metric, "value": round(accuracy, 6), "name": f"{task.metric.name}, {scored}"}],
        }
        fields |= {"metrics": [metric], "model-index": [{"name": title, "results": [result]}]}
    yaml, text = YAML(pure=True), StringIO()
    yaml.width = 1_000
    yaml.dump(fields, text)
    return ["---", *text.getvalue().splitlines(), "---", ""]


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
