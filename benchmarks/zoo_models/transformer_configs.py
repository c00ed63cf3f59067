"""Models of `transformers`, from small configurations: random weights, nothing downloaded.

They answer with records; an `Answering` takes the logits out of those, as a person who uses such a model does.
"""

from __future__ import annotations

from typing import Any

import transformers
from torch import Tensor, nn

__all__ = [
    "audio_transformer",
    "bert",
    "convnext",
    "deit",
    "distilbert",
    "efficientnet",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilevit",
    "regnet",
    "resnet_basic",
    "resnet_bottleneck",
    "segformer",
    "swin",
    "vit",
]


class Answering(nn.Module):
    """The logits of a model that answers with a record. ``squeezed``: the channel axis is taken off its input."""

    def __init__(self, model: nn.Module, squeezed: bool = False) -> None:
        super().__init__()
        self.model, self.squeezed = model, squeezed

    def forward(self, inputs: Tensor) -> Any:
        return self.model(inputs.squeeze(1) if self.squeezed else inputs).logits


def resnet_basic() -> nn.Module:
    """He et al. 2016, figure 2."""
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64], depths=[2, 1, 1], layer_type="basic", num_labels=10
    )
    return Answering(transformers.ResNetForImageClassification(config))


def resnet_bottleneck() -> nn.Module:
    """He et al. 2016, figure 5."""
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[32, 64, 128], depths=[2, 1, 1], layer_type="bottleneck", num_labels=10
    )
    return Answering(transformers.ResNetForImageClassification(config))


def mobilenet_v1() -> nn.Module:
    """Howard et al. 2017, with TensorFlow's padding."""
    config = transformers.MobileNetV1Config(image_size=64, depth_multiplier=0.25, num_labels=10)
    return Answering(transformers.MobileNetV1ForImageClassification(config))


def mobilenet_v2() -> nn.Module:
    """Sandler et al. 2018, with TensorFlow's padding."""
    config = transformers.MobileNetV2Config(image_size=64, depth_multiplier=0.35, num_labels=10)
    return Answering(transformers.MobileNetV2ForImageClassification(config))


def efficientnet() -> nn.Module:
    """Tan and Le 2019: padding before strided depthwise convolutions, SiLU, squeeze and excitation."""
    config = transformers.EfficientNetConfig(
        image_size=64,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        kernel_sizes=[3, 3, 5],
        in_channels=[32, 8, 16],
        out_channels=[8, 16, 24],
        strides=[1, 2, 2],
        num_block_repeats=[1, 2, 2],
        expand_ratios=[1, 4, 4],
        hidden_dim=1280,
        num_labels=10,
    )
    return Answering(transformers.EfficientNetForImageClassification(config))


def regnet() -> nn.Module:
    """Radosavovic et al. 2020, with squeeze and excitation."""
    config = transformers.RegNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 2, 1], groups_width=8, layer_type="y", num_labels=10
    )
    return Answering(transformers.RegNetForImageClassification(config))


def convnext() -> nn.Module:
    """Liu et al. 2022: LayerNorm over channels, GELU, a scale a channel."""
    config = transformers.ConvNextConfig(
        hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 2, 1], patch_size=2, image_size=32, num_labels=10
    )
    return Answering(transformers.ConvNextForImageClassification(config))


_SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}


def vit() -> nn.Module:
    """Dosovitskiy et al. 2021: a class token and learned positions."""
    config = transformers.ViTConfig(**_SMALL, image_size=32, patch_size=8, num_labels=10)
    return Answering(transformers.ViTForImageClassification(config))


def deit() -> nn.Module:
    """Touvron et al. 2021: a distillation token beside the class token."""
    config = transformers.DeiTConfig(**_SMALL, image_size=32, patch_size=8, num_labels=10)
    return Answering(transformers.DeiTForImageClassificationWithTeacher(config))


def swin() -> nn.Module:
    """Liu et al. 2021: attention in shifted windows."""
    config = transformers.SwinConfig(
        image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, num_labels=10
    )
    return Answering(transformers.SwinForImageClassification(config))


def mobilevit() -> nn.Module:
    """Mehta and Rastegari 2022: convolutions and attention over unfolded patches."""
    config = transformers.MobileViTConfig(
        image_size=64, hidden_sizes=[24, 32, 40], neck_hidden_sizes=[8, 8, 16, 24, 32, 40, 80], num_labels=10
    )
    return Answering(transformers.MobileViTForImageClassification(config))


def segformer() -> nn.Module:
    """Xie et al. 2021: a class for every fourth pixel."""
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 3, 4],
        decoder_hidden_size=32,
        num_labels=4,
    )
    return Answering(transformers.SegformerForSemanticSegmentation(config))


def bert() -> nn.Module:
    """Devlin et al. 2019; takes token ids."""
    config = transformers.BertConfig(**_SMALL, vocab_size=200, max_position_embeddings=64, num_labels=4)
    return Answering(transformers.BertForSequenceClassification(config))


def distilbert() -> nn.Module:
    """Sanh et al. 2019; takes token ids."""
    config = transformers.DistilBertConfig(
        dim=48, n_layers=2, n_heads=3, hidden_dim=96, vocab_size=200, max_position_embeddings=64, num_labels=4
    )
    return Answering(transformers.DistilBertForSequenceClassification(config))


def audio_transformer() -> nn.Module:
    """Gong et al. 2021, on 64 frames of 32 mel bands."""
    config = transformers.ASTConfig(
        **_SMALL, patch_size=8, frequency_stride=8, time_stride=8, max_length=64, num_mel_bins=32, num_labels=12
    )
    return Answering(transformers.ASTForAudioClassification(config), squeezed=True)
