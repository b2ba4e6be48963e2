"""The vocabulary of layer kinds, and which operation is which.

Kinds are judged by what a forward pass does. Three need a decision, taken here:

- `F.linear` (and so `nn.Linear`) is always `linear`. Any other product with stored weights is
  `linear` when it leaves no map (a feature vector, or all positions mixed), and `conv` when it
  works on each position of a map, as a 1x1 convolution written by hand does.
- `batchnorm` means statistics of the batch while training. A BatchNorm that keeps to fixed
  statistics while training is a `scale`, and its statistics are stored constants.
- `dropout` means that in training some values of the data are set to zero at random.
"""

from __future__ import annotations

KINDS: dict[str, str] = {
    "conv": "convolution that keeps a map, or a product with weights at each position",
    "linear": "fully connected: F.linear, weights on features, or a kernel over the whole map",
    "matmul": "product of two tensors that both depend on the image",
    "attention": "scaled dot-product attention",
    "rnn": "recurrent layer",
    "embedding": "look-up in a table of weights",
    "batchnorm": "normalisation by statistics of the batch",
    "scale": "batch-norm arithmetic with fixed statistics, in training too",
    "instancenorm": "normalisation over the map of each image and channel",
    "groupnorm": "normalisation over groups of channels",
    "layernorm": "normalisation over given trailing dimensions",
    "dropout": "random zeros in training",
    "droppath": "random zeros in training, one draw for each image",
    "noise": "other random numbers that meet the data",
    "gap": "global average pooling: a mean over a whole map of more than 1x1",
    "avgpool": "average pooling of part of a map",
    "maxpool": "max pooling, also of the whole map",
    "mean": "any other mean",
    "sum": "any other sum",
    "max": "maximum or minimum along dimensions",
    "reduce": "variance, norm, product and other reductions",
    "relu": "rectified linear unit",
    "activation": "any other nonlinear function of single elements",
    "softmax": "softmax and log-softmax",
    "add": "sum or difference of tensors",
    "mul": "product or quotient of tensors",
    "cat": "concatenation and stacking",
    "pad": "padding",
    "upsample": "interpolation to a larger or smaller map",
    "shuffle": "pixel shuffle and unshuffle, channel shuffle, unfold, roll, flip, indexing",
    "flatten": "flattening to a vector",
    "reshape": "any other change of shape",
    "identity": "nothing",
    "parameter": "parameters used where no row could claim them",
    "constant": "buffers and constants that inference reads where no row could claim them",
    "other": "an operation not known here",
    "unused": "parameters that never reach the output, or a module never called",
    "module": "a module whose work could not be traced",
}

# When one row holds several operations, the row is called after the first of these.
PRIORITY = (
    *("attention", "rnn", "linear", "conv", "embedding", "batchnorm", "scale", "instancenorm"),
    *("groupnorm", "layernorm", "gap", "maxpool", "avgpool", "dropout", "droppath", "noise"),
    *("softmax", "relu", "activation", "matmul", "upsample", "cat", "shuffle", "pad", "mean"),
    *("max", "sum", "reduce", "other", "mul", "add", "parameter", "constant", "flatten"),
    *("reshape", "identity"),
)

CONVOLUTIONS = frozenset({"convolution", "_convolution", "convolution_overrideable"})
PRODUCTS = frozenset({"mm", "bmm", "mv", "dot", "addmm", "addmv", "baddbmm", "addbmm", "linear"})
ATTENTION = frozenset(
    {
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_attention_math",
    }
)
BATCH_NORMS = frozenset(
    {
        "native_batch_norm",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training",
        "cudnn_batch_norm",
        "_batch_norm_with_update",
        "_batch_norm_no_update",
    }
)

# Operations by aten name without its trailing underscore, where one name has one kind.
SIMPLE: dict[str, str] = {
    "native_group_norm": "groupnorm",
    "native_layer_norm": "layernorm",
    "_fused_rms_norm": "layernorm",
    "embedding": "embedding",
    "mkldnn_rnn_layer": "rnn",
    "_trilinear": "linear",
    "_softmax": "softmax",
    "_safe_softmax": "softmax",
    "_log_softmax": "softmax",
    "cat": "cat",
    "stack": "cat",
    "native_channel_shuffle": "shuffle",
    "channel_shuffle": "shuffle",
    "im2col": "shuffle",
    "col2im": "shuffle",
    "roll": "shuffle",
    "flip": "shuffle",
    "index": "shuffle",
    "index_select": "shuffle",
    "pixel_shuffle": "shuffle",
    "pixel_unshuffle": "shuffle",
    "constant_pad_nd": "pad",
    **{f"{how}_pad{n}d": "pad" for how in ("reflection", "replication") for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": "maxpool" for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": "maxpool" for n in (2, 3)},
    **{f"fractional_max_pool{n}d": "maxpool" for n in (2, 3)},
    "amax": "max",
    "amin": "max",
    "max": "max",
    "min": "max",
    "mean": "mean",
    "sum": "sum",
    **dict.fromkeys(("relu", "relu6"), "relu"),
    **dict.fromkeys(("add", "sub", "rsub"), "add"),
    **dict.fromkeys(("mul", "div", "addcmul", "addcdiv", "lerp"), "mul"),
    **dict.fromkeys(
        (
            *("var", "std", "var_mean", "std_mean", "linalg_vector_norm", "norm", "prod"),
            *("logsumexp", "any", "all", "argmax", "argmin", "median", "topk", "sort", "cumsum"),
        ),
        "reduce",
    ),
    **dict.fromkeys(
        (
            *(
                "sigmoid",
                "tanh",
                "gelu",
                "silu",
                "mish",
                "elu",
                "celu",
                "selu",
                "softplus",
                "clamp",
            ),
            *(
                "hardtanh",
                "hardswish",
                "hardsigmoid",
                "leaky_relu",
                "rrelu_with_noise",
                "threshold",
            ),
            *(
                "_prelu_kernel",
                "log_sigmoid_forward",
                "glu",
                "clamp_min",
                "clamp_max",
                "abs",
                "exp",
            ),
            *("log", "sqrt", "rsqrt", "pow", "softshrink", "hardshrink", "sin", "cos", "erf"),
            *("maximum", "minimum", "where", "masked_fill", "sign", "round", "floor", "ceil"),
            *("rrelu_with_noise_functional", "square", "reciprocal", "neg", "gt", "ge", "lt", "le"),
        ),
        "activation",
    ),
}
