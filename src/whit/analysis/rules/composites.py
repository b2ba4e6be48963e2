"""Functions of torch that run as several operations and are one layer."""

from __future__ import annotations

# Functions that are fully connected by name, wherever they are applied.
LINEAR_FUNCTIONS = frozenset({"linear", "bilinear", "multi_head_attention_forward"})
ATTENTION_FUNCTIONS = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})
RANDOM_KINDS = frozenset({"dropout", "droppath", "noise"})

# Kinds of everything that is computed inside a function, random numbers aside.
_KINDS = {
    **dict.fromkeys(("gru", "lstm", "rnn_tanh", "rnn_relu"), "rnn"),
    **dict.fromkeys(("gru_cell", "lstm_cell", "rnn_tanh_cell", "rnn_relu_cell"), "rnn"),
    "scaled_dot_product_attention": "attention",
    "rms_norm": "layernorm",
    "layer_norm": "layernorm",
    "group_norm": "groupnorm",
}
# Kinds of operations that have none of their own, such as copies into a larger map.
_KINDS_OF_COPIES = {"pad": "pad", "roll": "shuffle", "channel_shuffle": "shuffle"}
_DROPOUT_FUNCTIONS = frozenset(
    {
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout"),
        *("alpha_dropout", "feature_alpha_dropout"),
    }
)


def resolve_composite(functions: list[str], kind: str | None, copies: bool) -> str | None:
    """Return the kind of an operation inside the open calls of `functions`, outermost first.

    `copies`: the operation only moves numbers of the image.
    """
    for name in functions:
        if kind in RANDOM_KINDS:
            if kind == "noise" and name in _DROPOUT_FUNCTIONS:
                return "dropout"  # alpha dropout adds what the dropped values were replaced by
        elif kind is not None and name in _KINDS:
            return _KINDS[name]
        elif kind is None and copies and name in _KINDS_OF_COPIES:
            return _KINDS_OF_COPIES[name]
    return kind
