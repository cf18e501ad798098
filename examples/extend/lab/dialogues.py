"""A reducer: called with the rows of each key, in an order."""

from collections.abc import Iterator
from typing import Any

from gristmill.shards.errors import RejectRecord
from gristmill.shards.reducers import Reducer

import pyarrow as pa


class Dialogue(Reducer):
    """Joins the texts of a session; a session of one turn is rejected."""

    columns = ("text",)
    order = ("turn",)
    adds = (pa.field("dialogue", pa.string()),)

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
        """Yield the row of one session; a large one comes in several tables."""
        texts = [text for table in tables for text in table["text"].to_pylist()]
        if len(texts) < 2:
            raise RejectRecord("one turn")
        yield {"dialogue": " / ".join(texts)}
