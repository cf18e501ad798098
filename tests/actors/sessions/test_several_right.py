"""Hypotheses of several right skills, and what the fit of a re-ranker makes of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gristmill.actors.nlu.rerank import lists_of
from gristmill.actors.sessions.several_right import SeveralRight, SeveralRightSettings
from gristmill.actors.sessions.skills import LABELS
from gristmill.models.nlu.reranker_fit import fit, sample
from gristmill.shards.schema import HYPOTHESES_FIELDS, SLOT

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("domain", pa.string()),
        pa.field("intent", pa.string()),
        pa.field("slots", pa.list_(SLOT)),
        LABELS,
        *HYPOTHESES_FIELDS,
    ]
)
ROOM = [{"name": "room", "value": "hall", "start": 1, "end": 2}]


def hypothesis(domain, intent="on", slots=ROOM, logprob=-0.5, errors=1):
    logs = {f"{kind}_logprob": logprob for kind in ("domain", "intent", "slots")}
    return {"domain": domain, "intent": intent, "slots": slots, **logs, "errors": errors, "correct": errors == 0}


def label(skill, source, value):
    return {"skill": skill, "source": source, "value": value, "epoch": 1}


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def request(labels, hypotheses, number=0):
    return {
        "id": f"r{number}",
        "domain": "light",
        "intent": "on",
        "slots": ROOM,
        "labels": labels,
        "hypotheses": hypotheses,
        "reference_length": 2,
        "oracle_errors": min(one["errors"] for one in hypotheses),
    }


def judged(given, **settings):
    return SeveralRight(SeveralRightSettings(**settings))(given).to_pylist()


def test_hypotheses_of_pseudo_labels_have_the_errors_of_their_slots():
    given = [hypothesis("switch"), hypothesis("fan"), hypothesis("switch", slots=[], errors=2), hypothesis("lock")]
    labels = [label("light", "gold", 1.0), label("switch", "pseudo", 0.6), label("lock", "negative", 0.0)]
    [row] = judged(table(request(labels, given)))
    assert [one["errors"] for one in row["hypotheses"]] == [0, 1, 1, 1]
    assert [one["correct"] for one in row["hypotheses"]] == [True, False, False, False]
    assert row["oracle_errors"] == 0
    assert row["reference_length"] == 2


def test_weak_labels_feedback_and_other_intents_count_as_wrong():
    labels = [label("switch", "pseudo", 0.6)]
    assert judged(table(request(labels, [hypothesis("switch")])), least=0.7)[0]["oracle_errors"] == 1
    both = [*labels, label("switch", "negative", 0.0)]
    assert judged(table(request(both, [hypothesis("switch")])))[0]["oracle_errors"] == 1
    other = table(request(labels, [hypothesis("switch", intent="start")]))
    assert judged(other)[0]["oracle_errors"] == 1
    assert judged(other, same_intent=False)[0]["oracle_errors"] == 0


def test_requests_without_a_reference_or_a_list_stay():
    empty = request([], [hypothesis("light")]) | {"hypotheses": [], "oracle_errors": 2}
    unknown = request([], [hypothesis("light")]) | {"domain": None}
    given = table(empty, unknown)
    assert SeveralRight(SeveralRightSettings())(given).equals(given)


def test_a_re_ranker_trusts_a_domain_more_whose_hypotheses_are_right():
    """Of 40 requests labelled as light, a switch could take 30 as well."""
    rows = []
    for number in range(40):
        logprob = -0.2 - 0.02 * number
        labels = [label("switch", "pseudo", 0.6)] if number % 4 else []
        rows.append(request(labels, [hypothesis("light", errors=0), hypothesis("switch", logprob=logprob)], number))
    before = table(*rows)
    after = SeveralRight(SeveralRightSettings())(before)

    def trust(given):
        made = fit("switch", sample(lists_of(given, labelled=True), "switch", np.ones(len(given))), "R2").reranker
        return float(np.exp(made.log_confidences(np.full((3, 1), -0.3), {}))[0])

    assert trust(before) < 0.2
    assert trust(after) > 0.6
