"""The prefix of the symbols, macros and files of an exported network.

It needs neither torch nor a graph, so that the command line can check a name before any work.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whit.export.program import Program

_MAX_LENGTH = 60
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*")  # `__` is reserved in C++
# Of C, then of C++.
_KEYWORDS = """
    alignas alignof auto bool break case char const constexpr continue default do double else enum
    extern false float for goto if inline int long nullptr register restrict return short signed
    sizeof static static_assert struct switch thread_local true typedef typeof typeof_unqual union
    unsigned void volatile while asm fortran
    and and_eq bitand bitor catch char16_t char32_t char8_t class co_await co_return co_yield compl
    concept const_cast consteval constinit decltype delete dynamic_cast explicit export friend
    mutable namespace new noexcept not not_eq operator or or_eq private protected public
    reinterpret_cast requires static_cast template this throw try typeid typename using virtual
    wchar_t xor xor_eq
"""
# Their headers would be found in place of the library's, and INT_WIDTH and the like are macros.
_LIBRARY = """
    assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign
    stdarg stdatomic stdbit stdbool stdckdint stddef stdint stdio stdlib stdnoreturn string tgmath
    threads time uchar wchar wctype strings unistd
    bool char schar uchar short ushort int uint long ulong llong ullong intmax uintmax intptr
    uintptr ptrdiff size wint sig_atomic
"""
_SIZED_INTEGER = re.compile(r"u?int(_fast|_least)?\d+")
ALLOWED = (
    f"a C identifier of at most {_MAX_LENGTH} letters, digits and single underscores that starts "
    "with a letter, does not end with an underscore, and is neither a keyword of C or C++ nor a "
    "name of the standard library"
)


def name_problem(name: str) -> str | None:
    """Return why a name cannot be the prefix of C symbols; None if it can."""
    if not name:
        return "it is empty"
    if name in _KEYWORDS.split():
        return "it is a keyword of C or C++"
    if name.lower() in _LIBRARY.split() or _SIZED_INTEGER.fullmatch(name.lower()):
        return "the standard library of C uses this name"
    if len(name) > _MAX_LENGTH:
        return f"it has {len(name)} characters"
    if not _IDENTIFIER.fullmatch(name):
        return "it is no such identifier"
    return None


def c_name(name: str) -> str:
    """Return a valid prefix: lowercase letters, digits and underscores, starting with a letter."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()[:_MAX_LENGTH].strip("_")
    if not plain[:1].isalpha() or name_problem(plain):
        plain = f"net_{plain}"[:_MAX_LENGTH].rstrip("_")
    return plain


def default_name(program: Program) -> str:
    """Return the prefix of a program without a given name; int8 and float32 differ."""
    suffix = "_int8" if program.int8 else ""
    return c_name(program.graph.name)[: _MAX_LENGTH - len(suffix)].rstrip("_") + suffix
