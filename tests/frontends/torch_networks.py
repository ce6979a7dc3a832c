"""Networks of many kinds, with random weights, that are timed beside other runtimes (``bench_networks``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.frontends.torch_zoo import Case, torchvision_models


def _vision(name: str, size: int = 224, **options: Any) -> Callable[[], Case]:
    def build() -> Case:
        models = torchvision_models()
        make = getattr(models, name, None) or getattr(models.segmentation, name)
        return make(weights=None, **options), torch.randn(1, 3, size, size)

    return build


class _Ssdlite(nn.Module):
    """The backbone and heads, without the choice of boxes."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import detection

        model = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
        self.backbone, self.head = model.backbone, model.head

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.head(list(self.backbone(image).values()))
        return found["bbox_regression"], found["cls_logits"]


class _Unet(nn.Module):
    """Five levels with 32 to 512 channels; transposed convolutions on the way up."""

    def __init__(self) -> None:
        super().__init__()
        widths = [32, 64, 128, 256, 512]
        self.down = nn.ModuleList(map(self._block, [3, *widths[:-1]], widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in reversed(widths[:-1]))
        self.join = nn.ModuleList(self._block(2 * w, w) for w in reversed(widths[:-1]))
        self.last = nn.Conv2d(widths[0], 1, 1)

    @staticmethod
    def _block(before: int, after: int) -> nn.Module:
        layers: list[nn.Module] = []
        for inputs in (before, after):
            layers += [nn.Conv2d(inputs, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, reversed(kept[:-1]), strict=True):
            x = join(torch.cat([up(x), skip], 1))
        return self.last(x)


class _SuperResolution(nn.Module):
    """Residual blocks, and pixels from channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 3, 9, padding=4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.PReLU(64), nn.Conv2d(64, 64, 3, padding=1))
            for _ in range(4)
        )
        self.up = nn.Sequential(nn.Conv2d(64, 256, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(64))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = start = self.first(image)
        for block in self.blocks:
            x = x + block(x)
        return self.last(self.up(x + start))


class _Tcn(nn.Module):
    """Conv-TasNet's blocks: dilated 1-d convolutions of each channel between products and normalisations."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(40, 128, 1)
        self.blocks = nn.ModuleList(self._block(2**i) for i in range(6))

    @staticmethod
    def _block(dilation: int) -> nn.Module:
        deep = nn.Conv1d(256, 256, 3, padding=dilation, dilation=dilation, groups=256)
        norms = [nn.GroupNorm(1, 256), nn.GroupNorm(1, 256)]
        wide = [nn.Conv1d(128, 256, 1), nn.PReLU(), norms[0]]
        return nn.Sequential(*wide, deep, nn.PReLU(), norms[1], nn.Conv1d(256, 128, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return x


class _Recurrent(nn.Module):
    """Two bidirectional layers of 256 cells over 100 steps."""

    def __init__(self, layer: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.layers = layer(128, 256, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(512, 40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x)[0])


def _generator() -> Case:
    """DCGAN's."""
    layers: list[nn.Module] = []
    channels = 100
    for level, width in enumerate((512, 256, 128, 64)):
        place = (1, 0) if level == 0 else (2, 1)
        layers += [
            nn.ConvTranspose2d(channels, width, 4, *place, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels = width
    model = nn.Sequential(*layers, nn.ConvTranspose2d(64, 3, 4, 2, 1), nn.Tanh())
    return model, torch.randn(1, 100, 1, 1)


def _video() -> Case:
    from torchvision.models import video

    return video.r3d_18(weights=None), torch.randn(1, 3, 8, 112, 112)


def _whisper() -> Case:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    tiny = {"d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536}
    return WhisperEncoder(WhisperConfig(**tiny)), torch.randn(1, 80, 3000)


def _t5() -> Case:
    from transformers import T5Config, T5EncoderModel

    words = torch.randint(0, 30000, (1, 128))
    return T5EncoderModel(T5Config()), {"input_ids": words, "attention_mask": torch.ones_like(words)}


def _wav2vec2() -> Case:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    return Wav2Vec2Model(Wav2Vec2Config(num_hidden_layers=6)), torch.randn(1, 32000)


def _gpt2() -> Case:
    """Six of GPT-2's layers on a prompt of 64 tokens; each sees the tokens before it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=6, use_cache=False))
    return model, {"input_ids": torch.randint(0, 50000, (1, 64))}


def _vit() -> Case:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(num_labels=1000)), torch.randn(1, 3, 224, 224)


NETWORKS: dict[str, Callable[[], Case]] = {
    "convnext_tiny": _vision("convnext_tiny"),
    "dcgan": _generator,
    "deeplabv3_mobilenet": _vision("deeplabv3_mobilenet_v3_large", 256, weights_backbone=None),
    "densenet121": _vision("densenet121"),
    "efficientnet_b0": _vision("efficientnet_b0"),
    "googlenet": _vision("googlenet", init_weights=False, aux_logits=False),
    "gpt2": _gpt2,
    "gru": lambda: (_Recurrent(nn.GRU), torch.randn(1, 100, 128)),
    "inception_v3": _vision("inception_v3", 299, init_weights=False, aux_logits=False),
    "lstm": lambda: (_Recurrent(nn.LSTM), torch.randn(1, 100, 128)),
    "maxvit_t": _vision("maxvit_t"),
    "mnasnet": _vision("mnasnet1_0"),
    "mobilenet_v3": _vision("mobilenet_v3_large"),
    "r3d_18": _video,
    "regnet_y_400mf": _vision("regnet_y_400mf"),
    "resnext50": _vision("resnext50_32x4d"),
    "shufflenet_v2": _vision("shufflenet_v2_x1_0"),
    "squeezenet": _vision("squeezenet1_1"),
    "ssdlite": lambda: (_Ssdlite(), torch.randn(1, 3, 320, 320)),
    "super_resolution": lambda: (_SuperResolution(), torch.randn(1, 3, 96, 96)),
    "swin_t": _vision("swin_t"),
    "t5_encoder": _t5,
    "tcn": lambda: (_Tcn(), torch.randn(1, 40, 400)),
    "unet": lambda: (_Unet(), torch.randn(1, 3, 256, 256)),
    "vgg16": _vision("vgg16"),
    "vit_b_16": _vit,
    "wav2vec2": _wav2vec2,
    "whisper_tiny": _whisper,
}
"""By name: what makes a network and an example input."""
