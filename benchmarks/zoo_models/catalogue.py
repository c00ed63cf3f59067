"""The zoo: every model's name, builder, input and answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["BACKENDS", "COLUMNS", "FORMATS", "ZOO", "Animal"]

FORMATS = {"onnx": "ONNX", "tflite": "TFLite", "openvino": "OpenVINO"}
"""Parts that are a file format."""

BACKENDS = {"onnx": "onnxruntime/cpu", "tflite": "litert/xnnpack", "openvino": "openvino/cpu"}
"""What runs each."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "own": ("taken", "groups", "teacher"),
    **dict.fromkeys(FORMATS, ("float32", "dynamic-int8", "int8", "predict")),
}
"""The columns of each part of a model's cells."""


@dataclass(frozen=True)
class Animal:
    """A model. ``inputs`` are shapes without the batch axis; ``answers`` are ``kind:size``, one for each output.

    Where ``tokens`` isn't zero, inputs are token ids below it.
    """

    name: str
    title: str
    build: str  # module:function in this package
    inputs: tuple[tuple[int, ...], ...]
    answers: tuple[str, ...] = ("classification:10",)
    tokens: int = 0


_IMAGE = ((3, 32, 32),)
_LARGER = ((3, 64, 64),)

ZOO: tuple[Animal, ...] = (
    Animal("resnet_basic", "ResNet, basic blocks", "transformer_configs:resnet_basic", _LARGER),
    Animal("resnet_bottleneck", "ResNet, bottlenecks", "transformer_configs:resnet_bottleneck", _LARGER),
    Animal("resnet_v2", "ResNet v2, pre-activation", "convolutional:resnet_v2", _IMAGE),
    Animal("resnet_groupnorm", "ResNet, GroupNorm", "convolutional:resnet_groupnorm", _IMAGE),
    Animal("mobilenet_v1", "MobileNetV1", "transformer_configs:mobilenet_v1", _LARGER),
    Animal("mobilenet_v2", "MobileNetV2", "transformer_configs:mobilenet_v2", _LARGER),
    Animal("mobilenet_v3", "MobileNetV3", "convolutional:mobilenet_v3", _LARGER),
    Animal("efficientnet", "EfficientNet", "transformer_configs:efficientnet", _LARGER),
    Animal("shufflenet", "ShuffleNetV2", "convolutional:shufflenet", _IMAGE),
    Animal("densenet", "DenseNet", "convolutional:densenet", _IMAGE),
    Animal("squeezenet", "SqueezeNet", "convolutional:squeezenet", _LARGER),
    Animal("regnet", "RegNetY", "transformer_configs:regnet", _LARGER),
    Animal("convnext", "ConvNeXt", "transformer_configs:convnext", _IMAGE),
    Animal("ghostnet", "GhostNet", "convolutional:ghostnet", _IMAGE),
    Animal("repvgg", "RepVGG, unfused", "convolutional:repvgg", _IMAGE),
    Animal("unet", "U-Net", "dense:unet", _IMAGE, ("segmentation:4",)),
    Animal("dilated", "DeepLab, dilated", "dense:dilated", _LARGER, ("segmentation:4",)),
    Animal("fpn", "FPN, dense head", "dense:fpn", _LARGER, ("segmentation:4",)),
    Animal("ds_cnn", "DS-CNN, keywords", "sequences:ds_cnn", ((1, 49, 10),), ("classification:12",)),
    Animal("tcn", "TCN, sensors", "sequences:tcn", ((6, 1, 64),), ("classification:6",)),
    Animal("m5", "M5, raw audio", "sequences:m5", ((1, 1, 2048),), ("classification:12",)),
    Animal("gru", "GRU tagger", "sequences:gru_tagger", ((6, 1, 32),), ("segmentation:5",)),
    Animal("lstm", "LSTM tagger", "sequences:lstm_tagger", ((6, 1, 32),), ("segmentation:5",)),
    Animal("autoencoder", "Autoencoder", "sequences:autoencoder", ((1, 1, 64),), ("regression:64",)),
    Animal("vit", "ViT", "transformer_configs:vit", _IMAGE),
    Animal("deit", "DeiT", "transformer_configs:deit", _IMAGE),
    Animal("swin", "Swin", "transformer_configs:swin", _IMAGE),
    Animal("mobilevit", "MobileViT", "transformer_configs:mobilevit", _LARGER),
    Animal("mixer", "MLP-Mixer", "attention:mixer", _IMAGE),
    Animal("segformer", "SegFormer", "transformer_configs:segformer", _LARGER, ("segmentation:4",)),
    Animal("bert", "BERT classifier", "transformer_configs:bert", ((32,),), ("classification:4",), tokens=200),
    Animal(
        "distilbert", "DistilBERT classifier", "transformer_configs:distilbert", ((32,),), ("classification:4",), 200
    ),
    Animal("ast", "Audio transformer", "transformer_configs:audio_transformer", ((1, 64, 32),), ("classification:12",)),
    Animal("two_inputs", "Two inputs", "several:two_inputs", ((3, 32, 32), (4,))),
    Animal("two_outputs", "Two outputs", "several:two_outputs", _IMAGE, ("classification:10", "regression:2")),
    Animal("early_exit", "Early exit by value", "several:early_exit", _IMAGE),
)
