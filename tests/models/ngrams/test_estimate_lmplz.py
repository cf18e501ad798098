"""Comparison with lmplz, if installed: `python -m benchmarks.lmplz FOLDER` builds it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gristmill.models.ngrams.arpa import Arpa
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from tests.models.ngrams.kneser_ney import sample, table

LMPLZ = os.environ.get("GRISTMILL_LMPLZ") or shutil.which("lmplz")
pytestmark = pytest.mark.skipif(
    not LMPLZ, reason="lmplz is absent: build it by `python -m benchmarks.lmplz FOLDER` and set GRISTMILL_LMPLZ"
)


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize(("order", "prune"), [(2, (0,)), (3, (0,)), (4, (0, 0, 1)), (6, (0, 1, 1, 2))])
def test_as_lmplz_estimates(tmp_path: Path, order: int, prune: tuple[int, ...], limited: bool) -> None:
    text = sample(11, 3000, 200)
    # lmplz computes the discounts with the actual count of the last n-gram of each order, ours with the adjusted one:
    # both are equal for a word that occurs once.
    text.append(["last"])
    counts = Counter(word for sentence in text for word in sentence)
    words = sorted(word for word, times in counts.items() if times > 20 * limited)
    listed = tmp_path / "words"
    listed.write_text("\n".join(words))
    given = "".join(f"{' '.join(sentence)}\n" for sentence in text)
    command = [LMPLZ, "-o", str(order), "--prune", *map(str, prune), "--discount_fallback", "-S", "64M", "-T", tmp_path]
    command += ["--limit_vocab_file", listed] if limited else []
    command += ["--vocab_pad", str(len(words) + 2)]
    done = subprocess.run(command, input=given.encode(), capture_output=True, check=True)
    settings = NgramSettings(order=order, prune=prune)
    theirs, ours = table(Arpa.from_bytes(done.stdout)), table(estimate(text, settings, words))
    assert len(words) < len(counts) if limited else len(words) == len(counts)
    assert theirs.keys() == ours.keys()
    np.testing.assert_allclose([ours[gram] for gram in theirs], list(theirs.values()), atol=2e-6)
