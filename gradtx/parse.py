"""Optimizers from text, such as `chain(clip_by_global_norm(1.0), adam(3e-3))`.

The text is read with `ast` and built by looking names up in `gradtx.__all__`; nothing is ever
evaluated. What is understood: calls of public gradtx names, with numbers, strings, booleans,
`None`, tuples, lists, dicts and further calls as arguments. Anything else is refused.
"""

from __future__ import annotations

import ast
import difflib
import warnings
from collections.abc import Iterable
from typing import Any

import gradtx


class ParseError(ValueError):
    """The text is not understood; the message is one line that says why."""


def split_calls(text: str) -> list[str]:
    """The comma-separated pieces of `text`; commas inside brackets do not separate.

    Raises:
      ParseError: `text` is not a list of names and calls.

    >>> split_calls("sgd, chain(clip(1.0), adam(3e-3))")
    ['sgd', 'chain(clip(1.0), adam(3e-3))']
    """
    source = f"[{text}]"
    tree = _read(source, shown=text)
    if not isinstance(tree, ast.List) or not tree.elts:
        raise ParseError(f"expected names or calls separated by commas, got {text!r}")
    return [ast.get_source_segment(source, element) or "" for element in tree.elts]


def parse_transformation(text: str) -> gradtx.GradientTransformation:
    """The transformation that a call text stands for.

    Raises:
      ParseError: the text is no call of public gradtx names with literals, the call fails, or
        its result is not a transformation.

    >>> parse_transformation("chain(clip(1.0), sgd(0.1, momentum=0.9))")
    chain(clip(max_delta=1.0), sgd(learning_rate=0.1, momentum=0.9))
    """
    result = _build(_read(text, shown=text))
    if not isinstance(result, gradtx.GradientTransformation):
        raise ParseError(f"{text!r} is not a gradient transformation")
    return result


def nearest(name: str, valid: Iterable[str]) -> str:
    """The valid names that look most like `name`, or all of them if none does.

    >>> nearest("adaam", ["sgd", "adam", "adamw"])
    'did you mean adam, adamw?'
    """
    valid = list(valid)
    matches = difflib.get_close_matches(name, valid)
    return f"did you mean {', '.join(matches)}?" if matches else f"choose from {', '.join(valid)}"


def _read(source: str, shown: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            # Python warns about dubious literals on stderr; they are refused or harmless here.
            warnings.simplefilter("ignore")
            return ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ParseError(f"cannot read {_one_line(shown)!r}: not a call or a name") from None


def _build(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Tuple(elts=elements):
            return tuple(map(_build, elements))
        case ast.List(elts=elements):
            return list(map(_build, elements))
        case ast.Dict(keys=keys, values=values):
            pairs = [(_build(_given(k)), _build(v)) for k, v in zip(keys, values, strict=True)]
            return _call("dict", dict, [pairs], {})
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
            function = _public(name)
            positional = list(map(_build, arguments))
            named = {_given(k.arg): _build(k.value) for k in keywords}
            return _call(name, function, positional, named)
    raise ParseError(
        f"{ast.unparse(node)!r} is not allowed: only calls of gradtx names, numbers, strings, "
        "booleans, None, tuples, lists and dicts are"
    )


def _given(part: Any) -> Any:
    if part is None:
        raise ParseError("** is not allowed")
    return part


def _public(name: str) -> Any:
    if name not in gradtx.__all__:
        raise ParseError(f"gradtx has no public name {name!r}; {nearest(name, gradtx.__all__)}")
    return getattr(gradtx, name)


def _call(name: str, function: Any, positional: list[Any], named: dict[str, Any]) -> Any:
    try:
        return function(*positional, **named)
    except Exception as error:  # whatever a constructor raises, the reader wants its one line
        raise ParseError(f"{name}: {_one_line(str(error))}") from error


def _one_line(text: str) -> str:
    return " ".join(text.split())
