"""Networks of torchvision and transformers with random weights, and calls of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn

Case = tuple[nn.Module, Any]
"""A network in evaluation mode, and an example input."""


# torchvision's compiled operators load only beside the PyTorch that they were built for; nothing here needs
# them, but registering their shapes fails without them. transformers imports torchvision too.
sys.modules.setdefault("torchvision._meta_registrations", ModuleType("torchvision._meta_registrations"))


def torchvision_models() -> Any:
    """``torchvision.models``."""
    from torchvision import models

    return models


def make(name: str) -> Case:
    """A network whose every weight matters to its outputs, by its name in ``CASES``."""
    torch.manual_seed(0)
    module, example = CASES[name]()
    randomise(module)
    return module.eval(), example


def randomise(module: nn.Module) -> None:
    """Random values for weights that are initialised to zeros, ones or almost nothing."""
    generator = torch.Generator().manual_seed(1)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.dim() > 1:
                fan = max(weight[0].numel(), 1)
                weight.copy_(torch.randn(weight.shape, generator=generator) * max(fan**-0.5, 0.02))
            elif "bias" in name:
                uniform(weight, -0.2, 0.2)
            else:
                uniform(weight, 0.5, 1.5)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                uniform(buffer, -0.2, 0.2)
            elif name.endswith("running_var"):
                uniform(buffer, 0.8, 1.2)


def _vision(name: str, size: int = 224, **options: Any) -> Callable[[], Case]:
    def build() -> Case:
        models = torchvision_models()
        module = getattr(models, name, None) or getattr(models.segmentation, name)
        return module(weights=None, **options), torch.randn(1, 3, size, size)

    return build


class Lstm(nn.Module):
    """Two bidirectional layers, and a classifier of the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, 64)
        self.lstm = nn.LSTM(64, 96, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(192, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        steps, _ = self.lstm(self.embed(tokens))
        return self.head(steps[:, -1])


class Gru(nn.Module):
    """Two layers that begin with a given state and return their last one."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(40, 64, 2)
        self.head = nn.Linear(64, 12)

    def forward(self, frames: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        steps, state = self.gru(frames, state)
        return self.head(steps), state


class Step(nn.Module):
    """One step of GPT-2: a token, and the keys and values of those before it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, token: torch.Tensor, past: list[torch.Tensor]) -> dict[str, Any]:
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (keys, values) in enumerate(zip(past[::2], past[1::2], strict=True)):
            cache.update(keys, values, layer)
        logits = self.model(token, past_key_values=cache, use_cache=True).logits
        return {
            "logits": logits,
            "past": [part for layer in cache.layers for part in (layer.keys, layer.values)],
        }


def _tokens(length: int, words: int = 1000) -> torch.Tensor:
    return torch.randint(0, words, (1, length))


def _text() -> dict[str, torch.Tensor]:
    """A sentence of 24 tokens, padded to 32."""
    mask = torch.ones(1, 32, dtype=torch.int64)
    mask[0, 24:] = 0
    return {"input_ids": _tokens(32), "attention_mask": mask}


def _bert() -> Case:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=1000, num_hidden_layers=4)
    return BertForSequenceClassification(config), {
        **_text(),
        "token_type_ids": torch.zeros(1, 32, dtype=torch.int64),
    }


def _distilbert() -> Case:
    from transformers import DistilBertConfig, DistilBertModel

    return DistilBertModel(DistilBertConfig(vocab_size=1000, n_layers=3)), _text()


def _vit() -> Case:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(num_hidden_layers=4, num_labels=1000)
    return ViTForImageClassification(config), {"pixel_values": torch.randn(1, 3, 224, 224)}


def _gpt2() -> Case:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=1000, n_layer=3)
    past = [torch.randn(1, 12, 15, 64) for _ in range(6)]
    return Step(GPT2LMHeadModel(config)), {"token": _tokens(1), "past": past}


def _gpt2_prompt() -> Case:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=1000, n_layer=3, use_cache=False)), {
        "input_ids": _tokens(16)
    }


def _whisper() -> Case:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(d_model=384, encoder_layers=2, encoder_attention_heads=6, encoder_ffn_dim=1536)
    return WhisperEncoder(config), torch.randn(1, 80, 3000)


def _clip_text() -> Case:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(vocab_size=1000, num_hidden_layers=4, eos_token_id=999, bos_token_id=998)
    ids = _tokens(77, 990)
    ids[0, 20:] = 999
    return CLIPTextModelWithProjection(config), {"input_ids": ids}


def _clip_vision() -> Case:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(num_hidden_layers=4)
    return CLIPVisionModelWithProjection(config), {"pixel_values": torch.randn(1, 3, 224, 224)}


def _t5() -> Case:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=1000, num_layers=4)), _text()


CASES: dict[str, Callable[[], Case]] = {
    "resnet18": _vision("resnet18"),
    "mobilenet_v3": _vision("mobilenet_v3_large"),
    "efficientnet_b0": _vision("efficientnet_b0"),
    "vit_b_16": _vision("vit_b_16"),
    "swin_t": _vision("swin_t"),
    "convnext_tiny": _vision("convnext_tiny"),
    "shufflenet": _vision("shufflenet_v2_x1_0"),
    "densenet121": _vision("densenet121"),
    "deeplabv3": _vision("deeplabv3_resnet50", 192, weights_backbone=None),
    "fcn": _vision("fcn_resnet50", 192, weights_backbone=None),
    "lstm": lambda: (Lstm(), _tokens(20)),
    "gru": lambda: (Gru(), [torch.randn(15, 1, 40), torch.randn(2, 1, 64)]),
    "bert": _bert,
    "distilbert": _distilbert,
    "vit": _vit,
    "gpt2_step": _gpt2,
    "gpt2_prompt": _gpt2_prompt,
    "whisper_encoder": _whisper,
    "clip_text": _clip_text,
    "clip_vision": _clip_vision,
    "t5_encoder": _t5,
}
