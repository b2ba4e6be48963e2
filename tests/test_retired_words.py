"""Words and phrases that are no longer used, with the standard terms that replace them.

Every string literal, docstring and comment in the package, and the documents, are searched; so is
text that is wrapped over several lines. Identifiers are not. docs/LOG.md is a history and stays as
it was written.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Regular expression, and what to write in its place. A space matches any white space, a line break
# included. Case is ignored, but in `(?-i:...)`.
RETIRED = {
    # The command line.
    r"\bverbs?\b": "command",
    r"--to (FORM|onnx|c|html)\b": "--format",
    r"--accept-changes\b|\baccept_changes\b": "--allow-changes, allow_changes",
    r"--take-over\b|\btake_over\b": "--steal-lock, steal_lock",
    r"--own-models\b|\bown_models\b": "--trust-model-files, trust_model_files",
    r"\bdecides (weights|what is suggested)\b": "random seed (initialization, shuffling, ...)",
    r"\bbelieves no record\b": "ignores stored results",
    r"\bwith whit of an installed package\b": "whit VERSION (installed package, commit unknown)",
    # Budgets and verdicts.
    r"(?-i:\bMISSED\b)": "FAIL",
    r"\bkept / missed\b": "pass / FAIL / pending",
    r"\bverdict(:| is| stays| remains)? open\b|\bleaves? the verdict open\b": "pending",
    r"\b(text|string) with its sign\b": 'a string with a comparison, such as "< 20000"',
    # Training and evaluation.
    r"\bwarps\b|\bwarped\b": "augmentation, augmented",
    r"\bupright\b": "moment-based deskewing",
    r"\b(two|five|nine|more|several|many|all|the|of its) looks\b": "test-time augmentation",
    r"\blooks (once|twice|(four|five|nine|several|many) times)\b": "test-time augmentation",
    r"\b(five|nine|[59]) views\b|\bviews = \d": "test-time augmentation: [eval] tta_shifts",
    r"\ban image and its shifts\b": "test-time augmentation over pixel shifts",
    r"\bside by side\b": "two-column network; compare runs; adjacent",
    r"\b(learns?|learning) from (a|the) trained (one|network|run)\b": "knowledge distillation",
    r"\bhints (of|from) (a|the|its) (teacher|trained)\b": "knowledge distillation, teacher logits",
    r"\bstraight lines over progress\b": "piecewise-linear learning-rate schedule",
    r"\b(leaves?|leaving|left) (the )?test( split)? alone\b": "does not evaluate on test",
    r"\btest split (is|was) left alone\b": "not evaluated on test",
    r"\b(reads?|reading) (neither )?the test split\b": "evaluates on test",
    # Quantization and export.
    r"\bwhole[- ]numbers?\b": "integer; int8, integer arithmetic",
    r"\bweights of few bits\b": "low-bit weights by quantization-aware training",
    r"\bstores no more\b": "packed",
    r"\bships? (a|the) (run|model|network)\b": "export",
    r"\bnot to be called by two at once\b": "not thread-safe (uses static buffers)",
    r"\blines of (\d+|\S+) places\b": "rows x columns",
    # Studies and searches.
    r"\bevidence (suffices|does not suffice)\b": "(not) statistically significant",
    r"\bweigh(s|ed|ing)? what\b": "compare the results, significance tests",
    r"\bseeds? would not either\b": "even 1,000 seeds could not resolve a difference this small",
    r"\bseeds in pairs\b": "paired t-test, n = 3",
    r"\bseeds? (has|have|had) ended before\b": "already finished",
    r"\bthere from before\b": "Resuming: 10 trials already done",
    r"\bg(ive|ives|ave|iven|iving) up early\b": "pruned",
    r"\bhopeless\b": "pruned",
    r"\bfinalists?\b": "confirmation runs",
    # Runs and their integrity.
    r"\bgo(es|ing)? on\b|\bgone on\b": "resume, continue",
    r"\bg(ive|ives|ave|iven|iving) (it |them |a run |the run )?back\b": "release; return",
    r"\bone owner\b": "locked by one process",
    r"\b(seal|seals|sealed|unsealed|sealing)\b": "SHA-256 manifest, digest",
    r"\baltered unseen\b": "tamper-evident",
    r"\bsame words for any runs\b": "the same statistics",
    r"\btaken for dead\b": "presumed dead",
    r"\bstrangers?\b": "untrusted input, untrusted files",
    r"\bwith suspicion\b": "parsed defensively, never executed",
    # Reports and the web page.
    r"\btrue \S{1,12}, said\b|\btrue \\+ said\b": "label 5, predicted 6; true \\ predicted",
    r"\bas sure as right\b": "perfect calibration",
    r"\bshare right\b": "accuracy",
    r"\blargest probability\b": "confidence",
    r"\bwhat it looked at\b|\bmakes? it less sure\b": "occlusion map: supports, opposes",
    r"(?-i:\bBeside it\b)": "Compare with",
    r"\bmaps, layer by layer\b": "Feature maps",
    r"\blay (their|the) curves over\b": "overlay the curves",
    # Headings of documents.
    r"(?-i:# What it reaches\b)": "Results",
    r"(?-i:# Two commands\b)": "Quick start",
    r"(?-i:# Seeds, and searching\b)": "Studies and hyperparameter search",
    r"(?-i:# What counts\b)": "Counting rules",
    r"(?-i:# The page\b)": "Web UI",
    r"(?-i:# A run folder\b)": "Run folders, resume and integrity",
    r"(?-i:# Evidence\b)": "Reproducing the results",
    r"\bwhere to look in the code\b": "Architecture",
    r"\bwhat is equal, and how exactly\b": "Reproducibility",
    r"(?-i:# More than one machine\b)": "Distributed execution",
    r"\bDESIGN\.md\b": "no such file",
    # Translated idioms.
    r"\bwanted\b": "expected",
    r"\bshipped\b": "built-in, included",
    r"\bbegun\b": "started",
    r"\banew\b": "again, restarted",
    r"\bfor ever\b": "blocks, indefinitely",
    r"\b(leave|leaves|leaving) \S+ away\b|\bleft away\b": "omit",
    r"\bas wide as they are\b": "of their full width",
    r"\bnamed by name\b": "listed",
    r"\bcannot be made\b": "cannot create, cannot be created",
    # One spelling of -ize.
    r"\b(normal|quant|initial|optim|general|regular|serial|summar|visual|recogn|minim|maxim|organ)"
    r"is(e|es|ed|ing|er|ers|ation|ations|able)\b": "-ize, -ization",
}
PATTERNS = {
    re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE): replacement
    for pattern, replacement in RETIRED.items()
}

# Comments and string literals of JavaScript, C and CSS.
_TEXT_OF_CODE = re.compile(
    r"//[^\n]*|/\*.*?\*/"
    r"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`",
    re.DOTALL,
)
_MARKERS = re.compile(r"[\"'`#]|//|/\*|\*/|^ *\*", re.MULTILINE)
_CODE = "\0"  # stands for a character of code, so that no phrase matches across it
_PREFIX = re.compile(r"^[A-Za-z]+(?=[\"'])")
_REPLACEMENT_FIELD = re.compile(r"(?<!\{)\{(?!\{)[^{}]*\}")
# Python 3.12 and later split an f-string into tokens; earlier ones have one of type STRING.
_FSTRING_START = getattr(tokenize, "FSTRING_START", None)
_FSTRING_END = getattr(tokenize, "FSTRING_END", None)
_FILES = (
    *("src/whit/**/*.py", "src/whit/**/*.js", "src/whit/**/*.c", "src/whit/**/*.h"),
    *("src/whit/**/*.css", "src/whit/**/*.html", "src/whit/**/*.toml"),
    *("README.md", "CHANGELOG.md", "Makefile", "docs/**/*.md", "examples/**/*.py"),
    *("benchmarks/*.py", "benchmarks/*.md", "records/*.py"),
)
_EXEMPT = (
    "docs/LOG.md",  # a history
    "src/whit/recipes/schema1.py",  # names the keys that are refused
    "src/whit/web/demo_runs/",  # runs as they were recorded
)
FILES = sorted(
    path
    for pattern in _FILES
    for path in ROOT.glob(pattern)
    if not path.relative_to(ROOT).as_posix().startswith(_EXEMPT)
)


def group_of(path: Path) -> str:
    """`src/whit/data` for a file of a package, `docs` for a document."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[:3] if parts[0] == "src" and len(parts) > 3 else parts[:1])


GROUPS = sorted({group_of(path) for path in FILES})


def _hide(text: str) -> str:
    """Return code of the same lines and length, in which no word is found."""
    return re.sub(r"\S", _CODE, text)


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _mask(text: str, spans: list[tuple[int, int]]) -> str:
    """Return `text` with what lies outside `spans` hidden, and without quotes and comment signs."""
    parts = []
    end = 0
    for start, stop in spans:
        parts += [_hide(text[end:start]), _MARKERS.sub(_blank, text[start:stop])]
        end = stop
    return "".join([*parts, _hide(text[end:])])


def text_of_python(source: str) -> str:
    """Return the comments and strings of Python, at their lines, with all else hidden.

    Adjacent literals become one text, as they are one string.
    """
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    spans: list[tuple[int, int]] = []
    text = list(source)
    depth, first = 0, 0  # of f-strings inside one another
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        start, stop = (starts[row - 1] + column for row, column in (token.start, token.end))
        if token.type == _FSTRING_START:
            first = start if not depth else first
            depth += 1
            continue
        if token.type == _FSTRING_END:
            depth -= 1
            start = first
        elif token.type not in (tokenize.STRING, tokenize.COMMENT):
            continue
        if depth:
            continue
        spans.append((start, stop))
        if token.type != tokenize.COMMENT:
            literal = _PREFIX.sub(_blank, source[start:stop])
            if "f" in source[start : start + 2].lower().split('"')[0].split("'")[0]:
                literal = _REPLACEMENT_FIELD.sub(lambda match: _hide(match[0]), literal)
            text[start:stop] = literal
    return _mask("".join(text), spans)


def text_of(path: Path) -> str:
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return text_of_python(source)
    if path.suffix in (".js", ".c", ".h", ".css"):
        return _mask(source, [match.span() for match in _TEXT_OF_CODE.finditer(source)])
    return source


def find_retired(path: Path, text: str) -> Iterator[str]:
    for pattern, replacement in PATTERNS.items():
        for match in pattern.finditer(text):
            line = 1 + text.count("\n", 0, match.start())
            found = " ".join(match[0].split())
            yield f"{path.relative_to(ROOT)}:{line}: {found!r}: write: {replacement}"


@pytest.mark.parametrize("group", GROUPS)
def test_no_retired_words(group: str) -> None:
    found = [
        problem
        for path in FILES
        if group_of(path) == group
        for problem in find_retired(path, text_of(path))
    ]
    if found:
        pytest.fail("\n".join(sorted(found)), pytrace=False)


SAMPLE = '''
"""A docstring that goes
on over two lines."""
wanted = 1  # a name is not text
x = f"begun with {wanted} whole " + "numbers"
raise ValueError(
    f"two networks side by {wanted!r}, side by "
    "side"
)
y = ("whole", "numbers")  # the evidence
# suffices here
'''


def test_the_search_finds_what_is_wrapped_and_no_names() -> None:
    text = text_of_python(SAMPLE)
    assert text.count("\n") == SAMPLE.count("\n")
    found = [problem.split(": write")[0] for problem in find_retired(ROOT / "x.py", text)]
    assert sorted(found) == [
        "x.py:10: 'evidence suffices'",
        "x.py:2: 'goes on'",
        "x.py:5: 'begun'",
        "x.py:7: 'side by side'",
    ]


def test_every_pattern_compiles_to_words_of_its_own() -> None:
    """None finds its own replacement, which would leave nothing to write."""
    for pattern, replacement in PATTERNS.items():
        assert not pattern.search(replacement), (pattern.pattern, replacement)
