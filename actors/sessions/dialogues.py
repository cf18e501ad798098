"""The layouts of dialogues that are published whole: what users say, what it means, and whether they got it.

Schema-Guided Dialogue (Rastogi et al., AAAI 2020) and MultiWOZ 2.2 (Zang et al., NLP4ConvAI 2020) have ``turns`` with a
``speaker`` and ``frames``, one a service; MultiWOZ 2.1 (Eric et al., LREC 2020) has a ``log`` of texts with dialogue
acts, the user first. The same with shorter names of keys (``text``, ``spans``, ``intent``, ``acts``) is read, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gristmill.shards.errors import RejectRecord

NO_SPEAKER = "dialogue: a turn of neither USER nor SYSTEM"
NO_LAYOUT = "dialogue: turn {} is of no known layout"  # counted from 0
NO_INTENT = "NONE"  # of a frame whose service is not in use
_POLITE = {"THANK_YOU", "GOODBYE"}  # acts in which nothing is wanted
_OPENS = {"INFORM_INTENT", "AFFIRM_INTENT"}
_TOLD = {"NOTIFY_SUCCESS": True, "NOTIFY_FAILURE": False}

_GENERAL, _BOOKING = "general", "booking"  # what acts of MultiWOZ 2.1 have in the place of a domain
_BOOKED = {"hotel": {"stay", "day", "people"}, "restaurant": {"day", "time", "people"}, "train": {"people"}}
_ANSWERS = {"book": True, "offerbooked": True, "nobook": False, "nooffer": False}
_NO_VALUES = ("", "?", "none")


class Mentioned(NamedTuple):
    """A slot with its value, and its place in the letters of the text; null is what is not given."""

    name: str
    value: str | None
    start: int | None = None
    end: int | None = None
    implied: bool = False  # whether it is known from what was added to the state, and is said only if it is in the text


class DialogueFrame(NamedTuple):
    """What a turn means in one domain."""

    domain: str
    intent: str | None  # that is active, if one is
    slots: tuple[Mentioned, ...] = ()
    acts: bool = False  # whether the user tells or asks something
    opens: bool = False  # whether the intent is said to be new


@dataclass(frozen=True)
class DialogueTurn:
    """A turn of the user or of the system; ``answers`` has by domain, or by ``None``, whether the system did it."""

    user: bool
    text: Any
    frames: tuple[DialogueFrame, ...] = ()
    answers: Mapping[str | None, bool] = field(default_factory=dict)


def read_dialogue(values: Mapping[str, Any]) -> list[DialogueTurn]:
    """Return the turns of a dialogue, none if it has none.

    Raises:
        TypeError: what it has are no turns.
        RejectRecord: a turn is of no known layout, or it is not known who says it.

    Example:
        >>> frame = {"service": "Music_1", "state": {"active_intent": "Play"}}
        >>> (turn,) = read_dialogue({"turns": [{"speaker": "USER", "utterance": "Play jazz", "frames": [frame]}]})
        >>> turn.text, turn.frames[0].domain, turn.frames[0].intent
        ('Play jazz', 'Music_1', 'Play')
    """
    turns = (values["log"] if "log" in values else values.get("turns")) or []
    if not isinstance(turns, list):
        raise TypeError("expected a list of turns")
    made: list[DialogueTurn] = []
    try:
        framed = any("speaker" in turn or "frames" in turn for turn in turns if isinstance(turn, dict))
        for turn in _framed(turns) if framed else _acted(turns):
            made.append(turn)  # those before one that cannot be read are counted
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise RejectRecord(NO_LAYOUT.format(len(made))) from None
    return made


def acting_frame(frames: Iterable[DialogueFrame], before: Mapping[str, str | None]) -> DialogueFrame | None:
    """Return the frame in which the user acts, of those with an active intent; ``None`` if there is none.

    It is the first one of an intent that is new, else the first one; in each, of those in which the user tells or asks
    something, if there are any. ``before`` are the intents of the domains before.

    Example:
        >>> old, new = DialogueFrame("Buses_1", "Buy"), DialogueFrame("Hotels_2", "Search")
        >>> acting_frame([old, new], {"Buses_1": "Buy"}).domain
        'Hotels_2'
    """

    def rank(frame: DialogueFrame) -> tuple[bool, bool]:
        return not (frame.opens or frame.intent != before.get(frame.domain)), not frame.acts

    return min((frame for frame in frames if frame.intent is not None), key=rank, default=None)


def _framed(turns: Iterable[Mapping[str, Any]]) -> Iterator[DialogueTurn]:
    """Read the turns of Schema-Guided Dialogue or MultiWOZ 2.2."""
    states: dict[str, dict[str, list[str]]] = {}
    for turn in turns:
        text = turn["utterance"] if "utterance" in turn else turn.get("text")
        frames = turn.get("frames") or []
        speaker = str(turn.get("speaker")).upper()
        if speaker not in ("USER", "SYSTEM"):
            raise RejectRecord(NO_SPEAKER)
        if speaker == "USER":
            yield DialogueTurn(True, text, tuple(_frame(frame, states) for frame in frames))
            continue
        answers: dict[str | None, bool] = {}
        for frame in frames:
            told = [_TOLD[act] for act, _, _ in _actions(frame) if act in _TOLD]
            if told:
                answers[_text(frame["service"])] = all(told)
        yield DialogueTurn(False, text, (), answers)


def _frame(frame: Mapping[str, Any], states: dict[str, dict[str, list[str]]]) -> DialogueFrame:
    """Read a frame; ``states`` are the slots' values by service before, and after it."""
    service, state = _text(frame["service"]), frame.get("state") or {}
    intent = frame["intent"] if "intent" in frame else state.get("active_intent")
    if intent is not None and not isinstance(intent, str):
        raise TypeError("expected the name of an intent")
    values = {str(slot): _texts(given) for slot, given in state.get("slot_values", state).items()}
    before, states[service] = states.get(service, {}), values
    actions, slots = list(_actions(frame)), list(_spans(frame))
    held = {slot.name for slot in slots}
    slots += [Mentioned(slot, value) for act, slot, value in actions if act == "INFORM" and slot not in held]
    if not actions:  # of users they are not published in each version
        new = [(slot, value) for slot, given in values.items() for value in given if value not in before.get(slot, ())]
        slots += [Mentioned(slot, value, implied=True) for slot, value in new if slot not in held]
    acts = {act for act, _, _ in actions}
    asked = frame.get("requested") or state.get("requested_slots")
    return DialogueFrame(
        service,
        None if intent in ("", NO_INTENT) else intent,
        tuple(slot for slot in slots if slot.name and slot.value != ""),
        acts=bool(slots or acts - _POLITE or asked),
        opens=bool(acts & _OPENS),
    )


def _actions(frame: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield act, slot and first value of a frame's actions, empty where there is none."""
    for action in frame.get("actions") or []:
        act, slot, values = (
            (action.get(key) for key in ("act", "slot", "values")) if isinstance(action, dict) else action
        )
        yield _text(act).upper(), _text(slot or ""), next(iter(_texts(values)), "")


def _texts(values: Any) -> list[str]:
    return [_text(value) for value in (values if isinstance(values, list) else [values]) if value is not None]


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError("expected a text or a number")
    return str(value)


def _spans(frame: Mapping[str, Any]) -> Iterator[Mentioned]:
    for name, start, end in frame.get("spans") or []:
        yield Mentioned(_text(name), None, start, end)
    for slot in frame.get("slots") or []:
        if "start" in slot or "exclusive_end" in slot:
            yield Mentioned(_text(slot["slot"]), None, slot.get("start"), slot.get("exclusive_end"))
            continue
        for value in _texts(slot.get("value"))[:1]:  # of MultiWOZ 2.2: it is copied from another slot
            yield Mentioned(_text(slot["slot"]), value)


def _acted(turns: Iterable[Mapping[str, Any]]) -> Iterator[DialogueTurn]:
    """Read the turns of MultiWOZ 2.1. A turn without an act of a domain goes on with the intent before."""
    intents: dict[str, str] = {}
    active: str | None = None
    for number, turn in enumerate(turns):
        acts, text = list(_acts(turn)), turn.get("text")
        if number % 2:
            yield DialogueTurn(False, text, (), _answers(acts))
            continue
        frames = []
        for domain in dict.fromkeys(act.domain for act in acts if act.domain not in (_GENERAL, _BOOKING)):
            slots = tuple(act.slot for act in acts if act.domain == domain and act.slot is not None)
            told = {slot.name for slot in slots}
            kind = "book" if told & _BOOKED.get(domain, set()) else "find"
            intent = f"{kind}_{domain}" if told else intents.get(domain, f"find_{domain}")
            frames.append(DialogueFrame(domain, intent, slots, acts=True, opens=domain != active))
        if not frames and active is not None:
            frames = [DialogueFrame(active, intents[active])]
        chosen = acting_frame(frames, intents)
        active = chosen.domain if chosen else None
        intents |= {frame.domain: str(frame.intent) for frame in frames}
        yield DialogueTurn(True, text, tuple(frames))


class _Act(NamedTuple):
    """A dialogue act of MultiWOZ 2.1, with one of its slots that has a value."""

    domain: str
    name: str
    slot: Mentioned | None


def _acts(turn: Mapping[str, Any]) -> Iterator[_Act]:
    acts = turn["dialog_act"] if "dialog_act" in turn else turn.get("acts")
    spans = turn["span_info"] if "span_info" in turn else turn.get("spans")
    places = {(act, slot, value): (start, end) for act, slot, value, start, end in spans or []}
    words = [found.span() for found in re.finditer(r"\S+", str(turn.get("text") or ""))]
    for key, pairs in acts.items() if isinstance(acts, dict) else ():  # else it is "No Annotation"
        domain, _, name = key.lower().partition("-")
        for slot, value in pairs or [("", "")]:
            if value is None or _text(value).lower() in _NO_VALUES:
                yield _Act(domain, name, None)
                continue
            start, end = places.get((key, slot, value), (-1, -1))
            given = Mentioned(_text(slot).lower(), _text(value))
            if type(start) is int and type(end) is int and 0 <= start <= end < len(words):
                place = words[start][0], words[end][1]
                said = str(turn["text"])[slice(*place)]
                # Places are of tokens, and published texts are not always split into these.
                given = Mentioned(given.name, given.value, *place) if said.lower() == _text(value).lower() else given
            yield _Act(domain, name, given)


def _answers(acts: Iterable[_Act]) -> dict[str | None, bool]:
    found: dict[str | None, bool] = {}
    for act in acts:
        if act.name in _ANSWERS:
            domain = None if act.domain == _BOOKING else act.domain
            found[domain] = _ANSWERS[act.name] and found.get(domain, True)
    return found
