"""Small networks of operators that only ONNX has, with the arguments that such operators take."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Function = Callable[[Any, Tensor], Tensor]


class Network(nn.Module):
    """Pixels 0..255, normalized; a function with its own layers; a linear head."""

    def __init__(self, function: Function, **layers: Any) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.eval()
        with torch.no_grad():
            self.head = nn.Linear(function(self, torch.zeros(2, 1, 28, 28))[0].numel(), 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.function(self, (images - 33) / 79).flatten(1))
        return logits


def _randomized(network: nn.Module) -> nn.Module:
    """Give every parameter and statistic a value that has an effect."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if tensor.is_floating_point() and tensor.ndim == 1 and not name.startswith("fixed"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network


def _rows(module: Any, x: Tensor) -> Tensor:
    """Rows as a sequence (N, 28, 28)."""
    return x.squeeze(1)


def _maps(channels: int = 6, stride: int = 3) -> nn.Conv2d:
    return nn.Conv2d(1, channels, 3, stride)


def _normed(norm: nn.Module) -> Callable[[], nn.Module]:
    return lambda: Network(lambda m, x: m.norm(m.conv(x)), conv=_maps(), norm=norm)


def _of_rows(norm: nn.Module) -> Callable[[], nn.Module]:
    return lambda: Network(lambda m, x: m.norm(x.squeeze(1)), norm=norm)


def _resized(*args: Any, **settings: Any) -> Callable[[], nn.Module]:
    return lambda: Network(lambda m, x: F.interpolate(m.conv(x), *args, **settings), conv=_maps(3))


def _transposed(*args: Any, **settings: Any) -> Callable[[], nn.Module]:
    layer = nn.ConvTranspose2d(6, *args, **settings)
    return lambda: Network(lambda m, x: m.up(m.conv(x)), conv=_maps(), up=layer)


def _of_maps(function: Callable[[Tensor], Tensor], stride: int = 3) -> Callable[[], nn.Module]:
    conv = _maps(4, stride)
    return lambda: Network(lambda m, x: function(m.conv(x)), conv=conv)


def _recurrent(
    kind: type[nn.RNNBase], use: Callable[[Any], Tensor], **settings: Any
) -> Callable[[], nn.Module]:
    def of_images(module: Any, x: Tensor) -> Tensor:
        rows = x.squeeze(1)
        found = module.rnn(rows if module.rnn.batch_first else rows.transpose(0, 1))
        return use(found)

    return lambda: Network(of_images, rnn=kind(28, 7, **settings))


def _attended(
    use: Callable[[Any, Tensor, Tensor, Tensor], Tensor], **layers: Any
) -> Callable[[], nn.Module]:
    def of_images(module: Any, x: Tensor) -> Tensor:
        heads = module.qkv(x.squeeze(1)).view(len(x), 28, 3, 2, 4).permute(2, 0, 3, 1, 4)
        return use(module, *heads.unbind(0))

    return lambda: Network(of_images, qkv=nn.Linear(28, 24), **layers)


_sdpa = F.scaled_dot_product_attention
_CAUSAL = torch.triu(torch.ones(28, 28, dtype=torch.bool), 1)
_NEGATIVE = torch.zeros(28, 28).masked_fill(_CAUSAL, -inf)
_PADDED = torch.arange(28) > 20


def _multihead(**settings: Any) -> Callable[[], nn.Module]:
    call = {name: settings.pop(name) for name in ("need_weights", "attn_mask", "is_causal",
            "key_padding_mask", "average_attn_weights") if name in settings}  # fmt: skip
    first = settings.get("batch_first", False)

    def of_images(module: Any, x: Tensor) -> Tensor:
        rows = x.squeeze(1)
        rows = rows if first else rows.transpose(0, 1)
        given = dict(call)
        if "key_padding_mask" in given:
            given["key_padding_mask"] = given["key_padding_mask"].expand(len(x), -1)
        other = rows[..., :20] if "kdim" in settings else rows
        out: Tensor = module.attention(rows, other, other, **given)[0]
        return out if first else out.transpose(0, 1)

    return lambda: Network(of_images, attention=nn.MultiheadAttention(28, 4, **settings))


def _encoder(layers: int = 1, **settings: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        layer = nn.TransformerEncoderLayer(28, 4, 16, batch_first=True, **settings)
        encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        return Network(lambda m, x: m.encoder(x.squeeze(1)).mean(1), encoder=encoder)

    return build


def _elementwise(x: Tensor, edge: Tensor) -> Tensor:
    values = (
        *(x.abs().add(1).log(), (x / 9).exp(), x.abs().sqrt(), x.sin(), x.cos(), x.erf(), -x),
        *((x**2 + 1).rsqrt(), 1 / (x * x + 1), x.sign(), x.floor(), x.ceil(), x.round(), 2 - x),
        *(x.clamp(-0.1, 0.3), x.clamp(max=edge), torch.maximum(x, edge), x.minimum(x.mT), x**3),
        *(torch.where(x > 0.1, x, edge * 2), x.masked_fill(x <= edge, 0.5), (x < 0) * x, 2**x),
        *(~(x >= 0) + x, (x.clamp(0.3) == 0.3) * 1.0, (x.clamp(max=0.3) != 0.3).float()),
        *(torch.sub(x, edge, alpha=0.5), torch.add(edge, x, alpha=3), torch.rsub(x, 3, alpha=2)),
        *(F.softplus(x, beta=2), F.celu(x, 0.7), (x @ x.mT).clamp(-0.1, 0.3)),
    )
    return torch.stack(values, 1).mean(2)


class Patches(nn.Module):
    """A vision transformer: patches, a class token, learned positions, two blocks."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 7, 7)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 17, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 32, 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x / 255).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.positions
        logits: Tensor = self.head(self.norm(self.encoder(tokens))[:, 0])
        return logits


class HandWritten(nn.Module):
    """Attention written with matmul and softmax, with a mask and a scale."""

    hidden: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(28, 16, bias=False) for _ in range(3))
        self.register_buffer("hidden", _CAUSAL)
        self.out, self.head = nn.Linear(16, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.squeeze(1) / 255
        q, k, v = (
            layer(rows).reshape(len(x), 28, 4, 4).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        scores = (q @ k.transpose(-2, -1)) / 4**0.5
        weights = scores.masked_fill(self.hidden, -inf).softmax(dim=-1)
        merged = (weights @ v).transpose(1, 2).contiguous().view(len(x), 28, 16)
        logits: Tensor = self.head(F.gelu(self.out(merged)).max(dim=1).values)
        return logits


class UNet(nn.Module):
    """Down, up with a transposed convolution and with bilinear upsampling, skips, group norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU())
        self.second = nn.Sequential(
            nn.Conv2d(8, 12, 3, padding=1), nn.InstanceNorm2d(12), nn.ReLU()
        )
        self.third = nn.Conv2d(12, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 12, 2, 2)
        self.mix = nn.Conv2d(24, 8, 3, padding=1)
        self.wide = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.last = nn.Conv2d(16, 8, 3, padding=1)
        self.norm = nn.GroupNorm(4, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x / 255)
        b = self.second(F.max_pool2d(a, 2))
        c = F.gelu(self.third(F.max_pool2d(b, 2)), approximate="tanh")
        b = self.mix(torch.cat([b, self.up(c)], 1))
        a = self.norm(self.last(torch.cat([a, self.wide(b)], 1)))
        logits: Tensor = self.head(F.adaptive_avg_pool2d(a, 1).flatten(1))
        return logits


class Rows(nn.Module):
    """A GRU of two layers and both directions over rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(28, 12, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.rnn(x.squeeze(1) / 255)[0][:, -1])
        return logits


class RowCells(nn.Module):
    """A GRU cell and an LSTM cell in loops over columns."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.lstm, self.head = nn.GRUCell(28, 6), nn.LSTMCell(28, 5), nn.Linear(11, 10)

    def forward(self, x: Tensor) -> Tensor:
        h, c, s = x.new_zeros(len(x), 5), x.new_zeros(len(x), 5), None
        for column in (x.squeeze(1) / 255).unbind(2)[::7]:
            s = self.gru(column, s)
            h, c = self.lstm(column, (h, c))
        assert s is not None
        logits: Tensor = self.head(torch.cat([s, h], 1))
        return logits


class PatchwiseConv(nn.Module):
    """A convolution of each quarter alone, as images of a larger batch; a learned initial state."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 5, 2)
        self.norm = nn.BatchNorm2d(6)
        self.initial = nn.Parameter(torch.randn(1, 1, 6))
        self.gru, self.head = nn.GRU(6, 6, batch_first=True), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        parts = (x / 255).unfold(2, 14, 14).unfold(3, 14, 14).reshape(-1, 1, 14, 14)
        parts = F.max_pool2d(F.relu(self.norm(self.conv(parts))), 2)
        steps = parts.mean((2, 3)).view(len(x), 4, 6)
        _, last = self.gru(steps, self.initial.expand(-1, len(x), -1).contiguous())
        logits: Tensor = self.head(last[-1])
        return logits


_last: Callable[[Any], Tensor] = lambda found: found[0][:, -1]  # noqa: E731
_mean: Callable[[Any], Tensor] = lambda found: found[0].mean(1)  # noqa: E731
_hidden: Callable[[Any], Tensor] = lambda found: found[1].transpose(0, 1)  # noqa: E731
CASES: dict[str, Callable[[], nn.Module]] = {
    "group norm": _normed(nn.GroupNorm(3, 6)),
    "group norm, affine=False, eps": _normed(nn.GroupNorm(2, 6, eps=0.1, affine=False)),
    "group norm of one group": _normed(nn.GroupNorm(1, 6)),
    "group norm of single channels": _normed(nn.GroupNorm(6, 6)),
    "group norm of rows": _of_rows(nn.GroupNorm(4, 28)),
    "group norm of a vector": lambda: Network(
        lambda m, x: m.norm(m.conv(x).mean((2, 3))), conv=_maps(8), norm=nn.GroupNorm(2, 8)
    ),
    "layer norm of rows": _of_rows(nn.LayerNorm(28)),
    "layer norm of all dims": _normed(nn.LayerNorm([6, 9, 9])),
    "layer norm of two dims, eps": _normed(nn.LayerNorm([9, 9], eps=0.01)),
    "layer norm, affine=False": _normed(nn.LayerNorm([6, 9, 9], elementwise_affine=False)),
    "layer norm, no bias": _of_rows(nn.LayerNorm(28, bias=False)),
    "layer norm of a vector": lambda: Network(
        lambda m, x: m.norm(m.conv(x).mean((2, 3))), conv=_maps(), norm=nn.LayerNorm(6)
    ),
    "layer norm, channels last": lambda: Network(
        lambda m, x: m.norm(m.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
        conv=_maps(),
        norm=nn.LayerNorm(6),
    ),
    "rms norm": _of_rows(nn.RMSNorm(28)),
    "rms norm, eps, no weight": _normed(nn.RMSNorm([6, 9, 9], 0.1, elementwise_affine=False)),
    "instance norm": _normed(nn.InstanceNorm2d(6)),
    "instance norm, affine, eps": _normed(nn.InstanceNorm2d(6, eps=0.1, affine=True)),
    "instance norm, running": _normed(nn.InstanceNorm2d(6, track_running_stats=True)),
    "instance norm, running, affine": _normed(
        nn.InstanceNorm2d(6, affine=True, track_running_stats=True)
    ),
    "instance norm of rows": _of_rows(nn.InstanceNorm1d(28, affine=True)),
    "batch norm of rows": _of_rows(nn.BatchNorm1d(28)),
    "nearest, factor": _resized(scale_factor=2),
    "nearest, uneven factors": _resized(scale_factor=(1.5, 0.7)),
    "nearest, size": _resized(size=(13, 4)),
    "nearest-exact": _resized(scale_factor=1.7, mode="nearest-exact"),
    **{
        f"{mode}, align_corners={corners}, {settings}": _resized(
            mode=mode, align_corners=corners, **settings
        )
        for mode in ("bilinear", "bicubic")
        for corners in (False, True)
        for settings in (
            {"scale_factor": 2},
            {"scale_factor": (1.3, 0.6)},
            {"size": (13, 1)},
            {"size": 5},
        )
    },
    "recomputed factor": _resized(
        scale_factor=1.3, mode="bilinear", align_corners=False, recompute_scale_factor=True
    ),
    "bilinear, antialias": _resized(size=5, mode="bilinear", antialias=True),
    "bicubic, antialias": _resized(size=(4, 15), mode="bicubic", antialias=True),
    "linear of rows": lambda: Network(
        lambda m, x: F.interpolate(x.squeeze(1), scale_factor=0.7, mode="linear")
    ),
    "nearest of rows": lambda: Network(lambda m, x: F.interpolate(x.squeeze(1), size=13)),
    "transposed": _transposed(5, 3),
    "transposed, strides, no bias": _transposed(5, (3, 2), stride=(2, 3), bias=False),
    "transposed, padding": _transposed(4, 3, 2, padding=1, output_padding=1),
    "transposed, groups": _transposed(6, 3, 2, groups=3),
    "transposed, depthwise": _transposed(6, 4, 2, padding=1, groups=6),
    "transposed, dilation": _transposed(4, 3, 3, padding=(1, 2), output_padding=(2, 0), dilation=2),
    "transposed, then batch norm": lambda: Network(
        lambda m, x: F.relu(m.norm(m.up(m.conv(x)))),
        conv=_maps(),
        up=nn.ConvTranspose2d(6, 4, 2, 2),
        norm=nn.BatchNorm2d(4),
    ),
    "transposed of a 1x1 map": lambda: Network(
        lambda m, x: m.up(m.conv(x).mean((2, 3), keepdim=True)),
        conv=_maps(),
        up=nn.ConvTranspose2d(6, 4, 3),
    ),
    "transposed of rows": lambda: Network(
        lambda m, x: m.up(x.squeeze(1)), up=nn.ConvTranspose1d(28, 3, 4, 2, 1)
    ),
    "convolution of rows": lambda: Network(
        lambda m, x: m.b(F.relu(m.a(x.squeeze(1)))),
        a=nn.Conv1d(28, 6, 4, padding="same", dilation=3, groups=2),
        b=nn.Conv1d(6, 5, 3, 2, 1, bias=False),
    ),
    "pixel shuffle": _of_maps(nn.PixelShuffle(2)),
    "pixel unshuffle": _of_maps(nn.PixelUnshuffle(3)),
    "channel shuffle": _of_maps(nn.ChannelShuffle(2)),
    **{
        f"adaptive {name} pooling to {size}": _of_maps(pool(size), 2)
        for name, pool in (("average", nn.AdaptiveAvgPool2d), ("max", nn.AdaptiveMaxPool2d))
        for size in (2, 5, (3, 7), (None, 4), 13, 20)
    },
    "adaptive pooling of rows": lambda: Network(
        lambda m, x: F.adaptive_avg_pool1d(x.squeeze(1), 9) + F.adaptive_max_pool1d(x.squeeze(1), 9)
    ),
    "max pooling, ceil_mode": _of_maps(nn.MaxPool2d(3, 2, ceil_mode=True), 2),
    "max pooling, ceil_mode, padding": _of_maps(nn.MaxPool2d(2, 3, 1, ceil_mode=True), 2),
    "average pooling, ceil_mode": _of_maps(nn.AvgPool2d(3, 2, 1, ceil_mode=True), 2),
    "average pooling, no padding": _of_maps(
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), 2
    ),
    "average pooling, divisor": _of_maps(nn.AvgPool2d(2, divisor_override=3), 2),
    "pooling of rows": lambda: Network(
        lambda m, x: F.max_pool1d(x.squeeze(1), 3, 2) + F.avg_pool1d(x.squeeze(1), 3, 2)
    ),
    "GELU by erf of rows": _of_rows(nn.Sequential(nn.Linear(28, 9), nn.GELU())),
    "GELU by tanh of rows": _of_rows(nn.Sequential(nn.Linear(28, 9), nn.GELU("tanh"))),
    "activations of rows": lambda: Network(
        lambda m, x: torch.cat(
            [
                layer(x.squeeze(1)[:, ::7])
                for layer in (
                    *(nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.2), nn.ELU(0.7), nn.SiLU(), nn.Tanh()),
                    *(nn.Sigmoid(), nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh(), nn.Mish()),
                    *(
                        nn.Softplus(),
                        nn.LogSigmoid(),
                        nn.SELU(),
                        nn.CELU(),
                        nn.GLU(),
                        nn.Softsign(),
                    ),
                    *(nn.Softmax(1), nn.LogSoftmax(-1), m.prelu, nn.Softmin(1)),
                )
            ],
            2,
        ),
        prelu=nn.PReLU(4),
    ),
    "attention": _attended(lambda m, q, k, v: _sdpa(q, k, v)),
    "attention, causal": _attended(lambda m, q, k, v: _sdpa(q, k, v, is_causal=True)),
    "attention, causal, other lengths": _attended(
        lambda m, q, k, v: _sdpa(q, k[:, :, :9], v[:, :, :9], is_causal=True)
    ),
    "attention, scale": _attended(lambda m, q, k, v: _sdpa(q, k, v, scale=0.2)),
    "attention, bool mask": _attended(lambda m, q, k, v: _sdpa(q, k, v, ~_CAUSAL)),
    "attention, float mask": _attended(lambda m, q, k, v: _sdpa(q, k, v, _NEGATIVE)),
    "attention, bias": _attended(
        lambda m, q, k, v: _sdpa(q, k, v, m.bias), bias=nn.Parameter(torch.randn(2, 28, 28))
    ),
    "attention, biased and masked": _attended(
        lambda m, q, k, v: _sdpa(q, k, v, m.bias + _NEGATIVE),
        bias=nn.Parameter(torch.randn(1, 2, 28, 28)),
    ),
    "attention, bias of the image": _attended(
        lambda m, q, k, v: _sdpa(q, k, v, q.sum(-1, keepdim=True) * k[..., 0].unsqueeze(-2))
    ),
    "attention, rows without a key": _attended(
        lambda m, q, k, v: _sdpa(q, k, v, _CAUSAL.T.contiguous())
    ),
    "attention, grouped heads": _attended(
        lambda m, q, k, v: _sdpa(q, k[:, :1], v[:, :1], enable_gqa=True)
    ),
    "attention, padded keys": _attended(
        lambda m, q, k, v: _sdpa(q, k, v, ~_PADDED.expand(len(q), 1, 28, 28))
    ),
    "multi-head": _multihead(batch_first=True),
    "multi-head, sequence first": _multihead(),
    "multi-head, no weights": _multihead(batch_first=True, need_weights=False),
    "multi-head, no bias": _multihead(batch_first=True, bias=False),
    "multi-head, bias_kv": _multihead(batch_first=True, add_bias_kv=True, add_zero_attn=True),
    "multi-head, other keys": _multihead(batch_first=True, kdim=20, vdim=20),
    "multi-head, causal": _multihead(
        batch_first=True, need_weights=False, attn_mask=_CAUSAL, is_causal=True
    ),
    "multi-head, bool mask": _multihead(batch_first=True, attn_mask=_CAUSAL),
    "multi-head, float mask": _multihead(attn_mask=_NEGATIVE),
    "multi-head, padded keys": _multihead(batch_first=True, key_padding_mask=_PADDED[None]),
    "multi-head, mask and padded keys": _multihead(
        batch_first=True, key_padding_mask=_PADDED[None], attn_mask=_CAUSAL
    ),
    "encoder": _encoder(),
    "encoder, norm first, GELU, no bias": _encoder(
        2, norm_first=True, activation="gelu", bias=False
    ),
    "decoder": lambda: Network(
        lambda m, x: m.decoder(x.squeeze(1)[:, :9], x.squeeze(1)[:, 9:]),
        decoder=nn.TransformerDecoderLayer(28, 4, 16, batch_first=True),
    ),
    **{
        f"{kind.__name__}, {name}": _recurrent(kind, use, batch_first=True)
        for kind in (nn.RNN, nn.GRU, nn.LSTM)
        for name, use in (("last step", _last), ("mean over steps", _mean))
    },
    **{
        f"{kind.__name__}, {settings}": _recurrent(kind, use, **settings)
        for kind in (nn.RNN, nn.GRU, nn.LSTM)
        for settings in (
            {"bidirectional": True},
            {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.3},
            {"num_layers": 3, "bias": False},
        )
        for use in ((_hidden,) if kind is not nn.LSTM else (lambda f: f[1][0].transpose(0, 1),))
    },
    "LSTM, cell state": _recurrent(
        nn.LSTM, lambda f: f[1][1].transpose(0, 1), num_layers=2, bidirectional=True
    ),
    "RNN, relu": _recurrent(nn.RNN, _last, batch_first=True, nonlinearity="relu"),
    "GRU, initial state of the image": lambda: Network(
        lambda m, x: m.rnn(x.squeeze(1), m.conv(x).mean((2, 3))[None])[1][0],
        conv=_maps(7),
        rnn=nn.GRU(28, 7, batch_first=True),
    ),
    "LSTM, learned initial state": lambda: Network(
        lambda m, x: m.rnn(
            x.squeeze(1), (m.h.expand(2, len(x), 7).contiguous(), torch.zeros(2, len(x), 7))
        )[0][:, 3],
        h=nn.Parameter(torch.randn(2, 1, 7)),
        rnn=nn.LSTM(28, 7, batch_first=True, bidirectional=True),
    ),
    "elementwise": lambda: Network(
        # Shifted, so that no pixel lies at a step of a function.
        lambda m, x: _elementwise(x + 0.0123, m.edge),
        edge=nn.Parameter(torch.linspace(-1, 1, 28)),
    ),
    "reductions": lambda: Network(
        lambda m, x: torch.cat(
            [
                *(x.mean(-1), x.sum(2), x.amax(-1), x.amin(2), x.var(-1), x.std(2, correction=0)),
                *(x.logsumexp(-1), x.norm(dim=-1), x.norm(1, 2), x.max(-1).values, x.min(2)[0]),
                *(x.cumsum(-1)[..., 5], F.normalize(x, dim=-1)[..., 3], x.softmax(2)[..., 7]),
                x.log_softmax(-1)[..., 2],
                F.local_response_norm(m.conv(x), 3).mean((2, 3))[:, None],
            ],
            -1,
        ),
        conv=_maps(),
    ),
    "rearranged": lambda: Network(
        lambda m, x: torch.cat(
            [
                *(x.flip(-1), x.roll((3, -2), (2, 3)), x[:, :, 3:20:2].repeat(1, 1, 2, 1)),
                *(x[:, :, [3, 1, 1]], x.index_select(2, torch.tensor([5, 4])), x[:, :, -1:, :]),
                *(x[:, :, 4].unsqueeze(2), x.repeat_interleave(2, 2), x.unfold(2, 3, 2).mean(-1)),
                *(F.pad(x, (0, 0, 2, 1), mode) for mode in ("reflect", "replicate", "circular")),
                *(F.pad(x, (0, 0, 2, 1), value=0.7), F.unfold(x, 3, 2, 1, 2)[:, None, :, :28]),
                torch.stack([x, x.mT], 1).unbind(1)[1],
            ],
            2,
        )
    ),
    "products": lambda: Network(
        lambda m, x: torch.cat(
            [
                torch.einsum("nij,jk->nik", x[:, 0], m.mix),
                torch.einsum("nij,nkj->nik", x[:, 0], x[:, 0, :5]),
                (m.mix.t() @ x[:, 0]).mT,
                x[:, 0] @ m.mix,
                torch.baddbmm(x[:, 0, :, :3], x[:, 0], x[:, 0, :, :3], beta=0.5, alpha=0.1),
            ],
            -1,
        ),
        mix=nn.Parameter(torch.randn(28, 4)),
    ),
    "circular convolution": lambda: Network(
        lambda m, x: m.conv(x),
        conv=nn.Conv2d(1, 2, 3, 3, padding=1, padding_mode="circular"),
    ),
    "patches": Patches,
    "hand-written attention": HandWritten,
    "U-Net": UNet,
    "rows": Rows,
    "cells": RowCells,
    "patchwise convolution": PatchwiseConv,
}


def network(name: str) -> nn.Module:
    torch.manual_seed(11)
    return _randomized(CASES[name]()).eval()
