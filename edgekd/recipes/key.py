"""Recipe keys: digests of the student with its weights, the task's data, the teacher, the seed, and the stages."""

from __future__ import annotations

import hashlib

import torch

from edgekd.records import Digest, digest_json
from edgekd.stages import Stage, StageContext
from edgekd.students._protocol import Student

__all__ = ["chain", "student_digest"]


def student_digest(student: Student) -> Digest:
    """Return the identity of a student: family, arch, annotations, task, and every parameter and buffer."""
    described = {
        "family": student.family,
        "options": dict(student.options),
        "arch": student.arch.model_dump(mode="json"),
        "annotations": student.annotations.digest(),
        "task": student.task.digest(),
    }
    content = hashlib.sha256(digest_json(described).encode())
    for name, tensor in sorted(student.module.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        content.update(f"{name}:{plain.dtype}:{tuple(plain.shape)};".encode())
        content.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def chain(stages: tuple[Stage, ...], student: Student, context: StageContext) -> tuple[Digest, ...]:
    """Return the key after each stage, the digest of all inputs and of every stage up to it.

    Device and backend enter at the first stage whose result depends on them: a stage declares that it does not with a
    class variable ``per_backend = False``.
    """
    link = digest_json(
        {
            "student": student_digest(student),
            "data": context.task.spec.data,
            "task": context.task.spec.digest(),
            "teacher": context.teacher.digest() if context.teacher is not None else None,
            "seed": context.seed,
            **({"keeps_start": True} if context.keeps_start else {}),
        }
    )
    where = {
        "device": context.device.digest() if context.device is not None else None,
        "backend": str(context.backend) if context.backend is not None else None,
    }
    keys = []
    for stage in stages:
        if getattr(stage, "per_backend", True):
            link = digest_json({"inputs": link, **where})
        link = stage.key(link)
        keys.append(link)
    return tuple(keys)
