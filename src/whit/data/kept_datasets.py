"""Built-in data sets that are kept in memory from run to run of one process.

Reading and verifying MNIST takes a tenth of an epoch of a small network. What is kept is used
again only while its files have the same bytes, and nobody has written into its tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

from whit.data.datasets import DATASETS, hold_out, load_dataset
from whit.data.splits import Dataset
from whit.recipes.recipe_tables import DataSpec


@dataclass(frozen=True)
class _Kept:
    """A data set as it was when it was read."""

    files_sha256: str
    versions: tuple[int, ...]
    dataset: Dataset


_whole: dict[str, _Kept] = {}  # by name, without a split held out
_latest: dict[tuple[object, ...], _Kept] = {}  # at most one: that of the latest run


def load_kept_dataset(spec: DataSpec) -> Dataset:
    """Return what `load_dataset` returns; a built-in data set is read once in a process.

    Its files are read again when one of them has changed. The data set is shared with later runs:
    its tensors must not be changed. Raises DataError.
    """
    if spec.name not in DATASETS:
        return load_dataset(spec)
    files_sha256 = DATASETS[spec.name].digest_files()
    key = (spec.name, spec.val_size, spec.val_by, spec.val_block, spec.transpose)
    kept = _latest.get(key)
    if kept is None or not _is_valid(kept, files_sha256):
        dataset = hold_out(_load_whole(spec.name, files_sha256), spec)
        _latest.clear()
        kept = _latest[key] = _Kept(files_sha256, _versions(dataset), dataset)
    return kept.dataset


def _load_whole(name: str, files_sha256: str) -> Dataset:
    kept = _whole.get(name)
    if kept is None or not _is_valid(kept, files_sha256):
        dataset = load_dataset(name)
        kept = _whole[name] = _Kept(files_sha256, _versions(dataset), dataset)
    return kept.dataset


def _is_valid(kept: _Kept, files_sha256: str) -> bool:
    return (kept.files_sha256, kept.versions) == (files_sha256, _versions(kept.dataset))


def _versions(dataset: Dataset) -> tuple[int, ...]:
    """Return torch's counters of the writes into the tensors, by whatever shares their memory."""
    tensors = [tensor for split in dataset.splits for tensor in (split.images, split.labels)]
    return tuple(tensor._version for tensor in tensors)
