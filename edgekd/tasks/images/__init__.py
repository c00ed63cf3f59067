"""Image tasks: arrays, folders, lists, detection and segmentation formats."""
