"""Networks of one to three thousand parameters that end on a map of a few pixels.

Without padding, the place of a stroke survives until the mean over the map; separable blocks
make it affordable to end with many channels. Blocks of one width may share their weights.
"""

name = "compact"
base = "sprint"
objectives = ["params", "accuracy"]
least = 98.0


def changes(choose):
    """Choose a stem, a stage after each of two pools, then training."""
    widths, kernels, kinds, shares, paddings = [], [], [], [], []

    def block(width, kernel, kind, share=0, padding=0):
        widths.append(width)
        kernels.append(kernel)
        kinds.append(kind)
        shares.append(share)
        paddings.append(padding)

    block(choose.integer("stem", 4, 10), choose.one_of("stem kernel", [3, 5]), "conv")
    if choose.one_of("a second block before the pool", [False, True]):
        block(choose.integer("second", 5, 12), 3, "separable")
    pools = [len(widths)]
    width = choose.integer("width a", 8, 20)
    kernel = choose.one_of("kernel a", [3, 5])
    share = choose.one_of("share a", [0, 1])
    block(width, kernel, "separable", padding=choose.one_of("pad a", [0, kernel // 2]))
    for i in range(choose.integer("more a", 0, 3)):
        block(width, 3, "separable", share, choose.one_of(f"pad a{i}", [0, 1]))
    pools.append(len(widths))
    width = choose.integer("width b", 12, 32)
    block(width, 3, "separable", padding=choose.one_of("pad b", [0, 1]))
    if choose.one_of("another b", [False, True]):
        block(width, choose.one_of("kernel b", [1, 3]), "separable")
    return {
        "model.crop": 0,
        "model.widths": widths,
        "model.kernels": kernels,
        "model.conv_types": kinds,
        "model.weight_groups": shares,
        "model.paddings": paddings,
        "model.pool_after": pools,
        "model.residual": choose.one_of("residual", [False, True]),
        "model.batchnorm_affine": choose.one_of("norm", ["shift", "full"]),
        "model.activation": choose.one_of("activation", ["relu", "silu"]),
        "model.deskew": choose.one_of("deskew", [False, True]),
        "model.views": 1,
        "model.dropout": 0.02,
        "train.epochs": 6,
        "train.batch_size": 128,
        "augment.degrees": 0.0,
        "augment.translate": 0.0,
        "augment.scale": 0.0,
        "augment.shear": 0.0,
        "optim.name": "adamw",
        "optim.weight_decay": 0.0,
        "optim.lr": choose.number("lr", 0.015, 0.08, log=True),
        "budget.params": "< 2600",
    }
