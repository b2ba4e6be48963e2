"""Recurrent layers and attention: kinds, and MACs of one image.

Run: pytest tests/analysis/test_sequence_kinds.py
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whit.analysis import Audit, audit_model


class Network(nn.Module):
    """`forward(parts, image)`, then a layer to ten classes."""

    def __init__(self, forward, width: int, **parts: nn.Module | nn.Parameter):
        super().__init__()
        self.head = nn.Linear(width, 10)
        for name, part in parts.items():
            setattr(self, name, part)
        self._written = (forward,)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self._written[0](self, x))


def audit(forward, width: int, **parts) -> Audit:
    return audit_model(Network(forward, width, **parts), (1, 28, 28), 10)


def last_step(m: Network, x: Tensor) -> Tensor:
    return m.rnn(x.squeeze(1))[0][:, -1]


def loop(m: Network, x: Tensor) -> Tensor:
    state = torch.zeros(len(x), 16)
    for row in range(28):
        state = m.rnn(x[:, 0, row], state)
    return state


def loop_from_nothing(m: Network, x: Tensor) -> Tensor:
    state = None
    for row in range(28):
        state = m.rnn(x[:, 0, row], state)
    return state[0]


LAYERS = {
    "GRU": (nn.GRU(28, 16, batch_first=True), 28 * 48 * (28 + 16)),
    "LSTM": (nn.LSTM(28, 16, batch_first=True), 28 * 64 * (28 + 16)),
    "RNN": (nn.RNN(28, 16, batch_first=True, nonlinearity="relu"), 28 * 16 * (28 + 16)),
    "two layers": (nn.GRU(28, 16, 2, batch_first=True), 28 * 48 * (28 + 16 + 16 + 16)),
    "projection": (
        nn.LSTM(28, 20, batch_first=True, proj_size=16),
        28 * (80 * (28 + 16) + 20 * 16),
    ),
}


@pytest.mark.parametrize("case", LAYERS)
def test_recurrent_layers(case: str) -> None:
    layer, macs = LAYERS[case]
    found = audit(last_step, 16, rnn=layer)
    assert found.kinds == {"rnn", "linear"}
    assert found.macs == macs + 160
    assert found.receptive_field == 28
    assert found.params.total == sum(p.numel() for p in layer.parameters()) + 170
    assert [row.kind for row in found.layers] == ["rnn", "linear"]


def test_both_directions_and_dropout_between_layers() -> None:
    layer = nn.LSTM(28, 8, 2, batch_first=True, bidirectional=True, dropout=0.01)
    found = audit(last_step, 16, rnn=layer)
    assert found.kinds == {"rnn", "linear", "dropout"}
    assert found.macs == 28 * 2 * 32 * (28 + 8 + 16 + 8) + 160


CELLS = {
    "GRUCell": (loop, nn.GRUCell(28, 16), 48),
    "RNNCell": (loop, nn.RNNCell(28, 16), 16),
    "LSTMCell": (loop_from_nothing, nn.LSTMCell(28, 16), 64),
}


@pytest.mark.parametrize("case", CELLS)
def test_cells_in_a_loop(case: str) -> None:
    forward, cell, rows = CELLS[case]
    found = audit(forward, 16, rnn=cell)
    assert found.kinds == {"rnn", "linear"}
    assert found.macs == 28 * rows * (28 + 16) + 160
    assert found.receptive_field == 28


def test_a_loop_by_hand_is_recurrent_and_linear() -> None:
    def forward(m: Network, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 16)
        for row in range(28):
            state = torch.tanh(m.input(x[:, 0, row]) + state @ m.own)
        return state

    found = audit(forward, 16, input=nn.Linear(28, 16), own=nn.Parameter(torch.randn(16, 16)))
    assert {"rnn", "linear"} <= found.kinds
    assert found.macs == 28 * 16 * (28 + 16) + 160
    assert "recurrent: applied to their own earlier results are own" in found.notes


def test_a_layer_used_twice_in_a_row_is_not_recurrent() -> None:
    found = audit(lambda m, x: m.a(F.relu(m.a(x.mean(2).flatten(1)))), 28, a=nn.Linear(28, 28))
    assert "rnn" not in found.kinds


def test_packed_sequences() -> None:
    def forward(m: Network, x: Tensor) -> Tensor:
        lengths = torch.full((len(x),), 28)
        packed = nn.utils.rnn.pack_padded_sequence(x.squeeze(1), lengths, batch_first=True)
        return m.rnn(packed)[1][0]

    found = audit(forward, 16, rnn=nn.GRU(28, 16, batch_first=True))
    assert "rnn" in found.kinds
    assert found.kinds_known
    assert found.macs == 28 * 48 * (28 + 16) + 160
    assert found.receptive_field == 28


# --- attention: 16 tokens of 16 numbers, from patches of 7x7 pixels; two heads of 8


class Weighing(nn.Module):
    """Attention written in one of several ways."""

    def __init__(self, way: str):
        super().__init__()
        self.way = way

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale = 8**-0.5
        match self.way:
            case "softmax":
                return (q @ k.mT * scale).softmax(-1) @ v
            case "dropout":
                return F.dropout((q @ k.mT * scale).softmax(-1), 0.1, self.training) @ v
            case "exp":
                scores = q @ k.mT * scale
                weights = (scores - scores.amax(-1, keepdim=True)).exp()
                return (weights / weights.sum(-1, keepdim=True)) @ v
            case "einsum":
                scores = torch.einsum("bhid,bhjd->bhij", q, k) * scale
                return torch.einsum("bhij,bhjd->bhid", F.softmax(scores, -1), v)
            case "bmm":
                q, k, v = (tokens.flatten(0, 1) for tokens in (q, k, v))
                return (torch.bmm(q, k.mT).softmax(-1) @ v).unflatten(0, (-1, 2))
            case "masked":
                mask = torch.ones(16, 16).tril() == 0
                return (q @ k.mT * scale).masked_fill(mask, -1e9).softmax(-1) @ v
            case "causal":
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)
            case "given mask":
                return F.scaled_dot_product_attention(q, k, v, attn_mask=torch.zeros(16, 16))
            case "function with dropout":
                p = 0.1 if self.training else 0.0
                return F.scaled_dot_product_attention(q, k, v, dropout_p=p)
            case "no softmax":
                return q @ k.mT @ v
            case _:
                return F.scaled_dot_product_attention(q, k, v)


def tokens_of(m: Network, x: Tensor) -> Tensor:
    return m.embed(x).flatten(2).mT


def weigh(m: Network, x: Tensor) -> Tensor:
    parts = m.qkv(tokens_of(m, x)).chunk(3, -1)
    q, k, v = (part.view(len(x), 16, 2, 8).transpose(1, 2) for part in parts)
    return m.weigh(q, k, v).transpose(1, 2).reshape(len(x), 16, 16).mean(1)


EMBED, HEAD = 16 * 49 * 16, 160
PRODUCTS = 2 * 2 * 16 * 16 * 8


@pytest.mark.parametrize(
    "way",
    [
        *("softmax", "dropout", "exp", "einsum", "bmm", "masked", "causal", "given mask"),
        *("function", "function with dropout"),
    ],
)
def test_attention_by_hand_and_by_function(way: str) -> None:
    embed = nn.Conv2d(1, 16, 7, 7)
    found = audit(weigh, 16, embed=embed, qkv=nn.Linear(16, 48), weigh=Weighing(way))
    assert "attention" in found.kinds
    assert not found.kinds & {"noise", "matmul"}
    assert ("dropout" in found.kinds) == ("dropout" in way)
    assert found.macs == EMBED + 16 * 16 * 48 + PRODUCTS + HEAD
    assert found.receptive_field == 28
    assert found.notes == ()


def test_products_without_softmax_are_no_attention() -> None:
    embed = nn.Conv2d(1, 16, 7, 7)
    found = audit(weigh, 16, embed=embed, qkv=nn.Linear(16, 48), weigh=Weighing("no softmax"))
    assert "matmul" in found.kinds
    assert "attention" not in found.kinds


def encoder(**options) -> nn.Module:
    return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, **options)


MODULES = {
    "MultiheadAttention": (
        lambda m, x: m.mixed(*[tokens_of(m, x)] * 3)[0].mean(1),
        nn.MultiheadAttention(16, 2, batch_first=True),
        16 * 16 * 64,
    ),
    "without weights": (
        lambda m, x: m.mixed(*[tokens_of(m, x)] * 3, need_weights=False)[0].mean(1),
        nn.MultiheadAttention(16, 2, batch_first=True),
        16 * 16 * 64,
    ),
    "TransformerEncoderLayer": (
        lambda m, x: m.mixed(tokens_of(m, x)).mean(1),
        encoder(),
        16 * 16 * 64 + 2 * 16 * 16 * 32,
    ),
    "norm first": (
        lambda m, x: m.mixed(tokens_of(m, x)).mean(1),
        encoder(norm_first=True, activation="gelu", dropout=0.0),
        16 * 16 * 64 + 2 * 16 * 16 * 32,
    ),
}


@pytest.mark.parametrize("case", MODULES)
def test_modules_with_attention(case: str) -> None:
    forward, module, macs = MODULES[case]
    found = audit(forward, 16, embed=nn.Conv2d(1, 16, 7, 7), mixed=module)
    assert {"attention", "linear", "conv"} <= found.kinds
    assert ("dropout" in found.kinds) == (case == "TransformerEncoderLayer")
    assert not found.kinds & {"noise", "matmul", "rnn", "other"}
    assert found.macs == EMBED + macs + PRODUCTS + HEAD
    assert found.params.unused == 0
    assert found.receptive_field == 28


def test_attention_within_windows_is_unknown_and_not_a_guess() -> None:
    def forward(m: Network, x: Tensor) -> Tensor:
        windows = m.embed(x).view(-1, 16, 2, 2, 2, 2).permute(0, 2, 4, 3, 5, 1)
        tokens = windows.reshape(-1, 4, 16)
        return F.scaled_dot_product_attention(tokens, tokens, tokens).reshape(-1, 16, 16).mean(1)

    found = audit(forward, 16, embed=nn.Conv2d(1, 16, 7, 7))
    assert "attention" in found.kinds
    assert found.receptive_field is None
    assert not found.kinds_known  # whether the last mean is global average pooling
