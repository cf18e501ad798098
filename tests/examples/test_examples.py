"""The examples run as they stand, and README's first one is a file of theirs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "examples"
NEEDED = {"read_sealed_set": "datasets", "train_ngram_model": "kenlm"}  # beside what is always installed
PRINTED = {
    "filter_table": r"out/first/kept/\w+ 1 \{'too_short: fewer than 3 characters': 1\}",
    "label_folder": r"audio/3.wav: 0.5 s, 13 frames, '.+'",
    "noisy_copies": r"c~1 of c: [\d.-]+ dB, RT60 0.\d\d s, \['",
    "read_sealed_set": r"torch: 'request 5' to 'request 9', 3.5 s",
    "score_hypotheses": r"first: WER 16.7%, .* 30 deletions[^$]*second against first: -50.0% .*, p [\d.e-]+ over 30",
    "train_ngram_model": r"'open the window': perplexity [\d.]+, 2 of its words unknown",
}


def test_all_examples_are_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(PRINTED)


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(PRINTED[name], printed), printed


def test_the_example_of_the_readme_is_one_of_them() -> None:
    code = (FOLDER / "filter_table.py").read_text().partition("# fmt: off\n")[2]
    assert len([line for line in code.splitlines() if line]) <= 12
    block = re.search(
        r"<!-- examples/filter_table.py -->\n```python\n(.*?)```\n", (ROOT / "README.md").read_text(), re.S
    )
    assert block, "README.md has no block behind the comment <!-- examples/filter_table.py -->"
    assert block[1] == code
