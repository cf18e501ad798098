"""What the product makes of awkward inputs: a table of what is right and what came out, for each input of a folder.

    python -m benchmarks.awkward [FOLDER] [--only WORD]     # FOLDER: default $GRISTMILL_DATA/awkward

``FOLDER`` holds ``speech/`` and ``text/``: files and folders as other people's tools wrote them. Each is given to the
product as its user would, in this process: recordings as a corpus of ``distill`` (listed, probed, loaded), texts and
requests as those of ``bootstrap_lm`` and ``rerank`` (listed, parsed), lists to ``gristmill rerank``. What came out is
one line: the records that were taken, by seconds and text, then the rejects by reason. What is right is a pattern of
such a line; of an input without one, only that it ends without a traceback. The exit code is 1 if a line is not right.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gristmill.actors.speech.banks import NoiseBank, NoiseBankSettings, build_noise_bank_from_folder, list_noises
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.command.audit import audit_output
from gristmill.pipelines.command.rerank import rerank_lists
from gristmill.pipelines.nlu.corpora import (
    RequestCorpusSettings,
    prepare_requests,
    split_requests,
    without_small_domains,
)
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.corpora import CorpusSettings, prepare_corpora
from gristmill.pipelines.text.corpora import PairSettings, TextSettings, prepare_text
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.finding import find_below
from gristmill.shards.parquet import read_table

_AUDIO = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".w64", ".au", ".sph", ".m4a", ".webm"}
_DOMAINS = ("video", "music", "home")  # of the lists


class Case(NamedTuple):
    """An input, what is right as a pattern of the outcome, and how it is given to the product."""

    path: str
    right: str
    how: Callable[[Path, str], str]


# --- the ways in


def speech(path: Path, out: str) -> str:
    """List, probe and load a corpus, with and without texts."""
    return _spoken(path, out, annotated=True)


def sound(path: Path, out: str) -> str:
    """List, probe and load a corpus without texts."""
    return _spoken(path, out, annotated=False)


def _spoken(path: Path, out: str, *, annotated: bool) -> str:
    run, part = Run(out, InProcessRunner()), "labelled" if annotated else "unlabelled"
    settings = CorpusSettings(labelled=str(path), unlabelled=str(path), test=str(path), min_duration=0.05)
    said = _said(lambda: prepare_corpora(run, settings))
    part = part if _set(out, f"probed_{part}") else "labelled"  # which is read first, and may be empty
    taken = [f"{row['duration']:.3f}s {row['text'] or ''}".strip() for row in _rows(out, part)]
    speakers = sorted({row["speaker"] for row in _rows(out, part) if row["speaker"]})
    told = [f"speakers {', '.join(speakers)}"] if annotated and speakers else []
    names = (f"unlisted_{part}", f"probed_{part}", part)
    return _line(taken, _reasons(out, names), told, said)


def noise(path: Path, out: str) -> str:
    """Make a bank of a folder of noises."""
    made = None
    counts: dict[str, int] = {}

    def make() -> None:
        nonlocal made
        files = list_noises(str(path))
        build_noise_bank_from_folder(out, NoiseBankSettings(), folder=str(path), files=files, rate=16000)
        made = [NoiseBank(out, split) for split in ("train", "test")]
        index = json.loads(Path(out, "index.json").read_text()) if Path(out, "index.json").exists() else {}
        counts.update(Counter(index.get("left_out", {}).values()))

    said = _said(make)
    taken = [f"{bank.seconds(n):.3f}s {bank.ids[n]}" for bank in made or () for n in range(len(bank))]
    return _line(sorted(taken), counts, [], said)


def pairs(source: str, target: str) -> Callable[[Path, str], str]:
    """List and parse pairs of two languages."""

    def how(path: Path, out: str) -> str:
        settings = PairSettings(places=str(path), source_lang=source, target_lang=target)
        said = _said(lambda: prepare_text(Run(out, InProcessRunner()), settings))
        return _texts(out, "pairs", said, lambda row: f"{row['source']} = {row['target']}")

    return how


def texts(lang: str) -> Callable[[Path, str], str]:
    """List and parse texts of a language."""

    def how(path: Path, out: str) -> str:
        settings = TextSettings(places=str(path), lang=lang)
        said = _said(lambda: prepare_text(Run(out, InProcessRunner()), settings))
        return _texts(out, "texts", said, lambda row: row["text"])

    return how


def _texts(out: str, name: str, said: list[str], shown: Callable[[dict[str, Any]], str]) -> str:
    taken = [shown(row) for row in _rows(out, name)]
    return _line(taken, _reasons(out, (f"unlisted_{name}", f"parsed_{name}", name)), [], said)


def requests(*, trained: bool = False, **context: str) -> Callable[[Path, str], str]:
    """List and parse annotated requests; ``trained``: and split them for trainings."""

    def how(path: Path, out: str) -> str:
        settings = RequestCorpusSettings(places=str(path), context=context)

        def work() -> None:
            run = Run(out, InProcessRunner())
            made = prepare_requests(run, settings)
            if trained:
                without_small_domains(run, {0: split_requests(run, settings, made)})

        said = _said(work)
        last = next((name for name in ("split_0_kept", "split_0", "requests") if _set(out, name)), "")
        taken = [_request(row) for row in _rows(out, last)]
        names = ("unlisted_requests", "requests", "split_0", "split_0_kept")
        return _line(taken, _reasons(out, names), [], said)

    return how


def _request(row: dict[str, Any]) -> str:
    slots = " ".join(f"[{slot['name']} {slot['value']}]" for slot in row["slots"] or [])
    return f"{row['text']} {slots}".strip()


def lists(path: Path, out: str) -> str:
    """Score lists of hypotheses by plain weights, and audit what was made."""
    weights = Path(out, "weights")
    weights.mkdir(parents=True)
    from gristmill.models.nlu.rerankers import DomainReranker

    for domain in _DOMAINS:
        (weights / f"{domain}.json").write_bytes(DomainReranker.unweighted(domain).to_bytes())
    made = str(Path(out, "made"))
    said = _said(lambda: rerank_lists(str(path), str(weights), made, ["runner=inprocess"]))
    gaps = [gap for result in audit_output(made) for gap in result.gaps] if _set(made, "ranked") else []
    taken = [f"{row['id']} {row['best']}" for row in _rows(made, "ranked")]
    told = [f"audit: {gap}" for gap in gaps]
    return _line(taken, _reasons(made, ("ranked",)), told, said)


def made_lists(path: Path, out: str) -> str:
    """Make the large lists with the script beside, and score them."""
    made = Path(out, "large")
    made.mkdir(parents=True)
    subprocess.run([sys.executable, str(path), str(made)], check=True)
    return " | ".join(lists(made / name, str(Path(out, name[:-6]))) for name in ("badlate.jsonl", "straddle.jsonl"))


# --- what came out


def _said(work: Callable[[], Any]) -> list[str]:
    """Return the sentence that a piece of work ends with, if it ends with one."""
    try:
        work()
    except UserError as error:
        return [str(error).splitlines()[0]]
    return []


def _set(out: str, name: str) -> SealedSet | None:
    found = find_below(out).sealed
    return next((one for one in found if one.name == name), None)


def _rows(out: str, name: str) -> list[dict[str, Any]]:
    found = _set(out, name)
    return [] if found is None else [row for table in found.tables() for row in table.to_pylist()]


def _reasons(out: str, names: tuple[str, ...]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name in names:
        if (found := _set(out, name)) is not None:
            counts.update({row["reason"]: 0 for file in found.side("rejects") for row in _side(found, file)})
            counts.update(row["reason"] for file in found.side("rejects") for row in _side(found, file))
            counts.update("quarantined" for file in found.side("quarantine") for _ in _side(found, file))
    return counts


def _side(found: SealedSet, file: Any) -> list[dict[str, Any]]:
    return read_table(found.url, file).to_pylist()


def _line(taken: list[str], reasons: dict[str, int], told: list[str], said: list[str]) -> str:
    shown = ", ".join(taken[:12]) + (f", ... {len(taken)} in all" if len(taken) > 12 else "")
    counts = [f"{number} x {reason}" for reason, number in sorted(reasons.items())]
    return "; ".join(
        [*([shown] if taken else []), *told, *counts, *([f"says: {one}" for one in said if not taken and not reasons])]
    )


# --- what is right


CASES = [
    Case("mp3-vbr-pipe-ffmpeg.mp3", "<3.096s>", sound),
    Case("mp3-vbr-pipe-lame.mp3", "<3.03s>", sound),
    Case("mp3-cbr-pipe-ffmpeg.mp3", "<3.096s>", sound),
    Case("mp3-cbr-pipe-lame.mp3", "<3.03s>", sound),
    Case("mp3-cover-no-xing.mp3", "<3.096s>", sound),
    Case("mp3-xing-0-frames.mp3", "<3.06s>", sound),
    Case("mp3-two-joined.mp3", "<6.1s>|1 x .*", sound),
    Case("mp3-zeros-after-id3.mp3", "<3.03s>", sound),
    Case("mp3-leading-zeros.mp3", "<3.03s>", sound),
    Case("wav-holding-mp3.wav", "<1.5s>|1 x unreadable", sound),
    Case("wav-data-length-0.wav", "<1.5s>", sound),
    Case("wav-data-length-44-over.wav", "<1.5s>", sound),
    Case("wav-sox-pipe-24bit-mono.wav", "<1.5s>", sound),
    Case("wav-sox-pipe-24bit-stereo.wav", "<1.5s>", sound),
    Case("wav-rf64-cut-in-half.wav", "1 x truncated", sound),
    Case("wav-rifx-cut-in-half.wav", "1 x truncated", sound),
    Case("w64-cut-in-half.w64", "1 x truncated", sound),
    Case("au-cut-in-half.au", "1 x truncated", sound),
    Case("sphere-cut-in-half.sph", "1 x truncated", sound),
    Case("flac-pipe-ffmpeg.flac", "<3.0s>", sound),
    Case("flac-pipe-flac-raw.flac", "<3.0s>", sound),
    Case("opus-no-end-flag.opus", "<3.0s>", sound),
    Case("opus-chained.opus", "<5.0s>|1 x .*", sound),
    Case("vorbis-chained.ogg", "<5.0s>|1 x .*", sound),
    Case("vorbis-cut-at-page.ogg", "<2.02s>|1 x truncated", sound),
    Case("float-spike-1e29.wav", "1 x unreadable", sound),
    Case("dc-only.wav", "1 x silent", sound),
    Case("manifest-nan-text", r"1\.500s the good one; 1 x no text", speech),
    Case("manifest-surrogate", r"1\.500s the good one; 1 x .*", speech),
    Case("manifest-long-name", r"(\d\.\d+s turn on, ){7}\d\.\d+s turn on; speakers s0, s1, s2; 2 x missing", speech),
    Case("manifest-punctuation/manifest.jsonl", r"1\.500s the good one; 1 x no text", speech),
    Case("manifest-punctuation/manifest-zero-width.jsonl", r"1\.500s the good one; 1 x no text", speech),
    Case("nemo-json-folder", r"1\.500s hello there", speech),
    Case("lhotse-overlap/cuts_windows.jsonl.gz", "(?!.*first).*", speech),
    Case("lhotse-overlap/cuts_trim.jsonl.gz", r"(?!.*words second|.*second one.*first|.*words, .*words).*", speech),
    Case("lhotse-relative", r"4\.000s hello", speech),
    Case("hf-per-split", r"\d\.\d+s one, \d\.\d+s two|\d\.\d+s two, \d\.\d+s one", speech),
    Case("folder-transcripts/timit", r"1\.500s (0 24000 )?She said so\.", speech),
    Case("folder-transcripts/lib", r"1\.500s café noir.*|.*1 x (?!no text).*", speech),
    Case("folder-transcripts/lib2", r"\d\.\d+s with bom.*", speech),
    Case("folder-transcripts/side", r"2 x (?!malformed).*(encoding|UTF).*|1 x .*; 1 x .*", speech),
    Case("parquet-dictionary-text.parquet", r"1\.500s one, 2\.000s two; speakers ann, bob", speech),
    Case("parquet-dictionary-speaker.parquet", r".*speakers ann, bob", speech),
    Case("parquet-string-view.parquet", r"1\.500s one, 2\.000s two", speech),
    Case("parquet-polars-1.38.0.parquet", r"1\.500s one, 2\.000s two", speech),
    Case("parquet-binary-view.parquet", r"\d\.\d+s.*", sound),
    Case("parquet-float-nan-text.parquet", "2 x no text", speech),
    Case("parquet-float-speaker-nan-duration.parquet", r"1\.500s one, 2\.000s two; speakers 7(\.0)?", speech),
    Case("tar-dots-in-name.tar", r"\d\.\d+s (?!,).+, \d\.\d+s .+", speech),
    Case("tar-latin1-name.tar", r"\d.*", sound),
    Case("tar-surrogate-json.tar", r".*1 x .*", speech),
    Case("tar-hardlink.tar", r"\d\.\d+s .*, \d\.\d+s .*|.*1 x .*", speech),
    Case("tar-symlink.tar", r"2\.000s .+, 2\.000s .+|.*1 x .*", speech),
    Case("tar-key-twice.tar", r"1\.500s first.*(, 2\.000s second.*|; 1 x duplicate)", speech),
    Case("noise-streamed-flac", r"\d.*", noise),
    Case("noise-loud-float", r"\d.*", noise),
    Case("tmx-control-char.tmx", r"turn on light.*; (3 x duplicate; )?1 x malformed unit", pairs("en", "hi")),
    Case("tmx-bad-byte.tmx", r"(turn on light.*, )+turn on light.*; 1 x .*", pairs("en", "hi")),
    Case("tmx-nbsp-entity.tmx", r"(turn on light.*, )+turn on light.*(; 1 x .*)?", pairs("en", "hi")),
    Case("tmx-inline-codes.tmx", r"turn on the light = .*", pairs("en", "hi")),
    Case("en-zh-requests.tsv", r"(?!.* x ).*", pairs("en", "zh")),
    Case(
        "en-de-wrong-language.tsv", r"turn on the light please = [^,]*; 2 x target: wrong language", pairs("en", "de")
    ),
    Case("en-hi-brand-names.tsv", r"(?!.* x target).*YouTube.*", pairs("en", "hi")),
    Case("en-hi-numbers-only.tsv", r"(?!.*wrong language).*", pairs("en", "hi")),
    Case("csv-three-line-record.csv", r"open the door[^=]*then close it = [^=]*, stop now = .*", pairs("en", "de")),
    Case("zero-width-space.tsv", r".*zero width space.*", pairs("en", "hi")),
    Case("khmer-zwsp.txt", ".* .*", texts("km")),
    Case("persian-zwnj.tsv", ".*\u200c.*\u200c.*", pairs("en", "fa")),
    Case("sinhala-zwj.tsv", ".*\u200d.*", pairs("en", "si")),
    Case("po-language-name", r"(?=.*open the door)(?=.*close the door).*", pairs("en", "hi")),
    Case("po-language-name/hi.po", r"open the door = .*", pairs("en", "hi")),
    Case("po-nb.po", r"open the door = .*", pairs("en", "no")),
    Case("po-one-quote.po", r"close the door = .*; 1 x .*", pairs("en", "hi")),
    Case("po-two-strings.po", r"[^;]* = .*; 1 x .*", pairs("en", "hi")),
    Case("po-bad-byte.po", r"[^;]* = .*; 1 x .*", pairs("en", "hi")),
    Case("po-formats.po", r"(?!.*\{0:|.*plural,|.*%\{).*complete.*", pairs("en", "hi")),
    Case("requests-surrogate-id.jsonl", r".* 120 in all; 1 x .*", requests(trained=True)),
    Case("clinc-surrogate", r".*1 x .*", requests()),
    Case("requests-one-stray-label.jsonl", r".* 120 in all; 1 x .*", requests(trained=True)),
    Case("requests-domain-of-one-text.jsonl", r".*in all; 12 x .*", requests(trained=True)),
    Case("requests-slots-odd.jsonl", r"(?!.*not in the text).*", requests()),
    Case("requests-two-files", r"a b, c d, e f, g h|a b, c d; 2 x .*", requests()),
    Case(
        "hwu64-upstream",
        r"wake me at nine \[time nine\]; 2 x .*|wake me at nine \[time nine\]; 1 x .*; 1 x .*",
        requests(),
    ),
    Case("requests-context-nan.jsonl", r"a b, c d, e f; 2 x context: no number", requests(hour="number")),
    Case("topv2", r"wake me at nine.*", requests()),
    Case("lists-dupid.jsonl", r"(?!.*audit).*1 x duplicate", lists),
    Case("lists-bad.jsonl", r"u0 0, u1 0, u3 0; 1 x .*|u0 0, u1 0, u2 0; 1 x .*", lists),
    Case("lists-intid.jsonl", r"(u\d 0, ){2}u\d 0; 1 x .*", lists),
    Case("lists-dupkey.jsonl", r"(u\d 0, ){2}u\d 0; 1 x .*", lists),
    Case("lists-sur.jsonl", r"(u\d 0, ){2}u\d 0; 1 x .*", lists),
    Case("lists-string.jsonl", r"(u\d 0, ){2}u\d 0; 1 x .*", lists),
    Case("lists-pos.jsonl", r"(u\d 0, ){2}u\d 0; 1 x .*", lists),
    Case("make-big-lists.py", r".* 9000 in all; 1 x [^|]* \| .* 9001 in all", made_lists),
    Case("upper-case.TSV.GZ", r".* = .*|says: .*", pairs("en", "hi")),
    Case("cr-only.tsv", r"turn on the light = .*|.*(line|carriage).*", pairs("en", "hi")),
    Case("utf16-no-bom.tsv", r"turn on = .*|.*UTF-16.*|.*1 x other encoding.*", pairs("en", "hi")),
]
_SPEECH = {case.path for case in CASES if case.how in (speech, sound, noise)}


def _pattern(right: str) -> str:
    """Return the pattern of what is right, in which ``<3.1s>`` is a recording of that length to a twentieth of 1 s."""

    def lengths(found: re.Match[str]) -> str:
        near = "|".join(f"{float(found[1]) + step / 100:.2f}" for step in range(-5, 6))
        return f"(?:{near})\\d*s"

    return re.sub(r"<([\d.]+)s>", lengths, right)


def cases(folder: Path, only: str) -> Iterator[Case]:
    """Yield the cases whose input is there, and those of inputs that are not known."""
    for case in CASES:
        if (folder / _part(case) / case.path).exists() and only in case.path:
            yield case
    known = {(_part(case), case.path.split("/")[0]) for case in CASES}
    for part in ("speech", "text"):
        for path in sorted((folder / part).glob("*")):
            if (part, path.name) not in known and path.name != "README.md" and only in path.name:
                yield Case(path.name, ".*", _guessed(part, path))


def _part(case: Case) -> str:
    return "speech" if case.path in _SPEECH else "text"


def _guessed(part: str, path: Path) -> Callable[[Path, str], str]:
    if part == "speech":
        return noise if path.name.startswith("noise") else sound if path.suffix.lower() in _AUDIO else speech
    if path.name.startswith("lists"):
        return lists
    return requests() if path.is_dir() or path.name.startswith("requests") else pairs("en", "hi")


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    data = os.environ.get("GRISTMILL_DATA", "../shared/data")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(data, "awkward"))
    parser.add_argument("--only", default="", help="part of the names of the inputs")
    given = parser.parse_args()
    given.folder = given.folder.resolve()
    print("| | input | right | came out |\n| --- | --- | --- | --- |")
    wrong = total = 0
    for case in cases(given.folder, given.only):
        path = given.folder / _part(case) / case.path
        with tempfile.TemporaryDirectory() as out:
            os.chdir(path if path.is_dir() else path.parent)  # as the user who has it there
            try:
                line = case.how(path, out)
            except Exception as error:
                line = f"traceback: {type(error).__name__}: {error}"
        right = re.fullmatch(_pattern(case.right), line, re.DOTALL | re.IGNORECASE) is not None and not line.startswith(
            "traceback"
        )
        total, wrong = total + 1, wrong + (not right)
        cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in (case.right, line)]
        print(f"| {'' if right else 'WRONG'} | {case.path} | `{cells[0]}` | {cells[1][:300]} |", flush=True)
    print(f"\n{total - wrong} of {total} are right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
