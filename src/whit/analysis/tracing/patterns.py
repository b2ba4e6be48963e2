"""Layers that are no single operation, found in the data flow: attention and recurrence."""

from __future__ import annotations

from whit.analysis.tracing.trace import Op, Trace

_SOFTMAX = frozenset({"_softmax", "_safe_softmax", "exp", "exp2"})
_WITH_WEIGHTS = frozenset({"linear", "conv", "rnn", "embedding"})
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
