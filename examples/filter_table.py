"""Filter a table into a sealed set below out/first: the example of the README's first page.

python examples/filter_table.py
"""

# ruff: noqa: D103, I001
# fmt: off
from gristmill.actors.records import filter_records
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.run import Run
from gristmill.shards.step import Step
import pyarrow as pa

@filter_records
def too_short(text: str, *, least: int = 3) -> str | None:
    return f"fewer than {least} characters" if len(text) < least else None

run = Run("out/first", InProcessRunner())
texts = run.table("texts", pa.table({"id": ["a", "b"], "text": ["on", "lights off"]}))
kept = run.step(Step("kept", (too_short.stage(),), texts))
print(kept.url, kept.records, kept.seal["reasons"])
