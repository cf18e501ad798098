"""Rows by key: the turns of each session in their order, and how many words each speaker said.

python examples/extend/sessions.py
"""

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.run import Run
from gristmill.shards.exchange import deal, merge
from gristmill.shards.reducers import Sums, SumSettings

import pyarrow as pa

from lab.dialogues import Dialogue

TURNS = {
    "id": ["t1", "t2", "t3", "t4"],
    "session": ["s1", "s2", "s1", "s1"],
    "turn": [2, 1, 1, 3],
    "speaker": ["ann", "ann", "bob", "bob"],
    "text": ["yes, the lamp", "stop", "which one?", "done"],
    "words": [3, 1, 2, 1],
}

run = Run("out/sessions", InProcessRunner())
turns = run.table("turns", pa.table(TURNS))

dealt = run.step(deal("by_session", turns, key=["session"], columns=["turn", "text"]))
dialogues = run.step(merge("dialogues", dealt, Dialogue.stage()))
print([row for table in dialogues.tables(["id", "records", "dialogue"]) for row in table.to_pylist()])

dealt = run.step(deal("by_speaker", turns, key=["speaker"], columns=["words"]))
spoken = run.step(merge("spoken", dealt, Sums.stage(SumSettings(sums={"words": "int64"}))))
print([row for table in spoken.tables(["id", "records", "words"]) for row in table.to_pylist()])
