"""A published recogniser: it is a model by itself, its card is true, and its ONNX graph gives what torch gives."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.speech import onnx_graph
from gristmill.models.speech.checkpoint import load_acoustic
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech import publish
from gristmill.shards.cleaning import clean
from gristmill.shards.dataset import open_sealed
from gristmill.shards.tombstone import Tombstone
from tests.pipelines.speech import used

LENGTHS = (1, 30, 31, 200)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return used.finished(tmp_path_factory.mktemp("run"))


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    pitch = np.repeat(np.random.default_rng(0).uniform(100, 3500, 10), 800)
    soundfile.write(tmp_path / "my.wav", 0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / 8000), 8000)
    return tmp_path / "my.wav"


def test_a_published_folder_is_a_model_and_is_not_written_over(
    out: Path, speech: Path, tmp_path: Path, gristmill
) -> None:
    made = gristmill("publish", out, "best", tmp_path / "model")
    assert made.exit_code == 0
    published = next(line for line in made.stdout.splitlines() if line.startswith("published: "))
    assert {*re.findall(r"[\w.]+", published.partition(" (")[2])} == {
        path.name for path in (tmp_path / "model").iterdir()
    }
    assert "student, the best of 2 systems on average over the test sets (WER 20.0% clean, 30.0% noisy)" in made.stderr
    of_run = gristmill("transcribe", out, speech)
    assert gristmill("transcribe", tmp_path / "model", speech).stdout == of_run.stdout
    assert "nothing to do" in gristmill("publish", out, "student", tmp_path / "model").stdout
    other = gristmill("publish", out, "teacher", tmp_path / "model")
    assert (other.exit_code, "contains something else" in other.stderr) == (2, True)
    weights = tmp_path / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    damaged = gristmill("transcribe", tmp_path / "model", speech)
    assert (damaged.exit_code, damaged.stdout) == (1, "")
    assert f"{weights}: its bytes are not those that were committed" in damaged.stderr


def test_the_lines_of_the_card_work_and_its_figures_are_the_reports(
    out: Path, speech: Path, tmp_path: Path, gristmill, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gristmill("publish", out, "student", tmp_path / "model").exit_code == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| noisy | 30.0 % | 30.0 % to 30.0 % | 9 reference words | 70.0 % |" in card
    assert "/home/me" not in card
    assert "made of: `features_clean`." in card
    monkeypatch.chdir(tmp_path / "model")
    speech.rename(tmp_path / "model" / "my.wav")
    text = gristmill("transcribe", ".", "my.wav").stdout.strip()
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(block, {})
        assert text in said.getvalue()


@pytest.mark.parametrize("inner", ["", "/model"])
def test_a_file_in_the_place_of_the_folder_is_told_before_the_work(
    inner: str, out: Path, tmp_path: Path, gristmill
) -> None:
    (tmp_path / "file").write_text("mine")
    refused = gristmill("publish", out, "best", f"{tmp_path}/file{inner}")
    where = tmp_path / "file"
    assert refused.exit_code == 2
    assert refused.stderr == (f"gristmill: {where}{inner}: {where} is a file; expected a folder, or an unused path\n")
    assert where.read_text() == "mine"


@pytest.mark.parametrize("name", ["model.safetensors", "units.json", "settings.json"])
def test_a_damaged_publication_is_not_loaded_and_is_written_again(
    name: str, out: Path, speech: Path, tmp_path: Path, gristmill
) -> None:
    model = tmp_path / "model"
    assert gristmill("publish", out, "best", model).exit_code == 0
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    with (model / "README.md").open("a") as card:
        card.write("Licence: mine.\n")
    (model / name).write_bytes(before[name][:-1] + bytes([before[name][-1] ^ 1]))
    loaded = gristmill("transcribe", model, speech)
    assert (loaded.exit_code, loaded.stdout) == (1, "")
    assert f"{model / name}: its bytes are not those that were committed" in loaded.stderr
    again = gristmill("publish", out, "best", model)
    assert (again.exit_code, "nothing to do" in again.stdout) == (0, False)
    assert f"{model / name}: its bytes are not those that were committed" in again.stderr
    after = {path.name: path.read_bytes() for path in model.iterdir()}
    assert after.pop("README.md") == before.pop("README.md") + b"Licence: mine.\n"
    assert after == before
    (model / "README.md").unlink()
    assert gristmill("publish", out, "best", model).exit_code == 0
    assert (model / "README.md").exists()
    (model / "artifact.json").write_bytes(b"{}")
    torn = gristmill("publish", out, "best", model)
    assert (torn.exit_code, "expected an unused path, or this model as it was written" in torn.stderr) == (2, True)


def test_what_is_not_published(out: Path, tmp_path: Path, gristmill) -> None:
    inner = gristmill("publish", out, "best", out / "model")
    assert (inner.exit_code, "lies in the output of the run" in inner.stderr) == (2, True)
    assert not (out / "model").exists()
    used.finished(tmp_path / "other")
    for dest in (tmp_path / "other", tmp_path / "other" / "models" / "robust"):
        there = gristmill("publish", out, "best", dest)
        assert there.exit_code == 2
        assert f"lies in the output of another run, {tmp_path / 'other'};" in there.stderr
    assert not (tmp_path / "other" / "models").exists()
    Run(str(tmp_path / "other"), InProcessRunner()).write_ledger("bootstrap_lm", "")
    other = gristmill("publish", tmp_path / "other", "best", tmp_path / "model")
    assert (other.exit_code, "the recipe bootstrap_lm, which is not used by `publish`" in other.stderr) == (2, True)


@pytest.mark.parametrize("encoder", ["conformer", "gru"])
def test_a_graph_gives_what_torch_gives(encoder: str) -> None:
    model, _, _ = load_acoustic(used.weights(0, encoder))
    utterances = [used.spoken(frames) for frames in LENGTHS]
    graph = onnx_graph.to_onnx(model)
    assert onnx_graph.difference(graph, model, utterances) < 1e-4
    other, _, _ = load_acoustic(used.weights(1, encoder))
    assert onnx_graph.difference(graph, other, utterances) > publish.BOUND


def test_a_graph_that_is_not_within_the_bound_is_not_published(
    out: Path, tmp_path: Path, gristmill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "BOUND", -1.0)
    made = gristmill("publish", out, "student", tmp_path / "model")
    assert (made.exit_code, "differs from torch's by" in made.stderr) == (1, True)
    assert not (tmp_path / "model").exists()


def test_a_graph_is_compared_on_what_was_not_cleaned(tmp_path: Path, gristmill) -> None:
    out = used.finished(tmp_path / "out", {"features_noisy": used.features(30, 70, 90)})

    def delete(name: str) -> None:
        (folder,) = (out / name).iterdir()
        sealed = open_sealed(folder)
        told = Tombstone(name, "set", sealed.digest, "only other sets are made of it", 1, 1, folder.name, used=True)
        clean(sealed.url, told, lambda: None)

    delete("features_noisy")
    made = gristmill("publish", out, "student", tmp_path / "model")
    assert (made.exit_code, "comparing 2 utterances" in made.stderr) == (0, True)
    delete("features_clean")
    refused = gristmill("publish", out, "student", tmp_path / "other")
    assert refused.exit_code == 2
    assert "the set features_clean" in refused.stderr
    assert "`gristmill run CONFIG --again features_clean`" in refused.stderr
    assert not (tmp_path / "other").exists()
