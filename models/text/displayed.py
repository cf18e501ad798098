"""Text of user interfaces and of tokenised corpora as it is read: no markup, accelerators, formats or escapes."""

from __future__ import annotations

import re

_TAG = re.compile(r"<[!/]?[A-Za-z][^<>]*>|&(?:#\d+|#x[0-9A-Fa-f]+|[A-Za-z]+);")
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'"}
_APPENDED = re.compile(r"\s*\([&_~]\w\)")  # an accelerator after a text that lacks its letter: "फ़ाइल (&F)"
_BEFORE = re.compile(r"(?<![A-Z])[&~](?=\w)|[&~](?=[^\WA-Z])")  # not the one of "R&D"
_UNDERLINE = re.compile(r"_(?=[^\W_])")
_FORMAT = re.compile(
    # After a digit, "%" and the begin of a word are per cent: "50%complete".
    r"%%|(?:(?<!\d)|(?=%.(?![^\W\d_])))"
    r"%(?:\(\w+\))?(?:\d+\$)?[-+0#]*(?:\d+|\*)?(?:\.\d+)?(?:hh|h|ll|l|L|z|j|t)?[diouxXeEfFgGaAcsSpnL@]"
    r"|%L?\d+|[%$]?\{[\w.\[\]]*(?:![rsa])?(?::[^{}\s]*)?\}|%<\w+>[-+0#]*\d*(?:\.\d+)?[A-Za-z]?|\$\(\w+\)|\$[a-z_]\w+"
)
# The begin of an ICU argument; a plural or a choice has forms in braces.
_ARGUMENT = re.compile(r"\{\s*\w+\s*,\s*(\w+)\s*")
_CHOICES = ("plural", "select", "selectordinal")
_DEEPEST = 20  # choices in choices
_ESCAPES = {"&#91;": "[", "&#93;": "]", "&#124;": "|", "&bar;": "|", "&bra;": "[", "&ket;": "]", **_ENTITIES}
_ESCAPED = re.compile("|".join(_ESCAPES))
_CLITIC = re.compile(r"(?<=\w) (&apos;)(?=\w)|(?<=\w)(&apos;) (?=\w)")  # of a word that a tokeniser has cut
_SPLIT_HYPHEN = re.compile(r" @([-/])@ ")


def as_displayed(text: str) -> str:
    """Return a user interface's text without markup, entities, accelerators and escapes.

    Example:
        >>> as_displayed("&Open <b>file</b>"), as_displayed("R&amp;D"), as_displayed("my_var_name")
        ('Open  file ', 'R&D', 'my_var_name')
    """
    text = _TAG.sub(lambda found: _ENTITIES.get(found[0].lower(), " "), text)
    text = _BEFORE.sub("", _APPENDED.sub("", text))
    if len(_UNDERLINE.findall(text)) == 1:  # more are a name's: my_var_name
        text = _UNDERLINE.sub("", text)
    return text.replace("\\n", " ").replace("\\t", " ").replace("\\'", "'").replace('\\"', '"')


def without_formats(text: str) -> str:
    """Return a text with spaces for its formats: those of printf, Python, Ruby, Qt and shells, and of ICU messages.

    Of an ICU plural or choice the last form stays, which is the one for all other values.

    Example:
        >>> without_formats("{n, plural, one {# lamp is on} other {# lamps are on}}")
        '  lamps are on'
        >>> without_formats("50%complete of {0:.2f}"), without_formats("100%")
        ('50%complete of  ', '100%')
    """
    return _FORMAT.sub(" ", _without_arguments(text))


def _without_arguments(text: str) -> str:
    """Return a text without ICU arguments; what is in braces that do not match stays as it is."""
    if not _ARGUMENT.search(text):
        return text
    closed: dict[int, int] = {}  # the place of the brace that closes the one at a place
    opened: list[int] = []
    for found in re.finditer("[{}]", text):
        if found[0] == "{":
            opened.append(found.start())
        elif opened:
            closed[opened.pop()] = found.start()

    def shown(start: int, end: int, depth: int) -> str:
        parts, at = [], start
        while (brace := text.find("{", at, end)) >= 0:
            argument = _ARGUMENT.match(text, brace) if brace in closed and depth < _DEEPEST else None
            parts.append(text[at : brace if argument else brace + 1])
            at = brace + 1
            if argument:
                at = closed[brace] + 1
                last = form(argument.end(), closed[brace]) if argument[1] in _CHOICES else -1
                parts.append(" " if last < 0 else shown(last + 1, closed[last], depth + 1).replace("#", " "))
        return "".join([*parts, text[at:end]])

    def form(at: int, end: int) -> int:
        """Return the place of the brace that opens the last form of a choice; -1 if it has none."""
        last = -1
        while (brace := text.find("{", at, end)) >= 0:
            last, at = brace, closed[brace] + 1
        return last

    return shown(0, len(text), 0)


def unescaped(text: str) -> str:
    """Return a line of a tokenised corpus without the escapes of Moses' tokeniser; cut words are joined again.

    Example:
        >>> unescaped("don &apos;t &quot; wi @-@ fi &quot; &#91; l&apos; amico &#93;")
        'don\\'t " wi-fi " [ l\\'amico ]'
    """
    text = _SPLIT_HYPHEN.sub(r"\1", _CLITIC.sub("&apos;", text))
    return _ESCAPED.sub(lambda found: _ESCAPES[found[0]], text)
