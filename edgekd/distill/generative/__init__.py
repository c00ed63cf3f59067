"""Distillation through generative models: without any training image, or where there are few."""
