"""What is shown of a compact n-gram store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gristmill.pipelines.progress import plural

_KINDS = {"logprob": "log-probabilities", "backoff": "back-offs"}


def show_store(facts: Mapping[str, Any], as_json: bool = False) -> None:
    """Print the facts of a store and its ``bytes``, as sentences or as a JSON object."""
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    grams = sum(facts["grams"])
    listed = ", ".join(f"{count:,} of order {order}" for order, count in enumerate(facts["grams"], start=1))
    print(f"{plural(grams, 'n-gram')}: {listed}; {plural(facts['states'], 'state')}")
    print(f"{facts['bytes']:,} bytes, {facts['bytes'] / grams:.2f} an n-gram")
    bits = {name: value for name, value in facts["settings"].items() if value is not None}
    if not bits:
        print("exact: scores are those of the ARPA file")
    if "quantise" in bits:
        for kind, error in facts["errors"].items():
            if kind in _KINDS:
                told = f"error {error['mean']:.2g} on average, {error['largest']:.2g} at most (log10)"
                print(f"{_KINDS[kind]} of {bits['quantise']} bits: {told}")
    if (doubt := facts["errors"].get("taken_for_listed")) is not None:
        print(
            f"words of {bits['fingerprint']} bits: of the words that a context does not list, a share of "
            f"{doubt['of_states']:.2g} is taken for listed ones, {doubt['of_states_by_arcs']:.2g} if contexts count by "
            "their n-grams"
        )
