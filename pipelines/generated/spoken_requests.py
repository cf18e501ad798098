"""The sentences of the embedded corpus: requests to a voice assistant, drawn from a small grammar.

Text only, synthesised by ``gristmill.actors.speech.synthesise``. A record's sentence and voice depend only on the seed,
the part and the record's number, so that any range of a part can be made anywhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pyarrow as pa

from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom
from gristmill.shards.schema import ID

PARTS = ("labelled", "unlabelled", "test")
SENTENCES = pa.schema([ID, pa.field("text", pa.string()), pa.field("voice", pa.string())])

_LEAST_WORDS, _MOST_WORDS = 3, 8
_TEST_SHARE = 0.1  # of all sentences: held out from the other parts

_DIGITS = "one|two|three|four|five|six|seven|eight|nine"
_TEENS = "ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"

_VALUES = {
    "few": "two|three|four|five|six|seven|eight|nine|ten|twelve|twenty",
    "percent": "ten|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety",
    "digit": f"{_DIGITS}|zero",
    "hour": f"{_DIGITS}|ten|eleven|twelve",
    "half": "half past|quarter past|quarter to|ten past|five to|twenty past",
    "unit": "seconds|minutes|hours",
    "food": "pasta|rice|eggs|chicken|pizza|bread|soup|tea|coffee|cake|potatoes|fish",
    "goods": (
        "milk|butter|cheese|apples|bananas|tomatoes|onions|sugar|flour|salt|pepper|lemons|carrots|"
        "yogurt|cereal|oranges|mushrooms|beans|honey|garlic|spinach|juice|olive oil|dish soap|"
        "paper towels|orange juice|brown bread|green tea"
    ),
    "amount": "some|more|two bags of|three boxes of|a bottle of|a packet of|four cans of",
    "list": "shopping list|grocery list|list",
    "room": "kitchen|bedroom|living room|bathroom|garage|hallway|office|garden|basement",
    "device": "lights|lamp|fan|heater|television|radio|speaker|blinds|oven|printer|camera|vacuum",
    "onoff": "on|off",
    "colour": "red|blue|green|yellow|purple|orange|white|pink|warm white",
    "genre": "jazz|rock|pop|blues|folk|opera|reggae|soul|country|metal|disco|classical|hip hop",
    "artist": "the beatles|queen|adele|bob dylan|david bowie|nina simone|elvis|miles davis",
    "mood": "quiet|happy|sad|slow|loud|calm|cheerful|old|new",
    "person": (
        "anna|peter|maria|james|susan|george|emma|robert|laura|thomas|alice|henry|julia|simon|grace|"
        "oliver|lucy|martin|helen|victor|mum|dad|my sister|my brother|my boss|grandma|the doctor|"
        "the dentist"
    ),
    "place": (
        "the airport|the station|the hospital|the library|the beach|the school|the office|the supermarket|"
        "the museum|the park|the hotel|the nearest bank|the city centre"
    ),
    "city": (
        "london|paris|berlin|boston|madrid|chicago|sydney|dublin|oslo|tokyo|vienna|denver|rome|cairo|toronto|glasgow"
    ),
    "day": "today|tomorrow|monday|tuesday|wednesday|thursday|friday|saturday|sunday|tonight",
    "part": "this morning|this afternoon|this evening|this weekend|next week",
    "fall": "rain|snow",
    "weather": "sunny|cold|hot|windy|cloudy|foggy|warm|stormy",
    "event": "meeting|lunch|dinner|party|interview|concert|haircut|yoga class|football game",
    "task": (
        "water the plants|feed the cat|walk the dog|take out the trash|pay the rent|do the laundry|"
        "book a table|charge the car|buy a present|clean the windows|lock the door"
    ),
    "language": "french|german|spanish|italian|dutch|greek",
    "word": "house|water|dog|friend|bridge|flower|window|mountain|river|apple",
    "topic": "football|business|sport|music|world|local|science",
}
_TENS = [
    f"{ten}{one}"
    for ten in ("twenty", "thirty", "forty", "fifty")
    for one in ("", *(f" {one}" for one in _DIGITS.split("|")))
]
SLOTS: dict[str, list[str]] = {name: values.split("|") for name, values in _VALUES.items()}
SLOTS["minutes"] = [*_TEENS.split("|"), *_TENS]
SLOTS["number"] = [*_DIGITS.split("|"), *_TEENS.split("|"), *_TENS]

TEMPLATES: dict[str, list[str]] = {
    "timer": [
        "set a timer for {number} {unit}",
        "start a {number} minute timer",
        "set a {food} timer for {minutes} minutes",
        "cancel the {food} timer in the {room}",
        "add {few} minutes to the {food} timer",
    ],
    "alarm": [
        "wake me up at {hour} {day}",
        "wake me at {half} {hour}",
        "set an alarm for {hour} {minutes}",
        "set an alarm for {half} {hour}",
        "cancel my {half} {hour} alarm for {day}",
        "is my alarm set for {hour} {minutes}",
    ],
    "music": [
        "play some {genre} music in the {room}",
        "play {mood} {genre} in the {room}",
        "play something by {artist} in the {room}",
        "i'd like to hear {mood} songs by {artist}",
        "let's listen to some {mood} {genre}",
        "turn the {room} volume to {percent} percent",
        "who's singing this {mood} {genre} song",
        "play the next {genre} album",
    ],
    "lights": [
        "turn {onoff} the {device} in the {room}",
        "turn the {room} {device} {onoff}",
        "switch {onoff} the {room} lights",
        "make the {room} lights {colour}",
        "dim the {room} lights to {percent} percent",
        "is the {device} in the {room} {onoff}",
    ],
    "weather": [
        "what's the weather in {city} {day}",
        "will it be {weather} in {city} {day}",
        "will it {fall} in {city} {day}",
        "how {weather} is it in {city}",
        "is it going to be {weather} {part}",
        "do i need an umbrella in {city} {day}",
        "give me the {day} forecast for {city}",
    ],
    "shopping": [
        "add {goods} to my {list}",
        "add {goods} and {goods} to the {list}",
        "put {amount} {goods} on the {list}",
        "we need {amount} {goods}",
        "remove {goods} from my {list}",
        "we're out of {goods} and {goods}",
        "don't forget to buy {goods}",
    ],
    "calls": [
        "call {person} at {place} please",
        "call {person} in {few} minutes",
        "send {person} a message about the {event}",
        "tell {person} i'll be {few} minutes late",
        "tell {person} i'm at {place}",
        "text {person} that i'm leaving {place}",
        "read the {number} messages from {person}",
        "dial {digit} {digit} {digit} {digit} {digit} {digit}",
    ],
    "navigation": [
        "take me to {place}",
        "how far is it to {place}",
        "how do i get to {place}",
        "find a way to {place} without traffic",
        "when's the next train to {city}",
        "find {mood} restaurants near {place}",
        "how long is the drive to {city}",
    ],
    "calendar": [
        "what's on my calendar {day} at {hour}",
        "move the {event} to {day} at {hour}",
        "move the {event} with {person} to {day}",
        "cancel the {event} with {person}",
        "when is my {event} with {person}",
        "am i free {day} at {hour}",
    ],
    "reminder": [
        "remind me to {task} {day}",
        "remind me to {task} at {hour}",
        "remind {person} to {task}",
        "i have to {task} {part}",
        "remind me to call {person} {part}",
    ],
    "facts": [
        "what's {number} plus {number}",
        "what's {number} times {few}",
        "how do you say {word} in {language}",
        "tell me the {topic} news please",
        "how do you spell {word} in {language}",
        "what time is it in {city}",
        "tell me a joke about a {word}",
    ],
}

DOMAINS = tuple(TEMPLATES)
_SLOT = re.compile(r"\{(\w+)\}")


@cache
def vocabulary(domains: tuple[str, ...] = DOMAINS) -> tuple[str, ...]:
    """Return every word that can occur in a request of the domains, sorted."""
    patterns = [pattern for domain in domains for pattern in TEMPLATES[domain]]
    texts = [_SLOT.sub(" ", pattern) for pattern in patterns]
    texts += [value for pattern in patterns for name in _SLOT.findall(pattern) for value in SLOTS[name]]
    return tuple(sorted({word for text in texts for word in text.split()}))


@cache
def _weighted(domains: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Return the patterns and their cumulative weights: the square root of the number of sentences of each.

    Equal weights would repeat the few sentences of a small pattern too often.
    """
    patterns = [pattern for domain in domains for pattern in TEMPLATES[domain]]
    sizes = [np.prod([len(SLOTS[name]) for name in _SLOT.findall(p)]) for p in patterns]
    return patterns, np.cumsum(np.sqrt(np.minimum(sizes, 2000.0)))


def held_out(text: str) -> bool:
    """Return whether a sentence belongs to the test part; it is in no other part, for any seed."""
    digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") < _TEST_SHARE * 2**32


def sentence(rng: np.random.Generator, test: bool = False, domains: tuple[str, ...] = DOMAINS) -> str:
    """Return one request of 3 to 8 words: lower-case letters, apostrophes and spaces."""
    patterns, cumulated = _weighted(domains)
    while True:
        pattern = patterns[int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))]
        text = _SLOT.sub(lambda match: SLOTS[match[1]][rng.integers(len(SLOTS[match[1]]))], pattern)
        if _LEAST_WORDS <= len(text.split()) <= _MOST_WORDS and held_out(text) is test:
            return text


def requests(
    part: str,
    n: int,
    voices: Sequence[str],
    seed: int = 0,
    rows: int = 2000,
    start: int = 0,
    domains: tuple[str, ...] = DOMAINS,
) -> Iterator[pa.Table]:
    """Yield records ``start`` to ``start + n - 1`` of a part as tables (``SENTENCES``) of at most ``rows`` rows.

    ``part`` is labelled, unlabelled or test; each sentence draws one of ``voices`` and one of ``domains``. Test
    sentences occur in no other part.
    """
    if part not in PARTS:
        raise UserError(f"requests: part is {part!r}, expected one of {', '.join(PARTS)}")
    if n < 0 or start < 0 or rows < 1:
        raise UserError(f"requests: n={n}, start={start}, rows={rows}: expected n, start >= 0 and rows >= 1")
    unknown = sorted(set(domains) - set(DOMAINS))
    if unknown or not domains:
        raise UserError(f"requests: domains {unknown or 'are empty'}, expected some of {', '.join(DOMAINS)}")
    test = part == "test"
    draw = RecordRandom(seed, f"requests/{part}")
    for first in range(start, start + n, rows):
        ids = [f"requests/{part}/{i:07d}" for i in range(first, min(first + rows, start + n))]
        drawn = [(sentence(rng, test, domains), voices[int(rng.integers(len(voices)))]) for rng in map(draw, ids)]
        texts, names = zip(*drawn, strict=True)
        yield pa.table([ids, texts, names], schema=SENTENCES)
