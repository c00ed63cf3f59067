"""Signals: what edgekd gives them is (N, C, 1, T), which the models take the height off."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["autoencoder", "ds_cnn", "gru_tagger", "lstm_tagger", "m5", "tcn"]


def ds_cnn() -> nn.Module:
    """Zhang et al. 2017, small: 49 frames of 10 coefficients, separable convolutions."""
    layers: list[nn.Module] = [nn.Conv2d(1, 32, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
        layers += [nn.Conv2d(32, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(0.4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 12))


class Signal(nn.Module):
    """A network on (N, C, T) behind an input of (N, C, 1, T)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.squeeze(2))


class Causal(nn.Module):
    """Two dilated convolutions that see the past alone, and a shortcut (Bai et al. 2018, figure 1b)."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.past = 2 * dilation
        self.conv1 = nn.Conv1d(inputs, outputs, 3, dilation=dilation)
        self.conv2 = nn.Conv1d(outputs, outputs, 3, dilation=dilation)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv1(functional.pad(x, (self.past, 0))))
        y = torch.relu(self.conv2(functional.pad(y, (self.past, 0))))
        return torch.relu(y + self.shortcut(x))


class Last(nn.Module):
    """What a causal network says in the end."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classes = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(x[:, :, -1])


def tcn() -> nn.Module:
    """Bai et al. 2018: 64 steps of six sensors."""
    return Signal(nn.Sequential(Causal(6, 16, 1), Causal(16, 16, 2), Causal(16, 24, 4), Last(24, 6)))


def m5() -> nn.Module:
    """Dai et al. 2017: a classifier of raw audio."""
    layers: list[nn.Module] = [nn.Conv1d(1, 16, 80, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(4)]
    layers += [nn.Conv1d(16, 16, 3), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(4)]
    layers += [nn.Conv1d(16, 32, 3), nn.BatchNorm1d(32), nn.ReLU(), nn.AdaptiveAvgPool1d(1)]
    return Signal(nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 12)))


class Tagger(nn.Module):
    """A class for every step: (N, C, 1, T) to (N, classes, 1, T)."""

    def __init__(self, recurrent: nn.GRU | nn.LSTM, width: int, classes: int) -> None:
        super().__init__()
        self.recurrent, self.classes = recurrent, nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.recurrent(x.squeeze(2).transpose(1, 2))
        return self.classes(states).transpose(1, 2).unsqueeze(2)


def gru_tagger() -> nn.Module:
    """Cho et al. 2014, one layer."""
    return Tagger(nn.GRU(6, 24, batch_first=True), 24, 5)


def lstm_tagger() -> nn.Module:
    """Hochreiter and Schmidhuber 1997, one layer."""
    return Tagger(nn.LSTM(6, 24, batch_first=True), 24, 5)


def autoencoder() -> nn.Module:
    """Dense layers with BatchNorm, through 8 numbers, as MLPerf Tiny's anomaly detector is."""

    def unit(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]

    layers = [*unit(64, 32), *unit(32, 32), *unit(32, 8), *unit(8, 32), *unit(32, 32)]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(32, 64))
