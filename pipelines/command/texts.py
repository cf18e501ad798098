"""The commands ``translate``, ``score`` and ``annotate``: a line for each line of text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gristmill.pipelines.command.transcribe import tell
from gristmill.pipelines.inline import read_lines
from gristmill.pipelines.progress import plural
from gristmill.pipelines.requests.annotate import AnnotatedRequest, RequestAnnotator
from gristmill.pipelines.text.score import TextScorer, perplexity
from gristmill.pipelines.text.translate import TextTranslator
from gristmill.shards.safe_text import escaped


def print_translations(model: str, places: Sequence[str], form: str, quiet: bool, **settings: Any) -> int:
    """Print the translations of lines; return how many have none."""
    translator = TextTranslator(model, **settings)
    if not quiet:
        tell(f"{translator.said}, from {translator.source_lang} into {translator.target_lang}")
    failed = 0
    for number, one in enumerate(translator.translate(read_lines(places, tell)), 1):
        if one.problem is not None and one.source.strip():
            failed += 1
            tell(f"text {number}: {one.problem}")
        others = [{"text": text, "logprob": logprob} for text, logprob in one.others]
        _print(form, one.text, {**asdict(one), "others": others})
    return _told(failed, "text", "not translated")


def print_scores(model: str, places: Sequence[str], form: str, quiet: bool, **settings: Any) -> None:
    """Print the scores of lines, and tell the perplexity of all."""
    scorer = TextScorer(model, **settings)
    if not quiet:
        tell(scorer.said + (f", texts in lower case without punctuation ({scorer.lang})" if scorer.lang else ""))
    total = known = 0.0
    lines = count = oov = 0
    for one in scorer.score(read_lines(places, tell)):
        if one is None:
            _print(form, "nan\tnan\t0\t", {"text": None})
            continue
        lines, count, oov = lines + 1, count + one.words, oov + one.oov
        total, known = total + one.logprob, known + one.logprob - one.oov_logprob
        row = {**asdict(one), "perplexity": one.perplexity}
        _print(form, f"{one.logprob:.4f}\t{one.perplexity:.2f}\t{one.oov}\t{one.text}", row)
    if lines and not quiet:
        of_all, of_known = perplexity(total, count), perplexity(known, count - oov)
        tell(
            f"{plural(lines, 'text')}, {plural(count, 'word')} with ends: perplexity {of_all:.2f}, {of_known:.2f} "
            f"without the {oov} that the model does not know"
        )


def print_annotations(out: str, places: Sequence[str], form: str, quiet: bool, **settings: Any) -> int:
    """Print the readings of requests; return how many have none."""
    annotator = RequestAnnotator(out, **settings)
    if not quiet:
        context = f"; context, if given: {', '.join(annotator.columns)}" if annotator.columns else ""
        tell(f"{annotator.said}; {plural(len(annotator.domains), 'domain')}{context}")
    failed = 0
    for number, one in enumerate(annotator.annotate(_requests(places)), 1):
        if one.problem is not None and one.text.strip():
            failed += 1
            tell(f"request {number}: {one.problem}")
        _print(form, _reading(one), {**asdict(one), "slots": [slot._asdict() for slot in one.slots]})
    return _told(failed, "request", "without a reading")


def _reading(one: AnnotatedRequest) -> str:
    if one.confidence is None:
        return ""
    slots = ", ".join(f"{slot.name}={slot.value}" for slot in one.slots)
    return "\t".join([one.domain, one.intent, f"{one.confidence:.3f}", slots, one.text])


def _requests(places: Sequence[str]) -> Iterator[str | Mapping[str, Any] | None]:
    for place in places:
        for line in read_lines([place], tell):
            # A request does not begin with a brace: on standard input both kinds are known by it.
            if line is None or not line.lstrip().startswith("{"):
                yield line
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                tell(f"{place}: a line is no JSON; passed over")
            yield found if isinstance(found, dict) else None


def _print(form: str, line: str, row: Mapping[str, Any]) -> None:
    shown = json.dumps(row, ensure_ascii=False) if form == "jsonl" else line
    print(escaped(shown, keep="\t"), flush=True)


def _told(failed: int, noun: str, what: str) -> int:
    if failed:
        tell(f"{plural(failed, noun)} {what}")
    return failed
