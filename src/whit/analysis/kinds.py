"""The vocabulary of layer kinds; needs no torch.

A kind says what a forward pass does, whichever module or function does it. Three need a
definition:

- `F.linear` (and so `nn.Linear`) is always `linear`. Any other product with stored weights is
  `linear` when it leaves no map (a feature vector, or all positions mixed), and `conv` when it
  works on each position of a map, as a 1x1 convolution written by hand does.
- `batchnorm` means statistics of the batch while training. A BatchNorm that keeps to fixed
  statistics while training is a `scale`, and its statistics are stored constants.
- `dropout` means that in training some values of the data are set to zero at random.
"""

from __future__ import annotations

# A row of several operations is called after the first of their kinds in this order.
KINDS: dict[str, str] = {
    "attention": "scaled dot-product attention",
    "rnn": "recurrent layer",
    "linear": "fully connected: a Linear, or a convolution that covers its full map",
    "conv": "a convolution that is not fully connected (1x1 included)",
    "embedding": "lookup in a table of weights",
    "batchnorm": "normalization by the statistics of the batch",
    "scale": "batch-norm arithmetic with fixed statistics, in training too",
    "instancenorm": "normalization over the map of each image and channel",
    "groupnorm": "normalization over groups of channels",
    "layernorm": "normalization over given trailing dimensions",
    "gap": "global average pooling: a mean over the full map",
    "maxpool": "max-pooling",
    "avgpool": "average pooling of part of a map",
    "dropout": "activations dropped at random in training, with p > 0",
    "droppath": "random zeros in training, one draw for each image",
    "noise": "other random numbers combined with the data",
    "softmax": "softmax and log-softmax",
    "relu": "rectified linear unit",
    "activation": "any other nonlinear function of single elements",
    "matmul": "product of two tensors that both depend on the image",
    "upsample": "interpolation to a larger or smaller map",
    "cat": "concatenation and stacking",
    "shuffle": "pixel shuffle and unshuffle, channel shuffle, unfold, roll, flip, indexing",
    "pad": "padding",
    "mean": "any other mean",
    "max": "maximum or minimum along dimensions",
    "sum": "any other sum",
    "reduce": "variance, norm, product and other reductions",
    "other": "an operation not known here",
    "mul": "product or quotient of tensors",
    "add": "sum or difference of tensors",
    "parameter": "parameters used where no row could claim them",
    "constant": "buffers and constants that inference reads where no row could claim them",
    "flatten": "flattening to a vector",
    "reshape": "any other change of shape",
    "identity": "nothing",
    "unused": "parameters that never reach the output, or a module never called",
    "module": "a module whose work could not be traced",
}

# Those that act in training, or act differently then.
TRAINING_KINDS = frozenset({"batchnorm", "dropout", "droppath", "noise"})

# The kinds that a budget may require or forbid.
LAYER_KINDS = {
    kind: KINDS[kind]
    for kind in (
        *("conv", "linear", "rnn", "attention", "batchnorm", "dropout"),
        *("gap", "maxpool", "avgpool"),
    )
}
