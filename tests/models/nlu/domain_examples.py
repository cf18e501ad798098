"""Requests of four small domains from templates: training data for tests of domain models."""

from __future__ import annotations

from gristmill.models.nlu.domain import Example, to_iob

TIMES = ("nine am", "noon", "ten thirty", "five pm", "midnight")
SONGS = ("purple rain", "hello", "hey jude", "yesterday", "let it be")
ROOMS = ("kitchen", "hall", "bath room", "garage", "attic")
TEMPLATES = {
    "alarm": {
        "set": (("wake me at {time}", TIMES), ("set an alarm for {time}", TIMES)),
        "remove": (("cancel the {time} alarm", TIMES), ("remove my alarm at {time}", TIMES)),
    },
    "music": {
        "play": (("play {song}", SONGS), ("please play {song} now", SONGS)),
        "like": (("i like {song}", SONGS), ("save {song} to my favourites", SONGS)),
        "what": (("what is this song", ("",)), ("who sings this", ("",))),
    },
    "light": {"on": (("turn on the light in the {room}", ROOMS), ("light up the {room}", ROOMS))},
    "chat": {
        "joke": (("tell me a joke", ("",)), ("make me laugh", ("",)), ("say something funny", ("",))),
        "thanks": (("thank you", ("",)), ("thanks a lot", ("",)), ("that was great thanks", ("",))),
    },
}


def requests() -> list[dict]:
    """Return records: id, tokens, domain, intent and slots."""
    rows = []
    for domain, intents in TEMPLATES.items():
        for intent, templates in intents.items():
            for template, values in templates:
                for value in values:
                    tokens: list[str] = []
                    slots = []
                    for word in template.split():
                        if word.startswith("{"):
                            start = len(tokens)
                            tokens += value.split()
                            slots.append({"name": word[1:-1], "value": value, "start": start, "end": len(tokens)})
                        else:
                            tokens.append(word)
                    row = {"id": f"r{len(rows):03d}", "text": " ".join(tokens), "tokens": tokens}
                    rows.append({**row, "domain": domain, "intent": intent, "slots": slots})
    return rows


def examples(domain: str) -> tuple[list[Example], list[list[str]]]:
    """Return the requests of a domain, and the tokens of the others."""
    rows = requests()
    own = [
        Example(
            row["tokens"],
            row["intent"],
            to_iob(len(row["tokens"]), [(slot["name"], slot["start"], slot["end"]) for slot in row["slots"]]),
        )
        for row in rows
        if row["domain"] == domain
    ]
    return own, [row["tokens"] for row in rows if row["domain"] != domain]
