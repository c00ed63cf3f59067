"""Tasks on images: arrays, folders, lists, detection and segmentation formats."""
