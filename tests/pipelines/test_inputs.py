"""Files that cannot be listed: they are rejects of a set of their own, told and counted, and the others go on."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.nlu.corpora import RequestCorpusSettings, check_requests, prepare_requests
from gristmill.pipelines.progress import LogProgress
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.corpora import CorpusSettings, prepare_corpora
from gristmill.pipelines.speech.preflight import check_corpus
from gristmill.pipelines.text.corpora import PairSettings, prepare_text
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.errors import UserError

RATE = 8000
PAIRS = "turn on the light\tबत्ती चालू करो\nstop the music\tसंगीत बंद करो\n"
HWU = 'answerid;scenario;intent;answer_annotation\n7;alarm;set;"wake me at [time : nine]"\n'


def tar(*names: str) -> bytes:
    sound, out = io.BytesIO(), io.BytesIO()
    soundfile.write(sound, 0.1 * np.random.default_rng(1).standard_normal(RATE // 2), RATE, format="flac")
    with tarfile.open(fileobj=out, mode="w") as made:
        for name in names:
            for suffix, data in ((".flac", sound.getvalue()), (".txt", b"go on")):
                info = tarfile.TarInfo(name + suffix)
                info.size = len(data)
                made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def text(run: Run, places: object) -> SealedSet:
    return prepare_text(run, PairSettings(places=places))


def speech(run: Run, places: object) -> SealedSet:
    settings = CorpusSettings(labelled=places, unlabelled=places, test=places, sampling_rate=RATE)
    check_corpus(settings, "trained")
    return prepare_corpora(run, settings).labelled


def requests(run: Run, places: object) -> SealedSet:
    settings = RequestCorpusSettings(places=places)
    check_requests(settings)
    return prepare_requests(run, settings)


Prepare = Callable[[Run, object], SealedSet]
KINDS = [
    pytest.param(
        text,
        "pairs",
        {"a.tsv": PAIRS.encode()},
        {
            "b.tsv": PAIRS.encode("utf-16"),
            "c.parquet": b"PAR1",
            "d.tmx": b'<?xml version="1.0" encoding="utf-99"?><tmx>',
        },
        {"list: other encoding": 1, "list: unreadable": 2},
        id="text",
    ),
    pytest.param(
        speech,
        "labelled",
        {"a.tar": tar("x", "y")},
        {"b.tar": tar("x")[:700], "c.tar": tar("x").replace(b"x.flac", b"y.flac", 1)},
        {"list: truncated": 1, "list: unreadable": 1},
        id="speech",
    ),
    pytest.param(
        requests,
        "requests",
        {"a.csv": HWU.encode()},
        {"b.csv": b"name;value\n1;2\n", "c.jsonl.gz": b"no gzip", "d.csv": b'answerid\r;"'},
        {"list: other columns": 1, "list: unreadable": 2},
        id="requests",
    ),
]


def write(folder: Path, files: dict[str, bytes]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return str(folder)


@pytest.mark.parametrize(("prepare", "name", "good", "bad", "reasons"), KINDS)
def test_files_that_cannot_be_listed_are_rejects_and_the_others_go_on(
    tmp_path: Path, prepare: Prepare, name: str, good: dict, bad: dict, reasons: dict
) -> None:
    whole = prepare(Run(str(tmp_path / "whole"), InProcessRunner()), write(tmp_path / "corpus", good))
    said = io.StringIO()
    run = Run(str(tmp_path / "out"), InProcessRunner(), progress=LogProgress(said))
    made = prepare(run, write(tmp_path / "corpus", bad))
    assert made.digest == whole.digest
    (trace,) = [trace for trace in run.trace if trace.name == f"unlisted_{name}"]
    seal = open_sealed(trace.url).seal
    assert (seal["records_in"], seal["records_out"], seal["rejected"]) == (len(bad), 0, len(bad))
    assert seal["reasons"] == reasons
    assert f"{name}: {len(bad)} files cannot be listed" in said.getvalue()
    assert f"The first is {tmp_path}/corpus/{min(bad)}: " in said.getvalue()
    assert not [gap for result in audit_below(run.out) for gap in result.gaps]
    for file in good:
        (tmp_path / "corpus" / file).unlink()
    with pytest.raises(UserError, match=rf"corpus/{min(bad)}: .*; nor can {len(bad) - 1} more be listed"):
        prepare(Run(str(tmp_path / "none"), InProcessRunner()), str(tmp_path / "corpus"))


@pytest.mark.parametrize(("prepare", "name", "good", "bad", "reasons"), KINDS)
def test_a_place_without_a_file_that_can_be_listed_stops_no_other(
    tmp_path: Path, prepare: Prepare, name: str, good: dict, bad: dict, reasons: dict
) -> None:
    run = Run(str(tmp_path / "out"), InProcessRunner())
    assert prepare(run, (write(tmp_path / "bad", bad), write(tmp_path / "good", good))).records
    (trace,) = [trace for trace in run.trace if trace.name == f"unlisted_{name}"]
    assert trace.summary["rejected"] == len(bad)
    with pytest.raises(UserError, match="no such file"):
        prepare(run, (str(tmp_path / "gone"), str(tmp_path / "good")))
