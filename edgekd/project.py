"""The project file, read into its parts: task, teacher, family, target, recipe, search and export options."""

from __future__ import annotations
