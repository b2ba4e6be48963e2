"""IPython's additions to Python: magics, shell lines, help lines and prompts become plain Python.

Line numbers do not change. A special line is one at which Python's parser fails and that has
IPython's syntax, so a line `% b` inside brackets or `!` in a string does not change.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Set
from dataclasses import dataclass

from whit.models.user_code.reading import source

# Cell magics whose cell is still Python of the notebook itself. All others pass the cell to
# another language, another process or a file.
PYTHON_CELL_MAGICS = {
    *("time", "timeit", "capture", "prun", "memit", "mprun", "debug", "matplotlib", "wandb"),
    *("heat", "snakeviz", "scalene", "pyinstrument", "ipytest", "notify"),
}
FILE_CELL_MAGICS = {"writefile", "file"}

# Line magics and shell aliases that IPython accepts without `%` ("automagic").
_AUTOMAGICS = """
    alias alias_magic autoawait autocall automagic autoreload bookmark cat cd clear code_wrap
    colors conda config cp debug dhist dirs doctest_mode ed edit env gui hist history killbgscripts
    ldir less lf lk ll load load_ext loadpy logoff logon logstart logstate logstop ls lsmagic lx
    macro magic mamba man matplotlib memit micromamba mkdir more mprun mv notebook page pastebin
    pdb pdef pdoc pfile pinfo pinfo2 pip popd pprint precision prun psearch psource pushd pwd pycat
    pylab quickref recall rehashx reload_ext rep rerun reset reset_selective rm rmdir run save sc
    set_env store sx system tb tensorboard tensorflow_version time timeit unalias unload_ext uv who
    who_ls whos xdel xmode
"""
AUTOMAGICS = frozenset(_AUTOMAGICS.split())

# `,f a b`, `;f a b` and `/f a b` call f.
_SPECIAL_LINE = re.compile(r"\s*(?:[%!?]|[,;/]\s*[A-Za-z_])")
_HELP_LINE = re.compile(r"[^#'\"]*[\w*\])]\s*\?{1,2}\s*$")
_ASSIGNMENT = re.compile(r"(?P<target>[\w.,()\[\]'\" \t*]+=)\s*(?P<kind>!|%{1,2})(?P<rest>.*)$")
_BINDING = re.compile(
    r"^[ \t]*(?:([\w, \t]+?)[ \t]*=(?!=)|(?:def|class)[ \t]+(\w+)|for[ \t]+([\w, \t]+?)[ \t]+in\b"
    r"|(?:from[ \t]+[\w.]+[ \t]+)?import[ \t]+([\w., \t]+))",
    re.MULTILINE,
)
# `%run -i "./blocks.py" 1 2` executes a file in the notebook.
_RUN_FILE = re.compile(r"(?:-\w+ +)*(?:\./)?([\w/]+?)(?:\.py|\.ipynb)?(?:\s.*)?")
_WORD = re.compile(r"\s*([A-Za-z_]\w*)(?=\s|$)")
_PROMPT = re.compile(r"\s*(?:>>>|\.\.\.|In \[\d+\]:|\s+\.\.\.+:)(?: |$)")
_FIRST_PROMPT = re.compile(r"\s*(?:>>>|In \[\d+\]:)(?: |$)")


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """The content of a `%%writefile` cell."""

    path: str
    text: str
    appends: bool

    @property
    def relative_path(self) -> str:
        """The path below the notebook's folder; of an absolute path, the name of the file."""
        parts = self.path.replace("\\", "/").split("/")
        return parts[-1] if not parts[0] else "/".join(p for p in parts if p != ".")


def strip_cell(text: str, names: Set[str]) -> str | WrittenFile | None:
    """Return a cell as Python; the file that it writes; or None if it is another language's.

    `names` are bound in the notebook: none of them is a magic there.
    """
    lines = _strip_margin(text.split("\n"))
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    while lines[first].startswith("%%"):
        words = lines[first][2:].split()
        magic = words[0] if words else ""
        if magic in FILE_CELL_MAGICS and len(words) > 1:
            body = "\n".join([*lines[first + 1 :], ""])
            path = words[-1].strip("'\"")
            return WrittenFile(path, body, bool({"-a", "--append"} & set(words)))
        if magic not in PYTHON_CELL_MAGICS:
            return None
        lines[first] = ""
        first = next((i for i in range(first, len(lines)) if lines[i].strip()), first)
        if not lines[first]:
            break
    return strip_lines("\n".join(lines), names)


def strip_lines(text: str, names: Set[str] = frozenset()) -> str:
    """Return Python text with each magic, shell or help line replaced."""
    lines = text.split("\n")
    for _ in range(len(lines)):
        try:
            source.parse_quietly("\n".join(lines))
            break
        except SyntaxError as error:
            index = (error.lineno or 1) - 1
            if index >= len(lines):
                break
            end = _continuation_end(lines, index)
            joined = " ".join(line.rstrip().removesuffix("\\") for line in lines[index : end + 1])
            replacement = _replace(joined, names)
            if replacement is None:
                break  # another syntax error: reported if the class depends on the cell
            lines[index : end + 1] = [replacement, *[""] * (end - index)]
    return "\n".join(lines)


def expand_cells(text: str) -> tuple[str, tuple[int, ...], dict[str, str]]:
    """Return a file that Jupyter or Colab exported with its cells of Python as Python.

    An export has a cell under a magic, such as `%%time`, as a text in a call of
    `get_ipython().run_cell_magic`. Return also the line in `text` of each line of the result, none
    if nothing has changed, and the files that the cells write, by their paths.
    """
    if "get_ipython().run_" not in text:
        return text, (), {}
    try:
        tree = source.parse_quietly(text)
    except SyntaxError:
        return text, (), {}
    rows = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    replaced: dict[int, tuple[int, list[str]]] = {}  # first line -> last line, rows in its place
    written: dict[str, str] = {}
    for node in tree.body:
        cell = _exported_cell(node)
        if cell is None or rows[node.lineno - 1].lstrip()[:1] == ";":
            continue
        python = strip_cell(cell, frozenset())
        if isinstance(python, WrittenFile):
            before = written.get(python.relative_path, "") if python.appends else ""
            written[python.relative_path] = before + python.text
        elif python is not None and _parses(python):
            replaced[node.lineno] = (node.end_lineno or node.lineno, python.split("\n"))
    lines: list[str] = []
    numbers: list[int] = []
    skipped_to = 0
    for number, row in enumerate(rows, start=1):
        if number <= skipped_to:
            continue
        skipped_to, new = replaced.get(number, (number, [row]))
        lines += new
        numbers += [number] * len(new)
    return ("\n".join(lines), tuple(numbers), written) if replaced else (text, (), written)


def _exported_cell(node: ast.stmt) -> str | None:
    """Return the text of the magic that a statement calls as an exported notebook does."""
    call = node.value if isinstance(node, ast.Expr) else None
    if not isinstance(call, ast.Call) or call.keywords:
        return None
    constants = [each.value for each in call.args if isinstance(each, ast.Constant)]
    values = [value for value in constants if isinstance(value, str)]
    if len(values) != len(call.args):
        return None
    match ast.unparse(call.func), values:
        case "get_ipython().run_cell_magic", [name, line, body]:
            return f"%%{name} {line}\n{body}"
        case "get_ipython().run_line_magic", ["run" | "time" as name, line]:
            return f"%{name} {line}"
    return None


def find_names(texts: Iterable[str]) -> Set[str]:
    """Return the words that some line of the texts binds, whether or not they can be parsed."""
    names: set[str] = set()
    for text in texts:
        for binding in _BINDING.finditer(text):
            names.update(re.findall(r"\w+", " ".join(filter(None, binding.groups()))))
    return names


def _continuation_end(lines: list[str], index: int) -> int:
    while lines[index].rstrip().endswith("\\") and index + 1 < len(lines):
        index += 1
    return index


def _replace(line: str, names: Set[str]) -> str | None:
    """Return the Python line in place of a special one; None if it is not special."""
    indent, code = line[: len(line) - len(line.lstrip())], line.strip()
    assignment = _ASSIGNMENT.match(code)
    if assignment and not _SPECIAL_LINE.match(code):
        return indent + _replace_assignment(**assignment.groupdict())
    word = _WORD.match(code)
    is_automagic = bool(word and word[1] in AUTOMAGICS and word[1] not in names)
    if not (_SPECIAL_LINE.match(code) or _HELP_LINE.match(code) or is_automagic):
        return None
    magic, _, rest = code.removeprefix("%").partition(" ")
    statement = rest.strip()
    if magic == "run":
        statement = re.sub(r"""(["'])(.*?)\1""", r"\2", statement)
    if magic == "time" and _parses(statement):
        return indent + statement  # it runs in the notebook, and may bind names
    if magic == "run" and (module := _RUN_FILE.fullmatch(statement)):
        return f"{indent}from {module[1].replace('/', '.')} import *"
    return f"{indent}pass  # {code}"


def _replace_assignment(target: str, kind: str, rest: str) -> str:
    """Return `x = !command` and `x = %magic` as IPython itself calls them."""
    magic, _, argument = rest.strip().partition(" ")
    if kind == "!":
        return f"{target} get_ipython().getoutput({rest.strip()!r})"
    if magic == "time" and _parses(argument.strip()):
        return f"{target} {argument.strip()}"
    return f"{target} get_ipython().run_line_magic({magic!r}, {argument.strip()!r})"


def _parses(code: str) -> bool:
    try:
        return bool(source.parse_quietly(code).body)
    except SyntaxError:
        return False


def _strip_margin(lines: list[str]) -> list[str]:
    """Remove the indentation and the prompts of a pasted cell, as IPython does."""
    first = next((line for line in lines if line.strip()), "")
    margin = first[: len(first) - len(first.lstrip())]
    lines = [line.removeprefix(margin) for line in lines]
    if _FIRST_PROMPT.match(first):
        lines = [_PROMPT.sub("", line, count=1) for line in lines]
    return lines
