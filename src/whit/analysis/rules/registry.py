"""The operators that the analysis knows: kind, receptive field and multiply-adds of each."""

from __future__ import annotations

from dataclasses import dataclass

from whit.analysis.macs import (
    MacRule,
    attention_macs,
    bilinear_macs,
    convolution_macs,
    no_macs,
    product_macs,
    recurrent_macs,
)
from whit.analysis.receptive_field import (
    ReceptiveField,
    UnknownReceptiveField,
    image_field,
    untracked_dims,
)
from whit.analysis.rules import products, rearranging, recurrent, reductions, windows
from whit.analysis.rules.call import OpCall, Rule, RuleResult


@dataclass(frozen=True)
class Operator:
    """What is known of one aten operation."""

    kind: str | None  # by its name alone; None: it names no row
    rule: Rule | None = None  # None: that of `pointwise` where torch tags it so, else unknown
    macs: MacRule | None = no_macs  # None: it multiplies and adds, but how often is not known


def _define(
    kind: str | None, names: str, rule: Rule | None = None, macs: MacRule | None = no_macs
) -> dict[str, Operator]:
    return dict.fromkeys(names.split(), Operator(kind, rule, macs))


# By aten name without its trailing underscore. A new operator is one entry here.
OPERATORS: dict[str, Operator] = {
    **_define(
        "conv",
        "convolution _convolution convolution_overrideable",
        windows.convolution,
        convolution_macs,
    ),
    **_define(
        "linear",
        "mm bmm mv dot addmm addmv baddbmm addbmm linear _sparse_mm _sparse_addmm",
        products.product,
        product_macs,
    ),
    **_define("linear", "_trilinear", products.trilinear, bilinear_macs),
    # products with stored weights that are kept in few bits: how they are stored says nothing
    # of the work, which is that of a linear layer
    **_define("linear", "_int_mm _scaled_mm mkldnn_linear", macs=None),
    **_define("conv", "mkldnn_convolution", macs=None),
    **_define(
        "attention",
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
        "_scaled_dot_product_attention_math _scaled_dot_product_fused_attention_overrideable",
        products.attention,
        attention_macs,
    ),
    **_define(
        "batchnorm",
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
        "cudnn_batch_norm _batch_norm_with_update _batch_norm_no_update",
        reductions.batch_norm,
    ),
    **_define("groupnorm", "native_group_norm", reductions.group_norm),
    **_define("layernorm", "native_layer_norm _fused_rms_norm", reductions.layer_norm),
    **_define("embedding", "embedding", rearranging.embedding),
    **_define("rnn", "mkldnn_rnn_layer", recurrent.layer, recurrent_macs),
    **_define("reshape", "_pack_padded_sequence _pad_packed_sequence", recurrent.pack),
    **_define("rnn", "_cudnn_rnn miopen_rnn", macs=None),
    **_define("rnn", "_thnn_fused_lstm_cell _thnn_fused_gru_cell", recurrent.fused_cell),
    **_define("other", "_cdist_forward", macs=None),
    **_define("softmax", "_softmax _safe_softmax _log_softmax", reductions.mix_dims(1)),
    **_define("cat", "cat stack", rearranging.cat),
    **_define("shuffle", "native_channel_shuffle channel_shuffle", rearranging.channel_shuffle),
    **_define("shuffle", "col2im", windows.fold),
    **_define("shuffle", "repeat", rearranging.repeat),
    **_define("shuffle", "rot90", rearranging.rot90),
    **_define("shuffle", "im2col", windows.unfold),
    **_define("shuffle", "roll", rearranging.roll),
    **_define("shuffle", "flip", rearranging.flip),
    **_define("shuffle", "index index_select", rearranging.index),
    **_define("shuffle", "index_put _index_put_impl", rearranging.index_put),
    **_define("shuffle", "pixel_shuffle", rearranging.pixel_shuffle),
    **_define("shuffle", "pixel_unshuffle", rearranging.pixel_unshuffle),
    **_define(
        "pad",
        "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d "
        "replication_pad1d replication_pad2d replication_pad3d",
        windows.pad,
    ),
    **_define("maxpool", "max_pool2d_with_indices max_pool3d_with_indices", windows.pool),
    **_define("maxpool", "adaptive_max_pool2d adaptive_max_pool3d", windows.adaptive_pool),
    **_define("maxpool", "max_pool1d_with_indices max_pool1d", windows.pool),
    **_define("maxpool", "fractional_max_pool2d fractional_max_pool3d", windows.fractional_pool),
    **_define("avgpool", "avg_pool1d avg_pool2d avg_pool3d", windows.pool),
    **_define("avgpool", "_adaptive_avg_pool2d _adaptive_avg_pool3d", windows.adaptive_pool),
    **_define(
        "upsample",
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d "
        "_upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d upsample_trilinear3d "
        "upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa",
        windows.upsample,
    ),
    **_define("upsample", "max_unpool2d max_unpool3d", windows.unpool),
    **_define("upsample", "grid_sampler_2d", rearranging.grid_sample),
    **_define("max", "amax amin max min", reductions.reduce(1)),
    **_define("mean", "mean", reductions.reduce(1)),
    **_define("sum", "sum", reductions.reduce(1)),
    **_define(
        "reduce",
        "var std var_mean std_mean prod logsumexp any all argmax argmin median",
        reductions.reduce(1),
    ),
    **_define("reduce", "linalg_vector_norm norm", reductions.reduce(2)),
    **_define("reduce", "aminmax", reductions.reduce(1)),
    **_define("reduce", "cumsum cummax cummin logcumsumexp", reductions.mix_dims(1)),
    **_define("reduce", "sort argsort", reductions.select(1)),
    **_define("reduce", "topk kthvalue", reductions.select(2)),
    **_define("other", "_fft_r2c _fft_c2c _fft_c2r", reductions.fourier),
    **_define("relu", "relu relu6", products.pointwise),
    **_define("add", "add sub rsub", products.pointwise),
    **_define("mul", "mul div addcmul addcdiv lerp", products.pointwise),
    # torch tags most of these as pointwise, but not all, and not each of their forms
    **_define(
        "activation",
        "sigmoid tanh gelu silu mish elu celu selu softplus clamp hardtanh hardswish hardsigmoid "
        "leaky_relu threshold clamp_min clamp_max abs exp log sqrt rsqrt pow softshrink hardshrink "
        "sin cos erf maximum minimum where sign round floor ceil square reciprocal neg gt ge lt le "
        "_prelu_kernel prelu log_sigmoid_forward log_sigmoid masked_fill rrelu_with_noise "
        "rrelu_with_noise_functional tan asin acos atan atan2 sinh cosh asinh acosh atanh exp2 "
        "expm1 log1p log2 log10 erfc erfinv lgamma digamma sinc logit trunc frac fmod remainder "
        "hypot sgn fmax fmin nan_to_num special_i0 heaviside logaddexp xlogy copysign eq ne",
        products.pointwise,
    ),
    **_define("activation", "glu", rearranging.glu),
    **_define(None, "cumprod", reductions.mix_dims(1)),
    **_define(
        None,
        "clone _to_copy copy tril triu native_dropout zero contiguous lift_fresh_copy detach_copy "
        "bernoulli to_mkldnn _to_dense _to_sparse _to_sparse_csr",
        products.pointwise,
    ),
}

# Kinds of operations by how their name begins, such as backward passes inside forward.
PREFIXES = {
    "quantized::linear": Operator("linear", macs=None),  # with packed weights
    "quantized::conv": Operator("conv", macs=None),
    "quantized_lstm": Operator("rnn", macs=None),
    "quantized_gru": Operator("rnn", macs=None),
    "quantized::": Operator("other", macs=None),
    **dict.fromkeys(("upsample_", "_upsample_", "grid_sampler"), Operator("upsample")),
    **dict.fromkeys(("avg_pool", "_adaptive_avg_pool"), Operator("avgpool")),
}

# Operations that may drop positions.
SELECTING_OPS = frozenset({"index", "index_select", "gather", "take", "masked_select", "index_put"})


def is_opaque(name: str) -> bool:
    """Return whether an operation may contain whole layers, which cannot be seen.

    What an operation of torch does is known by its name, also where this table lacks it. One of
    another library, or a custom one, may do anything.
    """
    return "::" in name and not name.startswith(("prims::", "quantized::"))


def find_operator(name: str, pointwise: bool) -> Operator:
    """Return what is known of aten operation `name`; `pointwise`: torch tags it so."""
    if name in OPERATORS:
        return OPERATORS[name]
    matching = (operator for prefix, operator in PREFIXES.items() if name.startswith(prefix))
    return next(matching, Operator(None if pointwise else "other"))


def is_batch_norm(name: str) -> bool:
    return name in OPERATORS and OPERATORS[name].kind == "batchnorm"


def apply_rule(call: OpCall, operator: Operator) -> tuple[RuleResult, str | None]:
    """Return the result for `call` and, where something is unknown, a sentence naming it."""
    rule = operator.rule or (products.pointwise if call.pointwise else None)
    try:
        if rule is None:
            raise UnknownReceptiveField("the operation is not known here")
        return rule(call, operator.kind), None
    except UnknownReceptiveField as unknown:
        note = f"receptive field unknown from {call.name} on: {unknown}"
        return RuleResult(_fallback_field(call), operator.kind), note


def _fallback_field(call: OpCall) -> ReceptiveField:
    """Return what remains known: positions stay positions, but what they see is unknown."""
    before, dims = call.field.dims, untracked_dims(call.shape)
    cropped = call.field.cropped or call.name in SELECTING_OPS
    if len(before) == len(dims) == 4 and any(run.axis == "h" for run in before[2]):
        dims = image_field(call.shape).dims
    elif call.shape == tuple(call.image_tensor.shape):
        dims = before
    else:
        cropped = True
    return ReceptiveField(dims, None, cropped)
