"""`image-folder`: a folder of pictures for each class.

::

    task: {kind: image-folder, root: pictures, size: 128}

Class folders are in ``root``, or in its folders ``train``, ``test`` and ``val`` (or ``valid``, ``validation``; upper
case too), with no other folder beside them. Splits without a folder are carved out of the training pictures. A class
may have subfolders. Files without a picture's suffix, and hidden ones, are counted and ignored.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.code_references import ExistingFolder
from edgekd.tasks.class_folders import find_classes
from edgekd.tasks.images.decoding import PICTURE_SUFFIXES
from edgekd.tasks.images.labelled_pictures import LabelledPictures
from edgekd.tasks.labelled_files import Found

__all__ = ["ImageFolder"]


class ImageFolder(LabelledPictures):
    """Options of `image-folder`, and those shared with other tasks of labelled pictures."""

    root: ExistingFolder

    def _title(self) -> str:
        return self.root.name

    def _origin(self) -> Path:
        return self.root

    def _list(self) -> Found:
        return find_classes(self.root, PICTURE_SUFFIXES, self.what)
