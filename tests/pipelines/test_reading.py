"""Configs and overrides of any form are read, or refused in a sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gristmill.pipelines.config import load
from gristmill.pipelines.reading import overridden, read_values
from gristmill.shards import names
from gristmill.shards.errors import UserError
from tests.conftest import ROOT
from tests.pipelines.fuzz import mutations


def bomb(first: str, row: Callable[[int], str], rows: int = 9) -> str:
    """Return lines each of which repeats the one before it nine times."""
    return first + "".join(row(n) for n in range(1, rows))


REFUSED = {
    "alias bomb": (
        bomb("a0: &a0 [x]\n", lambda n: f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n"),
        "holds more than 262,144 characters, counting what each alias repeats",
    ),
    "merge bomb": (
        bomb("a0: &a0 {x: 1}\n", lambda n: f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], x{n}: 1}}\n"),
        "counting what each alias repeats",
    ),
    "bomb of long texts": (f"a: &a {'x' * 9000}\nb: [{'*a, ' * 900}]", "counting what each alias repeats"),
    "reference bomb": (
        bomb("a0: x\n", lambda n: f"a{n}: {f'${{a{n - 1}}}' * 9}\n"),
        "holds more than 262,144 characters, counting what each reference repeats",
    ),
    "bomb read backwards": (
        "".join(reversed([f"a{n}: {f'${{a{n - 1}}}' * 9}\n" for n in range(1, 9)])) + "a0: x",
        "counting what each reference repeats",
    ),
    "bomb of lists": (
        bomb("a0: [x]\n", lambda n: f"a{n}: [{', '.join([f'`${{a{n - 1}}}`'] * 9)}]\n".replace("`", '"')),
        "counting what each reference repeats",
    ),
    "chain": ("".join(f"a{n}: ${{a{n + 1}}}\n" for n in range(200)) + "a200: x\n", "deep"),
    "inside of itself": ("a: &a [*a]", "*a is inside of itself"),
    "refers to itself": ("a: ${b}\nb: x${a}", "refers to itself"),
    "refers to what holds it": ("a: {b: '${a}'}", "refers to itself"),
    "decimal": ("seed: " + "9" * 5000, "line 1: 99999999999999999999... (5000 characters) is not a whole number"),
    "hexadecimal": ("seed: 0x" + "f" * 5000, "is not a whole number of at most 64 bits"),
    "sexagesimal": ("seed: 1" + ":59" * 5000, "is not a whole number of at most 64 bits"),
    "bits": ("seed: 18446744073709551616", "18446744073709551616 is not a whole number of at most 64 bits"),
    "brackets": ("a: " + "[" * 500, "values are nested more than 32 deep"),
    "dashes": ("- " * 500, "values are nested more than 32 deep"),
    "keys": ("? " * 500, "values are nested more than 32 deep"),
    "tag of a date": ("a: !!timestamp 2001-99-99", "a value does not fit its tag (month must be in 1..12)"),
    "tag of a truth": ("a: !!bool perhaps", "a value does not fit its tag"),
    "tag of code": ("a: !!python/name:os.system", "could not determine a constructor"),
    "bytes": ("a: !!binary YQ==", "a: bytes is no kind of value for a setting"),
    "set": ("a: !!set {b}", "a: set is no kind of value for a setting"),
    "key": ("~: 1", "None is not the name of a setting"),
    "long key": ("? " + "k" * 300 + "\n: 1", "is not the name of a setting"),
    "twice": ("seed: 1\nseed: 2", "line 2: the key 'seed' is given twice"),
    "two documents": ("a: 1\n---\nb: 2", "found another document"),
    "NUL": ('a: "/x\\0y"', "a: holds the control character \\u0000; expected a path or URL without it"),
    "line end in a path": ('a: "/x\\ny"', "a: holds the control character \\n"),
    "line end in a URL": ('a: "s3://x\\ny"', "a: holds the control character \\n"),
    "folded path": ("a: >\n  data/x\n", "a: holds the control character \\n"),
    "escape": ('a: "x\\ey"', "a: holds the control character \\u001b"),
    "surrogate": ('a: "\\ud800"', "a: holds the control character \\ud800"),
    "resolver": ("a: ${oc.decode:x}", "there is no such key"),
    "unclosed": ("a: ${b", "a reference is not closed"),
    "signed URL": ("a: https://h/x?X-Amz-Signature=0f", "the URL contains a password or a token"),
    "long": ("# " + "x" * (1 << 18), "holds more than 262,144 characters"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_config_is_refused_in_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(f"{text}\nrecipe: tests.pipelines.tiny\n" if "two" not in message else text)
    with pytest.raises(UserError) as caught:
        load(str(tmp_path / "a.yaml"))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


def test_a_file_that_never_ends_is_no_config() -> None:
    with pytest.raises(UserError, match="/dev/zero: "):
        load("/dev/zero")


READ = {
    "references": (
        "a: {b: [1, x], c: '${.b[0]}'}\nd: ${a.b.1}-${a.c}\ne: ${a.b}\nf: '\\${a}'\ng: '\\\\${d}'",
        {"a": {"b": [1, "x"], "c": 1}, "d": "x-1", "e": [1, "x"], "f": "${a}", "g": "\\x-1"},
    ),
    "variables": (
        "a: ${oc.env:READ_DATA}/x\nb: ${oc.env:ABSENT, d}\nc: ${oc.env:ABSENT,null}\nd: ${oc.env:ABSENT,${b}/y}\n"
        "e: ${oc.env:READ_N}",
        {"a": "/data/x", "b": "d", "c": None, "d": "d/y", "e": "12345678901"},
    ),
    "aliases": ("a: &a {b: 1}\nc: {<<: *a, d: *a}", {"a": {"b": 1}, "c": {"b": 1, "d": {"b": 1}}}),
    "numbers": ("a: 1e5\nb: 1_000\nc: 0x10\nd: 1.5e-3\n7: -1", {"a": 1e5, "b": 1000, "c": 16, "d": 1.5e-3, "7": -1}),
    "dates": ("a: 2001-01-01", {"a": "2001-01-01"}),
    "block text": ("a: |\n  one\n  two\n", {"a": "one\ntwo\n"}),
    "byte order mark": ("a: 1", {"a": 1}),
}


@pytest.mark.parametrize(("text", "values"), READ.values(), ids=READ)
def test_what_a_config_says(text: str, values: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READ_DATA", "/data")
    monkeypatch.setenv("READ_N", "12345678901")
    assert read_values(text, [], "a.yaml") == values


def test_overrides_reach_into_lists_and_are_taken_literally() -> None:
    base = {"a": [{"b": 1, "c": 2}, 3], "d": {"e": 1}}
    given = ["a[0].b=5", "a.1=6", "d={f: 2}", "g.h=x y", "i=a\nb: #c", 'j="k"', "l="]
    made = {"a": [{"b": 5, "c": 2}, 6], "d": {"e": 1, "f": 2}, "g": {"h": "x y"}, "i": "a\nb: #c", "j": "k", "l": None}
    assert overridden(base, given) == made
    assert base == {"a": [{"b": 1, "c": 2}, 3], "d": {"e": 1}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a[2]=1", "cannot be applied: the list has 2 items, and no 2"),
        ("a.b=1", "cannot be applied: the list has 2 items, and no b"),
        ("a[=1", "is not an override"),
        ("a..b=1", "is not an override"),
        (".".join("a" * 40) + "=1", "is not an override"),
        ("a[" + "9" * 5000 + "]=1", "is not an override"),
        ("a=" + "[" * 500, "values are nested more than 32 deep"),
        ("a=" + "9" * 5000, "is not a whole number"),
        ("a={b: ", "not valid YAML"),
        ("a=&a [*a]", "is inside of itself"),
    ],
)
def test_an_override_that_cannot_be_is_refused_in_a_sentence(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        overridden({"a": [1, 2]}, [override])
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "found"), [("# a\n\nroot:x:0:0\nmy secret", "line 3: text"), ("- a", "line 1: a list"), ("5", "a single")]
)
def test_a_file_without_settings_is_told_and_not_shown(text: str, found: str) -> None:
    with pytest.raises(UserError, match=f"a.yaml: .*{found}.*; expected `key: value` lines") as caught:
        read_values(text, [], "a.yaml")
    assert "secret" not in str(caught.value)
    assert "root" not in str(caught.value)


def test_the_environment_gives_places_and_numbers_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    canary = "canary-of-the-tests"
    for name in ("MY_API_KEY", "NAMELESS", "aws_secret_access_key"):
        monkeypatch.setenv(name, canary)
        for text in (f"a: x${{oc.env:{name}}}", f"a: ${{oc.env:ABSENT,${{oc.env:{name}}}}}"):
            with pytest.raises(UserError, match=rf"a: \${name} ") as caught:
                read_values(text, [], "a.yaml")
            assert canary not in str(caught.value)
    (tmp_path / "a.yaml").write_text(f"recipe: tests.pipelines.tiny\ntext: is {canary}\n")
    with pytest.raises(UserError, match=r"text: contains the value of \$\w+, which would be stored") as caught:
        load(str(tmp_path / "a.yaml"))
    assert canary not in str(caught.value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, where nothing is; search paths are as before afterwards."""
    monkeypatch.setattr(names, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


TINY = "recipe: tests.pipelines.tiny\nrunner: inprocess\nseeds: [1, 2]\nshape: {width: 3}\ntext: ${recipe}\n"
OVERRIDES = (
    *("seed=3", "seeds=[1,2]", "shape.width=3", "text=/data/a #1", "shape={width: 3, mode: loud}", "out=s3://b/x"),
    *("text=${recipe}-${seed}", "shape.width=${seed}", "resources.gpu={gpus: 0.5, labels: {a/b: c}}"),
)


def told(config: Path, text: str, *overrides: str) -> tuple[str, ...]:
    """Return the sentences about a config; none if it is read."""
    config.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load(str(config), overrides)
    except UserError as error:
        return error.args
    return ()


def fuzz(config: Path, texts: Sequence[str], seed: int, number: int) -> None:
    """Read mutated configs and overrides; each must be read, or be refused in sentences."""
    read = 0
    for text in mutations(texts, seed, number):
        sentences = told(config, text)
        read += not sentences
        assert all(len(one) < 3000 and len(one.splitlines()) == 1 for one in sentences), text
    for override in mutations(OVERRIDES, seed, number):
        sentences = told(config, TINY, override)
        assert all(len(one) < 3000 and len(one.splitlines()) == 1 for one in sentences), override
    assert 0 < read < number  # else the mutations try nothing


def test_some_mutated_configs_and_overrides_are_read_or_refused(here: Path) -> None:
    fuzz(here / "fuzzed.yaml", [TINY], 0, 30)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_mutated_configs_and_overrides_are_read_or_refused(here: Path) -> None:
    shipped = [path.read_text() for path in sorted((ROOT / "configs").glob("*.yaml")) if path.stem != "fleet"]
    fuzz(here / "fuzzed.yaml", [*shipped, *[TINY] * len(shipped)], 1, 3601)
