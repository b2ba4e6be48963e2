"""Networks of one to three thousand parameters that end on a map of a few pixels.

Without padding, the position of a stroke is still visible at global average pooling; separable
blocks make many channels in the last layer affordable. Blocks of equal width may share weights.
"""

name = "compact"
base = "sprint"
objectives = ["params", "accuracy"]
min_accuracy = 98.0


def suggest(trial):
    """Suggest a stem, a stage after each of two pools, then training."""
    widths, kernels, kinds, shares, paddings = [], [], [], [], []

    def block(width, kernel, kind, share=0, padding=0):
        widths.append(width)
        kernels.append(kernel)
        kinds.append(kind)
        shares.append(share)
        paddings.append(padding)

    block(
        trial.suggest_int("stem", 4, 10), trial.suggest_categorical("stem kernel", [3, 5]), "conv"
    )
    if trial.suggest_categorical("a second block before the pool", [False, True]):
        block(trial.suggest_int("second", 5, 12), 3, "separable")
    pools = [len(widths)]
    width = trial.suggest_int("width a", 8, 20)
    kernel = trial.suggest_categorical("kernel a", [3, 5])
    share = trial.suggest_categorical("share a", [0, 1])
    block(width, kernel, "separable", padding=trial.suggest_categorical("pad a", [0, kernel // 2]))
    for i in range(trial.suggest_int("more a", 0, 3)):
        block(width, 3, "separable", share, trial.suggest_categorical(f"pad a{i}", [0, 1]))
    pools.append(len(widths))
    width = trial.suggest_int("width b", 12, 32)
    block(width, 3, "separable", padding=trial.suggest_categorical("pad b", [0, 1]))
    if trial.suggest_categorical("another b", [False, True]):
        block(width, trial.suggest_categorical("kernel b", [1, 3]), "separable")
    return {
        "model.crop": 0,
        "model.widths": widths,
        "model.kernels": kernels,
        "model.strides": [1] * len(widths),
        "model.conv_types": kinds,
        "model.weight_groups": shares,
        "model.paddings": paddings,
        "model.pool_after": pools,
        "model.residual": trial.suggest_categorical("residual", [False, True]),
        "model.batchnorm_affine": trial.suggest_categorical("batchnorm affine", ["bias", "full"]),
        "model.activation": trial.suggest_categorical("activation", ["relu", "silu"]),
        "model.deskew": trial.suggest_categorical("deskew", [False, True]),
        "eval.tta_shifts": 0,
        "model.dropout": 0.02,
        "train.epochs": 6,
        "sampling.fraction": 1.0,  # all images in each epoch
        "train.batch_size": 128,
        "augment.degrees": 0.0,
        "augment.translate": 0.0,
        "augment.scale": 0.0,
        "augment.shear": 0.0,
        "optim.name": "adamw",
        "optim.weight_decay": 0.0,
        "optim.lr": trial.suggest_float("lr", 0.015, 0.08, log=True),
        "budget.params": "< 2600",
    }
