"""Writes paddle3.zip: a program of Paddle 3, its parameters, inputs, and what Paddle computes from them.

Run it with paddlepaddle installed, which the tests do not need: python tests/frontends/data/paddle3.py
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn


class Net(nn.Layer):
    """Operators of convolutional networks and transformers, a result of each branch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2D(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2D(8)
        self.depthwise = nn.Conv2D(8, 8, 3, padding=[1, 0, 2, 1], groups=8)
        self.up = nn.Conv2DTranspose(8, 4, 2, stride=2)
        self.group = nn.GroupNorm(2, 8)
        self.instance = nn.InstanceNorm2D(8)
        self.prelu = nn.PReLU(8, 0.1)
        self.layer = nn.LayerNorm(16)
        self.dense = nn.Linear(8, 16)
        self.attention = nn.MultiHeadAttention(16, 2)
        self.words = nn.Embedding(10, 16)
        rng = np.random.default_rng(0)
        self.norm._mean.set_value(rng.normal(0, 0.3, 8).astype(np.float32))
        self.norm._variance.set_value(rng.uniform(0.5, 1.5, 8).astype(np.float32))

    def forward(self, x: Any, ids: Any) -> tuple[Any, ...]:
        y = F.relu6(self.norm(self.conv(x)))
        wide = F.hardswish(self.depthwise(y))
        wide = F.interpolate(wide, size=[8, 8], mode="bilinear", align_corners=False)
        y = F.max_pool2d(y, 3, 2, 1, ceil_mode=True)
        normal = self.group(y) + F.silu(self.instance(y)) * F.hardsigmoid(self.prelu(y))
        left, right = paddle.split(normal, 2, axis=1)
        joined = paddle.concat([right, F.tanh(left)], axis=1)
        t = self.dense(paddle.transpose(paddle.flatten(joined, 2), [0, 2, 1]))
        t = self.layer(t + self.words(ids))
        t = self.attention(t, t, t)
        t = (
            F.gelu(t)
            + F.gelu(t, approximate=True)
            + F.leaky_relu(t, 0.2)
            + F.elu(t)
            + F.softplus(t)
            + F.mish(t)
        )
        mean, top = paddle.mean(t, axis=[1]), paddle.max(t, axis=1, keepdim=True).squeeze(1)
        total = paddle.sum(t * t, axis=-1)
        up = self.up(joined)
        padded = F.pad(up, [1, 2, 0, 1], mode="reflect")
        limited = paddle.clip(padded, -0.5, 0.5) * 2 + paddle.where(padded > 0, padded, padded * 0.5)
        pair = paddle.stack([mean, top], axis=1)
        return (
            wide,
            F.avg_pool2d(y, 2, 2, exclusive=False),
            *paddle.topk(total, 3),
            paddle.argmax(t, axis=-1),
            paddle.expand(pair.unsqueeze(1), [-1, 2, -1, -1]),
            paddle.tile(mean, [1, 2]),
            F.pixel_shuffle(up, 2),
            limited[:, 1:3, ::2, -3:],
            paddle.gather(mean, paddle.to_tensor([3, 1]), axis=1),
            F.adaptive_avg_pool2d(wide, [2, 4]),
            F.interpolate(wide, scale_factor=2, mode="nearest"),
            paddle.cumsum(total, axis=1),
            paddle.rsqrt(total + 1) + paddle.pow(total, 1.5) + paddle.sqrt(total),
            t.reshape([0, -1, 8]),
            F.log_softmax(t, axis=-1),
            paddle.matmul(t, t, transpose_y=True),
        )


def main() -> None:
    paddle.seed(0)
    net, rng = Net(), np.random.default_rng(3)
    net.eval()
    feeds = {"x": rng.normal(0, 1, (2, 3, 16, 16)).astype(np.float32), "ids": rng.integers(0, 10, (2, 25))}
    results = net(*(paddle.to_tensor(value) for value in feeds.values()))
    with tempfile.TemporaryDirectory() as folder:
        specs = [
            paddle.static.InputSpec([None, *value.shape[1:]], str(value.dtype), name)
            for name, value in feeds.items()
        ]
        paddle.jit.save(net, f"{folder}/net", input_spec=specs)
        np.savez(f"{folder}/values.npz", **feeds, **{f"result{i}": r.numpy() for i, r in enumerate(results)})
        with zipfile.ZipFile(Path(__file__).with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("net.json", "net.pdiparams", "values.npz"):
                archive.write(f"{folder}/{name}", name)


if __name__ == "__main__":
    main()
