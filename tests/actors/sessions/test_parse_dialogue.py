"""Dialogues of each published layout: the turns of users, what they mean there, and what became of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from gristmill.actors.sessions.dialogues import NO_LAYOUT, NO_SPEAKER
from gristmill.actors.sessions.parse_dialogue import BAD_SPAN, NO_TURNS, DialogueSettings, ParseDialogue
from gristmill.actors.sessions.parse_turn import BAD_TEXT, NO_TEXT
from gristmill.actors.sources.reading import NO_OBJECT
from gristmill.shards.schema import TURN_FIELDS


def parsed(dialogue: object) -> list[dict[str, Any]]:
    raw = dialogue if isinstance(dialogue, str) else json.dumps(dialogue)
    batch = pa.table({"id": ["c/d"], "raw": [raw], "problem": pa.array([None], pa.string())})
    made = ParseDialogue(DialogueSettings())(batch)
    assert made.schema.names == ["id", "parent_id", *(field.name for field in TURN_FIELDS[1:]), "reject_reason"]
    assert set(made["parent_id"].to_pylist()) == {"c/d"}
    return made.to_pylist()


def goals(rows: list[dict[str, Any]]) -> list[tuple[str | None, str | None, bool | None]]:
    return [(row["domain"], row["intent"], row["succeeded"]) for row in rows]


def slots(row: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [tuple(slot.values()) for slot in row["slots"]]


def user(text: str, *frames: dict[str, Any]) -> dict[str, Any]:
    return {"speaker": "USER", "utterance": text, "frames": list(frames)}


def system(*acts: str, service: str = "Hotels_1") -> dict[str, Any]:
    actions = [{"act": act, "slot": "", "values": []} for act in acts]
    return {"speaker": "SYSTEM", "utterance": "Well.", "frames": [{"service": service, "actions": actions}]}


def frame(intent: str, service: str = "Hotels_1", **more: Any) -> dict[str, Any]:
    state = {"active_intent": intent, "slot_values": more.pop("state", {}), "requested_slots": []}
    return {"service": service, "state": state, "slots": [], **more}


def action(act: str, slot: str = "", *values: str) -> dict[str, Any]:
    return {"act": act, "slot": slot, "values": list(values)}


def test_turns_of_schema_guided_dialogue_have_intent_slots_and_outcome() -> None:
    find = frame(
        "SearchHotel",
        slots=[{"slot": "location", "start": 18, "exclusive_end": 26}],
        actions=[
            action("INFORM_INTENT", "intent", "SearchHotel"),
            action("INFORM", "location", "San Jose"),
            action("INFORM", "rooms", "2"),
            action("INFORM", "pets_allowed", "True"),
        ],
    )
    turns = [
        user("Find 2 rooms, in  San Jose.", find),
        system("OFFER"),
        user("Book it", frame("ReserveHotel", actions=[action("AFFIRM_INTENT")])),
        system("NOTIFY_FAILURE", "OFFER"),
        user("Once more", frame("ReserveHotel", actions=[action("AFFIRM")])),
        system("NOTIFY_SUCCESS"),
        user("Thanks.", frame("NONE", actions=[action("GOODBYE")])),
    ]
    rows = parsed({"dialogue_id": "1_0", "services": ["Hotels_1"], "turns": turns})
    assert goals(rows) == [
        ("Hotels_1", "SearchHotel", None),
        ("Hotels_1", "ReserveHotel", False),
        ("Hotels_1", "ReserveHotel", True),
        (None, None, None),
    ]
    assert [(row["id"], row["turn"]) for row in rows] == [("c/d/0", 0), ("c/d/2", 2), ("c/d/4", 4), ("c/d/6", 6)]
    assert {row["session"] for row in rows} == {"c/d"}
    assert rows[0]["text"] == "Find 2 rooms, in San Jose."
    assert rows[0]["tokens"] == ["Find", "2", "rooms,", "in", "San", "Jose", "."]
    assert slots(rows[0]) == [
        ("rooms", "2", 1, 2),
        ("location", "San Jose", 4, 6),
        ("pets_allowed", "True", None, None),
    ]
    assert rows[0]["user"] is rows[0]["time"] is rows[0]["asr_text"] is None


def test_a_turn_in_two_services_is_of_the_one_whose_intent_is_new_else_of_the_one_that_acts() -> None:
    ride, hotel = ("GetRide", "Rides_1"), ("SearchHotel", "Hotels_1")
    to = {"slots": [{"slot": "to", "start": 0, "exclusive_end": 5}], "actions": [action("INFORM", "to", "there")]}
    thanks = {"actions": [action("THANK_YOU")]}
    turns = [
        user("A hotel", frame(*hotel)),
        user("Thanks. A ride", frame(*hotel, **thanks), frame(*ride)),
        user("there", frame(*hotel, **thanks), frame(*ride, **to)),
        user("there, and back", frame(*ride, **to), frame(*hotel, **to)),
    ]
    rows = parsed({"turns": turns})
    assert [row["domain"] for row in rows] == ["Hotels_1", "Rides_1", "Rides_1", "Rides_1"]
    assert slots(rows[2]) == [("to", "there", 0, 1)]


def test_the_outcome_is_that_of_the_turns_own_service() -> None:
    turns = [user("A hotel", frame("SearchHotel")), system("NOTIFY_SUCCESS", service="Rides_1")]
    assert goals(parsed({"turns": turns})) == [("Hotels_1", "SearchHotel", None)]


def test_turns_of_multiwoz_2_2_leave_out_services_that_are_not_in_use_and_tell_what_is_new_in_the_state() -> None:
    spans = [
        {"slot": "hotel-name", "start": 0, "exclusive_end": 5, "value": "acorn"},
        {"slot": "hotel-area", "copy_from": "restaurant-area", "value": ["centre"]},
    ]
    cheap = {"hotel-pricerange": ["cheap"], "hotel-parking": ["yes"], "hotel-day": ["monday", "Monday"]}
    turns = [
        user(
            "A cheap one on Monday, yes", frame("NONE", "train"), frame("find_hotel", "hotel", state=cheap, actions=[])
        ),
        {"speaker": "SYSTEM", "utterance": "Which?", "frames": [], "turn_id": "1"},
        user("acorn, cheap", frame("find_hotel", "hotel", slots=spans, state=cheap), frame("NONE", "train")),
    ]
    rows = parsed({"dialogue_id": "PMUL1.json", "turns": turns})
    assert goals(rows) == [("hotel", "find_hotel", None)] * 2
    assert slots(rows[0]) == [("hotel-pricerange", "cheap", 1, 2), ("hotel-day", "Monday", 4, 5)]
    assert slots(rows[1]) == [("hotel-name", "acorn", 0, 1), ("hotel-area", "centre", None, None)]


def log(*turns: tuple[str, Any, list[Any]]) -> dict[str, Any]:
    said = [{"text": text, "metadata": {}, "dialog_act": acts, "span_info": spans} for text, acts, spans in turns]
    return {"goal": {"hotel": {}}, "log": said}


def test_turns_of_multiwoz_2_1_have_intents_by_domain_and_whether_they_book() -> None:
    found = {"Hotel-Inform": [["Type", "hotel"], ["Parking", "yes"], ["Choice", "none"]]}
    booked = {"Hotel-Inform": [["Stay", "4"], ["Day", "friday"]], "general-thank": [["none", "none"]]}
    spans = [["Hotel-Inform", "Stay", "4", 2, 2], ["Hotel-Inform", "Day", "friday", 90, 90]]
    turns = [
        ("hotel with parking , yes , a hotel .", found, [["Hotel-Inform", "Type", "hotel", 7, 7]]),
        ("None .", {"Hotel-NoOffer": [["none", "none"]]}, []),
        ("4 or 4 nights, Friday.", booked, spans),
        ("Done .", {"Booking-Book": [["Ref", "X1"]], "general-reqmore": [["none", "none"]]}, []),
        ("Its phone ?", {"Hotel-Request": [["Phone", "?"]]}, []),
        ("12 .", "No Annotation", []),
        ("Thanks .", "No Annotation", []),
        ("Bye .", {}, []),
        ("A train , and to which area ?", {"Hotel-Request": [["Area", "?"]], "Train-Request": [["Leave", "?"]]}, []),
        ("Full .", {"Train-OfferBooked": [["Ref", "T"]], "Booking-NoBook": [["none", "none"]]}, []),
    ]
    rows = parsed(log(*turns))
    assert goals(rows) == [
        ("hotel", "find_hotel", False),
        ("hotel", "book_hotel", True),
        ("hotel", "book_hotel", None),
        ("hotel", "book_hotel", None),
        ("train", "find_train", True),
    ]
    assert slots(rows[0]) == [("type", "hotel", 7, 8), ("parking", "yes", None, None)]
    assert slots(rows[1]) == [("stay", "4", 2, 3), ("day", "Friday", 4, 5)]


def test_dialogues_with_short_names_are_the_same() -> None:
    compact = {
        "service": "Hotels_1",
        "spans": [["location", 3, 7]],
        "intent": "SearchHotel",
        "state": {"location": ["Bonn"]},
        "actions": [["INFORM", "location", ["Bonn"]]],
    }
    answer = {
        "speaker": "SYSTEM",
        "text": "No.",
        "frames": [{"service": "Hotels_1", "actions": [["NOTIFY_FAILURE", "", []]]}],
    }
    (row,) = parsed({"id": "x", "turns": [{"speaker": "USER", "text": "In Bonn", "frames": [compact]}, answer]})
    assert (goals([row]), slots(row)) == ([("Hotels_1", "SearchHotel", False)], [("location", "Bonn", 1, 2)])
    acts = {"Taxi-Inform": [["Dest", "Bonn"]]}
    (row,) = parsed({"turns": [{"text": "to Bonn", "acts": acts, "spans": [["Taxi-Inform", "Dest", "Bonn", 1, 1]]}]})
    assert (goals([row]), slots(row)) == ([("taxi", "find_taxi", None)], [("dest", "Bonn", 1, 2)])


def test_of_slots_on_the_same_words_the_first_has_the_place() -> None:
    spans = [{"slot": name, "start": 0, "exclusive_end": 5} for name in ("date", "day")]
    (row,) = parsed({"turns": [user("today", frame("Find", slots=spans))]})
    assert slots(row) == [("date", "today", 0, 1), ("day", "today", None, None)]


@pytest.mark.parametrize("span", [(-1, 3), (3, 3), (0, 99), (None, 2), ("0", 2), (2, 3)])
def test_a_turn_with_a_span_that_is_not_in_its_text_is_rejected_alone(span: tuple[Any, Any]) -> None:
    bad = {"slot": "x", "start": span[0], "exclusive_end": span[1]}
    rows = parsed({"turns": [user("to Bonn", frame("Go", slots=[bad])), user("now", frame("Go"))]})
    assert [(row["id"], row["reject_reason"]) for row in rows] == [("c/d/0", BAD_SPAN), ("c/d/1", None)]


@pytest.mark.parametrize(
    ("dialogue", "reason"),
    [
        ("{", NO_OBJECT),
        ([], NO_OBJECT),
        ({}, NO_TURNS),
        ({"turns": []}, NO_TURNS),
        ({"turns": None}, NO_TURNS),
        ({"log": {}}, NO_TURNS),
        ({"turns": [system("OFFER")]}, NO_TURNS),
        ({"turns": "hello"}, NO_OBJECT),
        ({"turns": ["speaker"]}, NO_LAYOUT.format(0)),
        ({"turns": [7]}, NO_LAYOUT.format(0)),
        ({"turns": [user("x", frame("Go")), {"utterance": "y"}]}, NO_SPEAKER),
        ({"turns": [{"utterance": "x", "frames": []}, user("y", frame("Go"))]}, NO_SPEAKER),
        ({"turns": [{"speaker": "ROBOT", "utterance": "x"}, user("y", frame("Go"))]}, NO_SPEAKER),
        ({"turns": [user("x", frame("Go")), user("y", {"state": {}})]}, NO_LAYOUT.format(1)),
        ({"turns": [user("x", {"state": {}})]}, NO_LAYOUT.format(0)),
        ({"turns": [user("x", frame("Go", actions=[["INFORM"]]))]}, NO_LAYOUT.format(0)),
        ({"turns": [user("x", frame("Go", state=["y"]))]}, NO_LAYOUT.format(0)),
        (log(("x", {"Hotel-Inform": [["Type"]]}, [])), NO_LAYOUT.format(0)),
        (log(("x", {"Hotel-Inform": [["Type", "y"]]}, [["Hotel-Inform"]])), NO_LAYOUT.format(0)),
        ({"turns": [user(" \u200b ", frame("Go"))]}, NO_TEXT),
        ({"turns": [user(7, frame("Go"))]}, BAD_TEXT),  # type: ignore[arg-type]
        ({"log": [{"dialog_act": {}}]}, NO_TEXT),
    ],
)
def test_what_is_no_dialogue_is_a_reject_with_its_reason(dialogue: object, reason: str) -> None:
    (row,) = parsed(dialogue)
    assert row["reject_reason"] == reason


def changed(value: Any) -> Iterator[Any]:
    """Yield a value with each of its parts, and itself, replaced by odd ones."""
    yield from (
        None,
        7,
        -1.5,
        True,
        "x",
        "\ud800",
        [],
        {},
        [[]],
        [{}],
        {"x": None},
        ["a", "b", "c"],
        {"slot_values": 1},
    )
    if isinstance(value, dict):
        for key in value:
            yield {name: one for name, one in value.items() if name != key}
            yield from (value | {key: one} for one in changed(value[key]))
    elif isinstance(value, list):
        for place, own in enumerate(value):
            yield value[:place] + value[place + 1 :]
            yield from ([*value[:place], one, *value[place + 1 :]] for one in changed(own))


def test_whatever_stands_at_a_place_of_a_dialogue_is_a_turn_or_a_reject() -> None:
    slot = {"slot": "to", "start": 0, "exclusive_end": 2, "value": "at"}
    framed = [
        user("at 2", frame("Go", slots=[slot], actions=[action("INFORM", "n", "2")], state={"n": ["2"]})),
        system("OFFER"),
    ]
    acted = log(
        ("at 2", {"Taxi-Inform": [["Leave", "2"]]}, [["Taxi-Inform", "Leave", "2", 1, 1]]),
        ("No", {"Taxi-NoOffer": []}, []),
    )
    given = [*changed({"turns": framed}), *changed(acted)]
    batch = {
        "id": [str(n) for n in range(len(given))],
        "raw": [json.dumps(one) for one in given],
        "problem": [None] * len(given),
    }
    made = ParseDialogue(DialogueSettings())(pa.table(batch))
    assert len(given) > 800
    assert set(made["parent_id"].to_pylist()) == set(batch["id"])
    names = {row["domain"] for row in made.to_pylist()} | {
        slot["name"] for slots in made["slots"].to_pylist() for slot in slots or []
    }
    assert names <= {None, "Hotels_1", "taxi", "to", "n", "leave", "x", "7", "-1.5"}
    reasons = set(made["reject_reason"].to_pylist())
    unread = {reason for reason in reasons if reason and re.fullmatch(NO_LAYOUT.format(r"\d"), reason)}
    assert unread
    assert reasons - unread == {None, NO_OBJECT, NO_SPEAKER, NO_TURNS, NO_TEXT, BAD_TEXT, BAD_SPAN}
