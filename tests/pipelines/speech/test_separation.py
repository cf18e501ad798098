"""Speech of the test is not trained on, by whatever name it is given."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.progress import RunProgress
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.corpora import CorpusSettings, prepare_corpora
from gristmill.pipelines.speech.separation import check_separation
from gristmill.shards.errors import UserError
from tests.pipelines.commands import call
from tests.pipelines.speech.test_corpora import RATE, utterance

HELD_OUT = "a share of corpus.labelled is held out for the test, and would be trained on all the same"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Annotated speech with a manifest, in a working folder; and names that lead to the same."""
    for number in range(3):
        utterance(tmp_path / "gold" / "wav" / f"{number}.wav", number)
    lines = [json.dumps({"audio_filepath": f"wav/{n}.wav", "text": "go", "speaker": f"s{n}"}) for n in range(3)]
    (tmp_path / "gold" / "manifest.jsonl").write_text("\n".join(lines))
    for number in range(2):
        utterance(tmp_path / "raw" / f"{number}.wav", 9 + number, None)
    (tmp_path / "link").symlink_to(tmp_path / "gold")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "other.wav").symlink_to(tmp_path / "gold" / "wav" / "1.wav")
    (tmp_path / "hard").mkdir()
    os.link(tmp_path / "gold" / "wav" / "2.wav", tmp_path / "hard" / "x.wav")
    paths = pa.table({"audio": [str(tmp_path / "gold" / "wav" / "0.wav")], "text": ["go"]})
    pq.write_table(paths, tmp_path / "paths.parquet")
    cut = {"audio_filepath": f"{tmp_path}/gold/wav/0.wav", "offset": 0.1, "duration": 0.2}
    (tmp_path / "parts.jsonl").write_text(json.dumps(cut))
    monkeypatch.chdir(tmp_path)
    return tmp_path


SAME = [
    "{root}/gold",
    "gold",
    "{root}/raw/../gold/",
    "file://{root}/gold",
    "{root}/link",
    "{root}/gold/wav",
    "{root}/gold/manifest.jsonl",
    "{root}/links",
    "{root}/hard",
    "{root}/paths.parquet",
    "{root}/parts.jsonl",
    "{root}/gold/wav/*.wav",
]


@pytest.mark.parametrize("place", SAME)
def test_annotated_speech_is_not_given_as_unlabelled_too(root: Path, place: str) -> None:
    place = place.format(root=root)
    settings = CorpusSettings(labelled=str(root / "gold"), unlabelled=(str(root / "raw"), place))
    with pytest.raises(UserError) as caught:
        check_separation(settings, None)
    assert str(caught.value).startswith(f"corpus.labelled and corpus.unlabelled both hold {root}")
    assert HELD_OUT in str(caught.value)
    assert str(caught.value).endswith("expected other recordings there, or corpus.test")
    # With a test of its own, nothing of it is trained on; but the test may not be among the training either.
    test = settings.but(test=str(root / "raw"), unlabelled=place)
    check_separation(test, None)
    with pytest.raises(UserError, match=r"corpus.test and corpus.unlabelled both hold .*: speech of the test would be"):
        check_separation(test.but(test=str(root / "gold"), labelled=str(root / "raw")), None)


def test_each_part_is_compared(root: Path) -> None:
    gold, raw = str(root / "gold"), str(root / "raw")
    check_separation(CorpusSettings(labelled=gold, unlabelled=raw), None)
    with pytest.raises(UserError, match=r"corpus.labelled: two of its places hold .*wav and 2 more: a share"):
        check_separation(CorpusSettings(labelled=(gold, str(root / "link")), unlabelled=raw), None)
    with pytest.raises(UserError, match=r"corpus.test and corpus.labelled both hold"):
        check_separation(CorpusSettings(labelled=gold, unlabelled=raw, test=f"{gold}/wav/0.wav"), None)
    with pytest.raises(UserError, match=r"corpus.labelled and corpus.transcribed both hold"):
        check_separation(CorpusSettings(labelled=gold, unlabelled=raw, transcribed=str(root / "links")), None)
    with pytest.raises(UserError, match=r"noise and corpus.unlabelled both hold .* the noise of speech"):
        check_separation(CorpusSettings(labelled=gold, unlabelled=raw), f"{root}/raw/.")
    with pytest.raises(UserError, match=r"noise and corpus.digits both hold"):
        check_separation(CorpusSettings(kind="digits", digits=gold), str(root))


def test_other_segments_of_a_recording_are_others(root: Path) -> None:
    def cut(name: str, start: float, **more: object) -> str:
        line = {"audio_filepath": f"{root}/gold/wav/0.wav", "offset": start, "duration": 0.2, "text": "go", **more}
        (root / name).write_text(json.dumps(line))
        return str(root / name)

    first, second, across = cut("a.jsonl", 0.0), cut("b.jsonl", 0.2), cut("c.jsonl", 0.1)
    check_separation(CorpusSettings(labelled=first, unlabelled=second), None)
    for other in (first, second):
        with pytest.raises(UserError, match=r"both hold"):
            check_separation(CorpusSettings(labelled=other, unlabelled=across), None)


def test_the_command_refuses_before_any_work(root: Path) -> None:
    for command in ("run", "plan"):
        result = call(
            command, "distill", "runner=inprocess", f"corpus.labelled={root}/gold", "corpus.unlabelled=link", "out=out"
        )
        assert result.exit_code == 2
        assert HELD_OUT in result.stderr
    assert not (root / "out").exists()


class Heard(RunProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        """Keep a sentence."""
        self.said.append(text)


def test_other_speech_of_speakers_held_out_is_not_trained_on(root: Path) -> None:
    lines = []
    for number in range(6):
        soundfile.write(root / f"more{number}.wav", [0.1, -0.1] * RATE, RATE)
        lines.append(json.dumps({"audio_filepath": f"more{number}.wav", "speaker": f"s{number % 4}"}))
    (root / "more.jsonl").write_text("\n".join(lines))
    run = Run(str(root / "out"), InProcessRunner(), progress=(heard := Heard()))
    settings = CorpusSettings(labelled=str(root / "gold"), unlabelled=str(root / "more.jsonl"), sampling_rate=RATE)
    check_separation(settings, None)
    corpora = prepare_corpora(run, settings)
    (tested,) = {row["speaker"] for row in corpora.test.read(0, ["speaker"]).to_pylist()}
    trained = corpora.unlabelled.read(0, ["speaker"])["speaker"].to_pylist()
    assert tested not in trained
    assert sorted({*trained, tested}) == ["s0", "s1", "s2", "s3"]
    assert any(f"1 speaker held out for the test ({tested})" in sentence for sentence in heard.said)
    kept = next(trace for trace in run.trace if trace.name == "probed_unlabelled_kept")
    assert kept.summary["reasons"] == {"held_out: speaker of the test": 6 - len(trained)}
