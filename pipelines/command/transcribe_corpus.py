"""The command ``transcribe --out``: the transcripts of a corpus as a run that resumes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from typing import Any

from gristmill.pipelines.command import interruption
from gristmill.pipelines.command.launch import carried_out, check_nodes, check_out, make_cluster
from gristmill.pipelines.command.leasing import leased
from gristmill.pipelines.command.occupied import Maker, refuse_occupied
from gristmill.pipelines.command.transcribe import tell
from gristmill.pipelines.progress import plural, shown
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.transcribe import QUIET, Transcriber
from gristmill.shards import store
from gristmill.shards.errors import UserError

_RECIPE, _SET = "transcribe", "transcripts"  # in the ledger of an output, and its last set


def transcribe_corpus(
    model: str, places: Sequence[str], out: str, execution: Sequence[str], *, quiet: bool, **settings: Any
) -> int:
    """Transcribe a corpus as a run that resumes; return how many records of it could not be transcribed.

    ``execution`` are ``runner=ray|inprocess`` and ``workers=N``.

    Raises:
        UserError: as the Transcriber, or the output cannot be written, or is something else.
    """
    interruption.begin(resumes=True)
    out = store.absolute(out)
    common = carried_out(_RECIPE, out, execution)
    _refuse_others(out, places)
    check_out(out)
    transcriber = Transcriber(model, say=tell, **settings)
    tell(f"{transcriber.said} (speech at {transcriber.sampling_rate:,} Hz)")
    with shown(quiet) as progress:
        run = Run(out, make_cluster(common), progress=progress)
        with leased(run, partial(check_nodes, common)):
            made = transcriber.corpus(run, _SET, places)
            fresh = any(not trace.kept for trace in run.trace)
            run.write_ledger(_RECIPE, "")
    if not fresh:
        print("nothing to do: everything was finished by an earlier run")
    print(f"transcribed {plural(made.records, 'utterance')}: {made.url}")
    lost = {reason: count for trace in run.trace for reason, count in _lost(trace.summary).items()}
    for reason, count in lost.items():
        tell(f"{plural(count, 'record')} without text: {reason}; see `gristmill inspect {shlex.quote(out)} --rejects`")
    return sum(count for reason, count in lost.items() if not reason.endswith(QUIET))


def _refuse_others(out: str, places: Sequence[str]) -> None:
    """Check that an output is new, empty or an earlier output of this command, and apart from what is transcribed."""
    for place in places:
        if store.is_within(out, store.absolute(place)):
            raise UserError(f"--out {out}: lies in {place}, which is transcribed; expected a folder outside of it")
    refuse_occupied(out, Maker(_RECIPE, command=True))


def _lost(summary: Any) -> dict[str, int]:
    return {**summary.get("reasons", {}), **summary.get("errors", {})}
