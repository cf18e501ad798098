"""The commands ``translate``, ``score`` and ``annotate``: a line for each line of text."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from gristmill.actors.sources.reading import read_json
from gristmill.pipelines.command.transcribe import tell
from gristmill.pipelines.inline import InputLine, read_lines
from gristmill.pipelines.progress import plural
from gristmill.pipelines.requests.annotate import NO_TEXT, AnnotatedRequest, RequestAnnotator
from gristmill.pipelines.requests.context import type_of
from gristmill.pipelines.text.score import TextScorer, perplexity
from gristmill.pipelines.text.translate import TextTranslator
from gristmill.shards import store
from gristmill.shards.safe_text import escaped

_MOST = 10  # warnings of a kind that are told

L = TypeVar("L")
T = TypeVar("T")


def print_translations(model: str, places: Sequence[str], form: str, quiet: bool, **settings: Any) -> int:
    """Print the translations of lines; return how many have none."""
    translator = TextTranslator(model, **settings)
    if not quiet:
        tell(f"{translator.said}, from {translator.source_lang} into {translator.target_lang}")
    problems = _Problems("text", "not translated")
    for line, one in _each(read_lines(places), lambda given: translator.translate(line.text for line in given)):
        problem = line.problem or one.problem
        if problem is not None and (line.text is None or line.text.strip()):
            problems.tell(line.where, problem)
        others = [{"text": text, "logprob": logprob} for text, logprob in one.others]
        _print(form, one.text, {**asdict(one), "others": others, "problem": problem})
    return problems.finish()


def print_scores(model: str, places: Sequence[str], form: str, quiet: bool, **settings: Any) -> int:
    """Print the scores of lines, and tell the perplexity of all; return how many could not be read."""
    scorer = TextScorer(model, **settings)
    if not quiet:
        tell(scorer.said + (f", texts in lower case without punctuation ({scorer.lang})" if scorer.lang else ""))
    problems = _Problems("text", "not scored")
    total = known = 0.0
    lines = count = oov = 0
    for line, one in _each(read_lines(places), lambda given: scorer.score(line.text for line in given)):
        if line.problem is not None:
            problems.tell(line.where, line.problem)
            _print(form, "", {"text": None, "problem": line.problem})
            continue
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
    return problems.finish()


def print_annotations(out: str, places: Sequence[str], form: str, quiet: bool, **settings: Any) -> int:
    """Print the readings of requests; return how many have none."""
    annotator = RequestAnnotator(out, **settings)
    if not quiet:
        context = f"; context, if given: {', '.join(annotator.columns)}" if annotator.columns else ""
        tell(f"{annotator.said}; {plural(len(annotator.domains), 'domain')}{context}")
    problems = _Problems("request", "without a reading")
    for (line, _), one in _each(_requests(places), lambda given: annotator.annotate(request for _, request in given)):
        problem = line.problem or one.problem
        if problem is not None and (problem != NO_TEXT or one.text.strip()):
            problems.tell(line.where, problem)
        row = {**asdict(one), "slots": [slot._asdict() for slot in one.slots], "problem": problem}
        _print(form, _reading(one), row)
    return problems.finish()


def _reading(one: AnnotatedRequest) -> str:
    if one.confidence is None:
        return ""
    slots = ", ".join(f"{slot.name}={slot.value}" for slot in one.slots)
    return "\t".join([one.domain, one.intent, f"{one.confidence:.3f}", slots, one.text])


def _requests(places: Sequence[str]) -> Iterator[tuple[InputLine, str | dict[str, Any] | None]]:
    """Yield the lines of files with their requests: texts, or JSON in a ``.jsonl`` file and where a line is JSON."""
    for line in read_lines(places):
        listed = store.bare(line.place).lower().removesuffix(".gz").endswith(".jsonl")
        text = (line.text or "").strip()
        if not text or not (listed or text.startswith(("{", "["))):
            yield line, line.text
            continue
        try:
            found = read_json(text)
        except (ValueError, RecursionError):
            if text.startswith("[") and not listed:
                yield line, line.text  # "[laughs] turn it off"
            else:
                yield line._replace(problem="no JSON"), None
            continue
        if isinstance(found, dict):
            yield line, found
        else:
            yield line._replace(problem=f'{type_of(found)}; expected an object, as {{"text": ...}}'), None


def _each(lines: Iterable[L], use: Callable[[Iterator[L]], Iterable[T]]) -> Iterator[tuple[L, T]]:
    """Yield lines, each with what is made of it: one result a line, in their order."""
    waiting: deque[L] = deque()

    def taken() -> Iterator[L]:
        for line in lines:
            waiting.append(line)
            yield line

    for made in use(taken()):
        yield waiting.popleft(), made


class _Problems:
    """Tells what is wrong with lines: of each kind the first few, and at the end how many there were."""

    def __init__(self, noun: str, what: str) -> None:
        self._noun, self._what = noun, what
        self._kinds: dict[str, tuple[str, int]] = {}  # a sentence of each kind, and how many there were

    def tell(self, where: str, problem: str) -> None:
        """Say what is wrong with a line, and where it is."""
        kind = re.sub(r"\d+", "0", problem)
        first, count = self._kinds.get(kind, (problem, 0))
        self._kinds[kind] = first, count + 1
        if count < _MOST:
            tell(f"{where}: {problem}")

    def finish(self) -> int:
        """Say how many lines there were; return it."""
        for first, count in self._kinds.values():
            if count > _MOST:
                tell(f"and {count - _MOST:,} more as: {first}")
        failed = sum(count for _, count in self._kinds.values())
        if failed:
            tell(f"{plural(failed, self._noun)} {self._what}")
        return failed


def _print(form: str, line: str, row: Mapping[str, Any]) -> None:
    shown = json.dumps(row, ensure_ascii=False) if form == "jsonl" else line
    print(escaped(shown, keep="\t"), flush=True)
