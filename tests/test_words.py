"""One word per thing, in plain English: what identifiers, messages, help texts and docstrings may not say.

Everything is read off the source, so that a word that was replaced does not come back.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("mst_clipiqa", "tests", "speed", "fuzz", "mini_training", "mutation", "examples")
PACKAGE = "mst_clipiqa/"
SELF = "tests/test_words.py"

# A replaced word -> the word that the field uses. They are looked for in every identifier, flag, column and key.
REPLACED = {
    "judge": "predictor",
    "verb": "analysis or command",
    "verbs": "analysis or commands",
    "picture": "image",
    "pictures": "images",
    "guard": "middleware",
    "spoilt": "distorted",
    "processor": "cpu",
}
# Whole names that are gone.
GONE = {"Ask", "Held", "Account", "_Dressed", "lower_better", "count_trained", "read_ask", "is_known"}
# Names of other libraries.
THEIRS = {"post_processor", "CLIPImageProcessor", "CLIPImageProcessorPil", "lower_better"}

OURS = {"MstClipiqaError", "UsageError", "ImageError", "PromptError", "ModelError", "DataError", "BadParameter"}
ROW_REASONS = {"ImageError", "PromptError"}
"""Their message becomes a cell of a row, where notes are joined by semicolons: no capital and no period."""

_ONE = "batch|file|image|item|line|part|pair|picture|prompt|request|row|second|space|split|step|thing|thread"
_MANY = "bytes|each|errors?|files?|images?|items?|lines?|ms|pixels|pictures?|processes|rows?|seconds|threads?|values?"
# How the house used to write, as patterns -> plain English. Case does not count.
PLAIN = {
    rf"\b({_MANY}) an? ({_ONE})\b": "per",
    r"\ba step\b": "per batch",
    r"\b(go|goes|going|gone) on (from|with|where|at|without)\b|\bgone on\b": "resume, continue",
    r"\bprocessors?\b": "CPU",
    r"\b(is|are|was|were|be) told\b|\btells? (by )?how much\b": "is given, is reported",
    r"\bunless (told otherwise|said)\b|\b(where|if so) asked\b": "by default, if asked",
    r"\b(lies?|lay|stands?|stood) (alone|at|below|beside|in|there|where)\b": "is, comes",
    r"\bwhere (it|none|there|they) (is|are|lies?|stands?) (no|none|not|there)\b": "if",
    r"\bthat (is|are) (not )?there\b": "that exists",
    r"\blikes best\b|\b(who )?hears? of\b|\bnot sure how sure\b|\bwhat of an?\b": "plain words",
    r"\bspoilt\b|\bpictures?\b|\bthe judge\b|\bverbs\b": "distorted, image, predictor, commands",
}
ANY = re.compile("|".join(PLAIN), re.IGNORECASE)


@dataclass(frozen=True)
class Text:
    """A piece of prose in the source: its line, its kind and what it says; ``{}`` stands for a value."""

    line: int
    kind: str  # "docstring", "comment", "help", "message" or "reason"
    words: str


def sources() -> dict[str, str]:
    found = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in found}


SOURCES = sources()


@lru_cache(1)
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


def words_of(name: str) -> list[str]:
    """Return the lower-case words of an identifier, flag or key: "SkipVerb", "skip_verb" -> ["skip", "verb"]."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def names(source: str) -> Iterator[tuple[int, str]]:
    """Yield every identifier, and every string that could be a flag, a column or a key."""
    for node in ast.walk(parsed(source)):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Attribute(value=ast.Name(id="platform")):
                pass  # platform.processor
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.alias(name=name):
                yield line, name
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield line, name
            case ast.keyword(arg=str(name)):
                yield line, name
            case ast.Constant(value=str(text)) if re.fullmatch(r"-{0,2}[A-Za-z][\w-]*", text):
                yield line, text


def replaced(source: str) -> list[str]:
    """Return the names in which a word occurs that was replaced."""
    found = []
    for line, name in names(source):
        if name in THEIRS:
            continue
        old = [word for word in words_of(name) if word in REPLACED]
        if old or name in GONE:
            found.append(f"{line}: {name}" + (f" (say {REPLACED[old[0]]})" if old else " (gone)"))
    return sorted(set(found))


def defined(source: str) -> list[str]:
    """Return the classes and the constants, aliases and other capitalised names that a file defines at its top."""
    found = []
    tree = parsed(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found.append(node.name)
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            found += [one.id for one in ast.walk(target) if isinstance(one, ast.Name)] if target else []
    return [name for name in dict.fromkeys(found) if name.lstrip("_")[:1].isupper()]


def twice(files: dict[str, str]) -> dict[str, list[str]]:
    """Return the classes and constants that several files define, with these files."""
    where: dict[str, list[str]] = defaultdict(list)
    for file, source in files.items():
        for name in defined(source):
            where[name].append(file)
    return {name: places for name, places in where.items() if len(places) > 1}


def prose(node: ast.AST | None) -> str | None:
    """Return a string or an f-string as text, with ``{}`` for each value; None if it is neither."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(prose(value) or "{}" for value in values)
        case ast.BinOp(left=left, op=ast.Add()):
            return None if prose(left) is None else f"{prose(left)}{{}}"
    return None


def texts(source: str) -> Iterator[Text]:
    """Yield docstrings, help texts, messages to a person, and comments if one may not be plain."""
    helps: set[ast.stmt] = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.FunctionDef):
            helps |= {node.body[0]} if is_command(node) else set()
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield Text(node.lineno, "help" if node in helps else "docstring", node.value.value)
        if isinstance(node, ast.Call):
            yield from texts_of_call(node)
    after_signs = (line.partition("#")[2] for line in source.split("\n"))
    if not any(ANY.search(" ".join(words.split())) for words in after_signs):
        return  # whatever of it is a comment: to find those takes longer than all the rest
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(token.start[0], "comment", token.string.lstrip("# "))


def is_command(node: ast.AST) -> bool:
    """Return whether a docstring is shown by ``--help``."""
    made_by = [ast.unparse(one) for one in getattr(node, "decorator_list", [])]
    return any(re.match(r"(click|\w+)\.(command|group)\(", one) for one in made_by)


def texts_of_call(node: ast.Call) -> Iterator[Text]:
    called = ast.unparse(node.func).split(".")[-1]
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    first = prose(node.args[0]) if node.args else None
    if called in {"option", "argument", "version_option"} and (text := prose(keywords.get("help"))) is not None:
        yield Text(node.lineno, "help", text)
    if first is not None and called in OURS:
        yield Text(node.lineno, "reason" if called in ROW_REASONS else "message", first)
    if first is not None and called == "echo" and "err" in keywords:
        yield Text(node.lineno, "message", first)


def badly_put(source: str) -> list[str]:
    """Return the texts that are not as the house writes them."""
    found = []
    for text in texts(source):
        words = " ".join(text.words.split())
        where = f"{text.line}: {text.kind}"
        if text.kind in ("help", "message"):
            if not re.match(r"[A-Z0-9{\"]|--[a-z]", words):
                found.append(f"{where} begins in lower case: {words[:60]!r}")
            if not re.search(r"(\.|\{\})$", words) and not text.words.startswith(("Note", "  ")):
                found.append(f"{where} ends without a period: {words[-60:]!r}")
        if text.kind == "help" and (words.startswith("Of ") or "`" in words):
            found.append(f"{where} begins with 'Of' or has backticks: {words[:60]!r}")
        if text.kind == "docstring" and re.search(r"(?<!`)`(?!`)", re.sub(r"``.+?``", "", words)):
            found.append(f"{where} has single backticks: {words[:60]!r}")
        for pattern, better in PLAIN.items():
            if match := re.search(pattern, words, re.IGNORECASE):
                found.append(f"{where} says {match.group()!r} (say: {better})")
    return found


@pytest.mark.parametrize("file", [file for file in SOURCES if file != SELF])
def test_replaced_words_do_not_come_back_and_prose_is_plain(file: str) -> None:
    assert [*replaced(SOURCES[file]), *badly_put(SOURCES[file])] == []


@pytest.mark.parametrize("source", ["class Judge: pass", "skip_verb = 1", "f(picture=1)", "x['pictures']", "a.guard"])
def test_a_replaced_word_is_noticed(source: str) -> None:
    assert replaced(source)


def test_no_class_or_constant_is_defined_twice_in_the_package() -> None:
    found = twice({file: source for file, source in SOURCES.items() if file.startswith(PACKAGE)})
    assert found == {}


def test_a_second_definition_is_noticed() -> None:
    assert twice({"a.py": "class Part: pass\nx = 1", "b.py": "Part = int\nx = 2", "c.py": "FILE = 1"}) == {
        "Part": ["a.py", "b.py"]
    }


@pytest.mark.parametrize(
    "source",
    [
        'raise DataError("expected a file, got none.")',
        'raise UsageError(f"Expected {a}, got none")',
        'click.option("--seed", help="Of the split.")',
        'click.option("--seed", help="random seed.")',
        'click.echo(f"stopped after {n} rows.", err=True)',
        'def f():\n    """Return `x`."""',
        '@click.command("f")\ndef f():\n    """Return ``x``."""',
        "x = 1  # images a step",
        '"""A file that is there is gone on from."""',
    ],
)
def test_bad_prose_is_noticed(source: str) -> None:
    assert badly_put(source)
