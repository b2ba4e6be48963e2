"""Layers that are no single operation: attention, recurrence, batch normalization by hand."""

from __future__ import annotations

from whit.analysis.tracing.trace import Op, Trace

_SOFTMAX = frozenset({"_softmax", "_safe_softmax", "exp", "exp2"})
_WITH_WEIGHTS = frozenset({"linear", "conv", "rnn", "embedding"})
_SHIFTS = {"add": "shifted", "sub": "shifted", "rsub": "shifted"}
_SCALES = {"mul": "scaled", "div": "scaled"}
_MOVES = {**_SHIFTS, **_SCALES}
_NORMALIZED = frozenset({"shifted", "scaled"})
_NONE: frozenset[int] = frozenset()


def mark_attention(trace: Trace) -> None:
    """Give products the kind `attention` where one weighs values by a softmax of the other.

    Both are products of operands that depend on the image. Between them may be any operations
    but products with stored weights.
    """
    scores: dict[int, frozenset[int]] = {}  # by storage: the products behind it
    weighed: dict[int, frozenset[int]] = {}  # those of them with a softmax after them
    for number, op in enumerate(trace.ops):
        if not op.uses_image:
            continue
        behind = _gather(scores, op)
        after_softmax = _gather(weighed, op)
        if op.pairs:
            for earlier in (*after_softmax, number) if after_softmax else ():
                trace.ops[earlier].kind = "attention"
            behind, after_softmax = frozenset({number}), _NONE
        elif op.kind in _WITH_WEIGHTS:
            behind, after_softmax = _NONE, _NONE
        elif op.name in _SOFTMAX:
            after_softmax |= behind
        for storage in op.writes:
            scores[storage], weighed[storage] = behind, after_softmax


def mark_batch_normalization(trace: Trace) -> None:
    """Give operations the kind `batchnorm` where batch statistics have shifted and scaled the data.

    That is how a batch normalization is written by hand: in training, means over the batch are
    subtracted from the data, and it is divided by deviations over the batch.
    """
    if not any(op.over_batch for op in trace.ops):
        return
    statistics: set[int] = set()  # storages of statistics of the batch
    data: dict[int, frozenset[str]] = {}  # by storage: what statistics have done to the data
    for op in trace.ops:
        if not op.uses_image:
            continue
        used = [data[storage] for storage in op.reads if storage in data]
        if op.over_batch or (not used and op.reads & statistics):
            statistics |= op.writes - data.keys()
            continue
        done: frozenset[str] = frozenset()
        if op.name in _MOVES or op.name in ("clone", "_to_copy", "copy", "neg"):
            done = done.union(*used)
        if op.name in _MOVES and op.reads & statistics:
            done |= {_MOVES[op.name]}
            if done == _NORMALIZED:
                op.kind = "batchnorm"
                done = frozenset()
        for storage in op.writes:
            data[storage] = done


def find_recurrent(trace: Trace) -> list[Op]:
    """Return the products with stored weights of results of the same weights, as in a loop in time.

    At each step the loop takes something new of the image: their operand depends on the image in
    another way too. They remain fully connected layers, and make the network a recurrent one.
    """
    found = []
    some: dict[int, frozenset[int]] = {}  # by storage: weights of products behind it
    always: dict[int, frozenset[int]] = {}  # those on every path from the image
    for op in trace.ops:
        behind = _gather(some, op)
        paths = [always[storage] for storage in op.reads if storage in always]
        on_all = frozenset.intersection(*paths) if paths else _NONE
        if op.kind == "linear" and op.macs and op.claims:
            if op.live and op.claims & behind - on_all:
                found.append(op)
            behind |= op.claims
            on_all |= op.claims
        for storage in op.writes:
            some[storage] = behind
            if op.uses_image:
                always[storage] = on_all
    return found


def _gather(known: dict[int, frozenset[int]], op: Op) -> frozenset[int]:
    return _NONE.union(*(known.get(storage, _NONE) for storage in op.reads))
