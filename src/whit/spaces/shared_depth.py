"""Networks of one to three thousand parameters: three stages, in which blocks may share weights.

A stage begins with a block of its own that sets the width; the blocks after it keep it, so they
may use one another's weights and add their input.
"""

name = "shared_depth"
base = "sprint"
objectives = ["params", "accuracy"]
least = 98.0


def changes(choose):
    """Choose stages, then training."""
    widths, kernels, kinds, shares, pools = [], [], [], [], []

    def block(width, kernel, kind, share=0):
        widths.append(width)
        kernels.append(kernel)
        kinds.append(kind)
        shares.append(share)

    block(choose.integer("stem", 4, 12), choose.one_of("stem kernel", [3, 5]), "conv")
    early = choose.one_of("pool the stem", [True, False])
    if early:
        pools.append(1)
    for stage in (1, 2):
        kind = choose.one_of(f"kind {stage}", ["conv", "separable"])
        width = choose.integer(f"width {stage}", 5, 12 if kind == "conv" else 24)
        kernel = choose.one_of(f"kernel {stage}", [3, 5]) if kind == "separable" else 3
        block(width, kernel, kind)
        if stage == 2 or not early:
            pools.append(len(widths))
        more = choose.integer(f"more {stage}", 0, 3)
        share = stage if choose.one_of(f"share {stage}", [True, False]) else 0
        for _ in range(more):
            block(width, kernel, kind, share)
    if choose.one_of("widen", [True, False]):
        block(choose.integer("last", 10, 32), 1, "conv")
    return {
        "model.widths": widths,
        "model.kernels": kernels,
        "model.kinds": kinds,
        "model.shares": shares,
        "model.pools": pools[:2],
        "model.paddings": [kernel // 2 for kernel in kernels],
        "model.residual": choose.one_of("residual", [True, False]),
        "model.norm": "shift",
        "model.dropout": 0.02,
        "train.epochs": 6,
        "train.batch_size": 128,
        "augment.rotate": 0.0,
        "augment.shift": 0.0,
        "augment.scale": 0.0,
        "augment.shear": 0.0,
        "optim.name": "adamw",
        "optim.weight_decay": 0.0,
        "optim.lr": choose.number("lr", 0.01, 0.1, log=True),
        "budget.params": "< 2600",
    }
