"""Text as it is displayed: formats, accelerators, and the escapes of tokenised corpora."""

import pytest

from gristmill.models.text.displayed import as_displayed, unescaped, without_formats


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Removed %d of %s files", "Removed of files"),
        ("%2$s से %1$d", "से"),
        ("Hello {0:.2f} world {name!r:>10} {} {user.name}", "Hello world"),
        ("Copy %{file} to ${place} or $(here) or $dir, %1 and %<price>.2f now", "Copy to or or , and now"),
        ("Value %(name)s at %(place)5.1f here", "Value at here"),
        ("Done 50%complete, 100% free, 7%", "Done 50%complete, 100% free, 7%"),
        ("Done 50%s and 3%d", "Done 50 and 3"),
        ("{count, plural, one {# lamp is on} other {# lamps are on}}", "lamps are on"),
        ("{g, select, female {{n, plural, =1 {her lamp} other {her {n} lamps}}} other {no lamp}}", "no lamp"),
        ("{g, select, other {{n, plural, =1 {a lamp} other {all {n} lamps}} there}} now", "all lamps there now"),
        ("At {when, date, short} or {n, number}", "At or"),
        ("open {count, plural, one {", "open {count, plural, one {"),
        ("costs $5 {a b} in $A$1, US$", "costs $5 {a b} in $A$1, US$"),
    ],
)
def test_formats_leave_a_space(text: str, left: str) -> None:
    assert " ".join(without_formats(text).split()) == left


def test_braces_without_end_take_no_time_that_grows() -> None:
    deep = "{a,select,other{" * 20_000
    assert without_formats(deep + "}" * 40_000)
    assert without_formats(deep) == deep


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("AT&T and R&D", "AT&T and R&D"),
        ("E&xit, Save &As", "Exit, Save As"),
        ("_Close", "Close"),
        ("Set my_var_name to one", "Set my_var_name to one"),
        ("फ़ाइल (&F)", "फ़ाइल"),
        ("a &lt; b &amp;&amp; <b>c</b>", "a < b &&  c "),
    ],
)
def test_accelerators_and_markup(text: str, left: str) -> None:
    assert as_displayed(text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("I don &apos;t know", "I don't know"),
        ("l&apos; amico dell&apos; uomo", "l'amico dell'uomo"),
        ("he said : &apos; stop &apos; .", "he said : ' stop ' ."),
        ("wi @-@ fi and @/@ or &amp; &#91; &#124; &#93;", "wi-fi and/or & [ | ]"),
        ("&amp;apos;", "&apos;"),  # once only
    ],
)
def test_escapes_of_moses(text: str, left: str) -> None:
    assert unescaped(text) == left
