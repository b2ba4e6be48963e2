"""Which rule judges which operation."""

from __future__ import annotations

from collections.abc import Callable

from whit.analysis.kinds import ATTENTION, BATCH_NORMS, CONVOLUTIONS, PRODUCTS, SIMPLE
from whit.analysis.receptive_field import (
    Sight,
    UnknownSight,
    image_sight,
    plain_dims,
)
from whit.analysis.rules.call import Call, Finding
from whit.analysis.rules.products import attention, pointwise, product
from whit.analysis.rules.rearranging import (
    cat,
    embedding,
    flip,
    glu,
    index,
    pixel_shuffle,
    pixel_unshuffle,
    roll,
    sample,
)
from whit.analysis.rules.reductions import batch_norm, group_norm, layer_norm, mix, reduce
from whit.analysis.rules.windows import adaptive_pool, convolution, pad, pool, unfold, upsample

# Operations that may leave positions out.
PICKING = frozenset({"index", "index_select", "gather", "take", "masked_select", "index_put"})


def judge(call: Call) -> tuple[Finding, str | None]:
    """Return the finding for `call` and, where something is unknown, a sentence naming it."""
    kind = kind_of(call)
    try:
        rule = _RULES.get(call.name) or (pointwise if call.pointwise else None)
        if rule is None:
            raise UnknownSight("the operation is not known here")
        return rule(call, kind), None
    except UnknownSight as unknown:
        return Finding(_lost(call), kind), f"receptive field unknown from {call.name} on: {unknown}"


def _lost(call: Call) -> Sight:
    """Return what is left of a sight: positions stay positions, but what they see is unknown."""
    before, dims = call.first.dims, plain_dims(call.shape)
    picked = call.name in PICKING
    if len(before) == len(dims) == 4 and any(run.axis == "h" for run in before[2]):
        images, channels, height, width = call.shape
        dims = image_sight((images, channels, height, width)).dims
    elif call.shape == tuple(call.data[0].tensor.shape):
        dims = before
    else:
        picked = True
    return Sight(dims, None, cut=picked or call.first.cut)


def kind_of(call: Call) -> str | None:
    """Return the kind that the name alone tells."""
    if call.name in CONVOLUTIONS:
        return "conv"
    if call.name in PRODUCTS:
        return "linear"
    if call.name in ATTENTION:
        return "attention"
    if call.name in BATCH_NORMS:
        return "batchnorm"
    if call.name.startswith(("upsample_", "_upsample_", "grid_sampler")):
        return "upsample"
    if call.name.startswith(("avg_pool", "_adaptive_avg_pool")):
        return "avgpool"
    if call.name in SIMPLE:
        return SIMPLE[call.name]
    return None if call.pointwise or call.name in _RULES else "other"


_RULES: dict[str, Callable[[Call, str | None], Finding]] = {
    **dict.fromkeys(CONVOLUTIONS, convolution),
    **dict.fromkeys(PRODUCTS, product),
    **dict.fromkeys(ATTENTION, attention),
    **dict.fromkeys(BATCH_NORMS, batch_norm),
    **dict.fromkeys([f"max_pool{n}d_with_indices" for n in (2, 3)], pool),
    **dict.fromkeys([f"avg_pool{n}d" for n in (2, 3)], pool),
    **dict.fromkeys([f"_adaptive_avg_pool{n}d" for n in (2, 3)], adaptive_pool),
    **dict.fromkeys([f"adaptive_max_pool{n}d" for n in (2, 3)], adaptive_pool),
    **{f"{how}_pad{n}d": pad for how in ("reflection", "replication") for n in (1, 2, 3)},
    "constant_pad_nd": pad,
    **{
        f"{prefix}upsample_{how}": upsample
        for prefix in ("", "_")
        for how in (
            *("nearest1d", "nearest2d", "nearest3d", "nearest_exact1d", "nearest_exact2d"),
            *("linear1d", "bilinear2d", "trilinear3d", "bicubic2d"),
        )
    },
    "im2col": unfold,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    **dict.fromkeys(
        (
            *("mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean"),
            *("prod", "logsumexp", "any", "all", "argmax", "argmin", "median"),
        ),
        reduce(1),
    ),
    **dict.fromkeys(("linalg_vector_norm", "norm"), reduce(2)),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax", "cumsum", "cumprod"), mix(1)),
    **dict.fromkeys(("native_layer_norm", "_fused_rms_norm"), layer_norm),
    "native_group_norm": group_norm,
    **dict.fromkeys(("cat", "stack"), cat),
    "flip": flip,
    "roll": roll,
    **dict.fromkeys(("index", "index_select"), index),
    "grid_sampler_2d": sample,
    "glu": glu,
    "embedding": embedding,
    **dict.fromkeys(
        (
            *("clone", "_to_copy", "copy", "tril", "triu", "log_sigmoid_forward", "masked_fill"),
            *("native_dropout", "_prelu_kernel", "zero", "contiguous", "rrelu_with_noise"),
            *("lift_fresh_copy", "detach_copy", "rrelu_with_noise_functional", "bernoulli"),
        ),
        pointwise,
    ),
}
