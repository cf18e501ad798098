"""Languages of one script are told apart, and names do not count."""

import pytest

from gristmill.models.normalise import words
from gristmill.models.text.identify import is_written_in

SENTENCES = {
    "en": "Please close that old window immediately",
    "de": "Schalte bitte das Licht im Wohnzimmer ein",
    "fr": "Ceci est un essai de cette commande",
    "es": "Enciende la luz de la cocina, por favor",
    "nl": "Doe het licht in de woonkamer aan",
    "pl": "Włącz światło w kuchni i w łazience",
    "tr": "Mutfaktaki ışığı aç ve kapıyı kapat",
    "vi": "Hãy bật đèn trong phòng khách lên",
    "ru": "Включи свет на кухне и закрой окно",
    "uk": "Увімкни світло на кухні та зачини вікно",
    "hi": "रसोई की बत्ती जलाओ और दरवाज़ा बंद करो",
    "mr": "स्वयंपाकघरातील दिवा लाव आणि दार बंद कर",
    "fa": "لطفا چراغ آشپزخانه را روشن کن و در را ببند",
    "ar": "من فضلك شغل الضوء في المطبخ وأغلق الباب",
    "ur": "باورچی خانے کی بتی جلا دو اور دروازہ بند کر دو",
    "zh": "请打开厨房的灯，然后关上窗户",
    "ja": "台所の電気をつけて、窓を閉めてください",
}


@pytest.mark.parametrize("lang", SENTENCES)
def test_a_sentence_is_of_its_language_and_of_no_other(lang: str) -> None:
    assert is_written_in(SENTENCES[lang], lang)
    for other, text in SENTENCES.items():
        assert is_written_in(text, lang) == (other == lang), other


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        ("OK", "de"),
        ("Licht an", "de"),
        ("Fenster zu", "de"),
        ("stop", "fr"),
        ("radio", "pl"),
        ("खोलो", "hi"),
        ("दार", "mr"),
        ("Åpne døra", "no"),
        ("Åpne døra", "nb"),
        ("Otvori prozor u dnevnoj sobi", "hr"),
        ("Otvori prozor u dnevnoj sobi", "bs"),
        ("whatever this is", "tlh"),
        ("7:30", "hi"),
        ("७:३०", "hi"),
    ],
)
def test_what_is_short_or_alike_is_let_pass(text: str, lang: str) -> None:
    assert is_written_in(text, lang)


def test_scripts_alone() -> None:
    assert is_written_in(SENTENCES["en"], "de", odds=None)
    assert not is_written_in(SENTENCES["en"], "hi", odds=None)


@pytest.mark.parametrize(
    ("text", "beside", "right"),
    [
        ("YouTube खोलो", "open YouTube", True),
        ("Google Chrome खोलें", "open Google Chrome", True),
        ("youtube खोलो", "open youtube", True),  # in lower case, but of another script and on both sides
        ("Google Chrome खोलें", "", True),
        ("USB 3 केबल", "USB 3 cable", True),
        ("youtube music player खोलो", "", False),
        ("Please Call The Support Line Now नमस्ते", "", False),
        ("please open the door नमस्ते", "open the door", False),
        ("YouTube", "open YouTube", False),
    ],
)
def test_names_in_another_script(text: str, beside: str, right: bool) -> None:
    assert is_written_in(text, "hi", beside=words(beside)) == right


def test_shared_words_of_one_script_are_names_only_with_a_capital() -> None:
    source = words("close the old window of Microsoft Office immediately")
    assert not is_written_in("please close the old window of Microsoft Office", "de", beside=source)
    assert is_written_in("Microsoft Office schließen", "de", beside=source)
