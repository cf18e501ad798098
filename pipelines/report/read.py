"""``report.json`` read back, of this and of earlier versions."""

from __future__ import annotations

import json
from typing import Any, NotRequired

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from gristmill.pipelines.report.document import FORMAT
from gristmill.pipelines.report.files import PAGE, REPORT, identity
from gristmill.shards import checked
from gristmill.shards.errors import Damaged, UserError
from gristmill.shards.store import join

_OPEN = ConfigDict(extra="allow")


class _Row(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]

    system: str
    test_set: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    seed: int | None


class _Flow(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]

    name: str
    digest: str
    records_out: int


class _Node(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]

    name: str
    inputs: list[str]


class _Verdict(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]

    sentence: str


class _Measure(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]

    name: str
    label: str
    unit: str


class _Report(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]

    format: NotRequired[int]
    title: str
    recipe: dict[str, Any]
    metric: str | None
    metrics: list[_Row]
    measures: list[_Measure]
    digests: dict[str, str]
    records: list[_Flow]
    lineage: list[_Node]
    run: NotRequired[dict[str, Any]]
    versions: dict[str, str]
    verdict: NotRequired[_Verdict | None]


_SHAPE = TypeAdapter(_Report)


def read_report(out: str) -> dict[str, Any]:
    """Return the document of the report below a URL. One of an earlier version lacks what came later.

    Raises:
        UserError: there is none, or it is of a later version.
        Damaged: it is not as it was written.
    """
    url = join(out, REPORT)
    data = checked.present(url)
    if data is None:
        raise UserError(f"{out}: there is no {REPORT}; expected the output of a finished `gristmill run`")
    document: dict[str, Any] = {}
    try:
        document = json.loads(data)
        _SHAPE.validate_python(document)
    except ValidationError:
        if isinstance(document, dict) and "title" in document and "format" not in document:
            raise UserError(
                f"{url}: is of an early version of Gristmill; run the recipe again with the same out, which writes its "
                "report anew"
            ) from None
        raise Damaged(url, "is no report") from None
    except (ValueError, RecursionError):
        raise Damaged(url, "is no report") from None
    if document.get("format", 1) > FORMAT:
        raise UserError(f"{url}: is of a later version of Gristmill (format {document['format']}); expected {FORMAT}")
    # The first reports had no checksum.
    if "checksum" in document and identity(data, checked.present(join(out, PAGE)) or b"") is None:
        raise Damaged(url, f"it or {PAGE} is not as it was written")
    return document
