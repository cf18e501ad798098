"""The instruction set is pinned in each process, whatever the shell says, and who cannot keep it is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.requests.annotate import RequestAnnotator
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.publish import publish
from gristmill.pipelines.speech.transcribe import Transcriber
from gristmill.pipelines.text.score import TextScorer
from gristmill.pipelines.text.translate import TextTranslator
from gristmill.shards import process, processor, store
from gristmill.shards.engine import run_step, step_url
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainJob
from gristmill.shards.receipt import read_receipts
from gristmill.shards.step import Step
from tests.emulated import PROCESSORS, emulated, needs_qemu, unpinned
from tests.pipelines.tiny import upper
from tests.shards.test_engine import source

pytestmark = pytest.mark.skipif(
    not processor.offered().startswith(("x86-64-v3", "x86-64-v4")), reason="needs AVX2, to have two levels"
)
HOSTILE = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3",
    "MKL_CBWR": "AVX2",
}
# Features, a room and a product: numpy's functions, and sums of OpenBLAS.
COMPUTE = """
import gristmill, os
import numpy as np
from gristmill.models.speech import features, rooms
from gristmill.shards import canonical, process, processor
rng = np.random.default_rng(0)
heard = rng.standard_normal(16000).astype(np.float32)
room = rooms.impulse_responses(rooms.draw_room(rng, rooms.RoomSettings(rt60=(0.2, 0.2))), 16000, rng)
made = [features.log_mel(heard, features.FeatureSettings()), room, heard.reshape(160, 100) @ heard.reshape(100, 160)]
made.append(np.tanh(heard))
process.prepare()
print(canonical.digest([canonical.sha256(one.tobytes()) for one in made]), processor.level())
"""
# What the noises of a bank are made by, their resampling, and how audio is kept.
SOUNDS = """
import gristmill, hashlib, json
import numpy as np
from gristmill.actors import audio
from gristmill.models.speech import noise
made = {kind: getattr(noise, kind)(np.random.default_rng(1), 16000, 3.0) for kind in noise.GENERATED}
made |= {f"{kind} at 8,000 Hz": audio.resample(sound, 16000, 8000) for kind, sound in made.items()}
digests = {kind: hashlib.sha256(sound.tobytes()).hexdigest() for kind, sound in made.items()}
digests["encoded"] = hashlib.sha256(audio.encode(made["music"], 16000)).hexdigest()
print(json.dumps(digests))
"""
TORCH = """
import gristmill, torch
from gristmill.shards import process
process.prepare()
print(torch.backends.cpu.get_cpu_capability())
"""


def ran(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that inherits nothing of this one's pin."""
    return subprocess.run([sys.executable, "-c", code], env=unpinned() | variables, capture_output=True, text=True)


def test_a_hostile_shell_changes_no_byte_and_another_level_does() -> None:
    plain, hostile, enabled, lower = (
        ran(COMPUTE, **more).stdout.split()
        for more in (
            {},
            HOSTILE,
            {"NPY_ENABLE_CPU_FEATURES": "X86_V4"},  # of which numpy takes none beside what is disabled
            {processor.VARIABLE: "x86-64-v2", "OPENBLAS_CORETYPE": "Haswell"},
        )
    )
    assert plain == hostile == enabled
    assert (plain[1], lower[1]) == ("x86-64-v3", "x86-64-v2")
    assert plain[0] != lower[0]


@pytest.mark.slow
@needs_qemu
@pytest.mark.parametrize("kind", PROCESSORS)
@pytest.mark.parametrize("code", [COMPUTE, SOUNDS], ids=["features", "sounds"])
def test_other_processors_give_the_same_bytes(code: str, kind: str) -> None:
    assert emulated(code, kind) == emulated(code)


def test_torch_is_pinned_too_unless_it_computed_before() -> None:
    assert ran(TORCH, **HOSTILE).stdout.split() == ["AVX2"]
    late = ran("import torch; torch.backends.cpu.get_cpu_capability()" + TORCH, **HOSTILE)
    assert late.returncode == 1
    assert late.stderr.splitlines()[-1].startswith("gristmill.shards.processor.LoadedBefore: ")
    assert "processor=x86-64-v3 was expected, and this process has loaded torch (DEFAULT)" in late.stderr
    assert "expected `import gristmill` as the first import, which pins" in late.stderr


def test_a_native_process_keeps_what_its_shell_says_and_its_children_take_no_pin_for_it() -> None:
    show = f"import gristmill, os; print(*(os.environ.get(n) for n in {list(HOSTILE)}))"
    native = ran(show, **HOSTILE, **{processor.VARIABLE: processor.NATIVE})
    assert native.stdout.split() == list(HOSTILE.values())
    child = "from gristmill.shards import processor as p; import subprocess, sys; "
    child += f"subprocess.run([sys.executable, '-c', {show!r}], env=p.environment('native'))"
    assert ran(child, **HOSTILE).stdout.split() == list(HOSTILE.values())
    within = f"import gristmill, subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert ran(within).stdout.split() == ["None"] * len(HOSTILE)


@pytest.fixture
def old_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without AVX2."""
    monkeypatch.setattr(processor, "offered", lambda: "x86-64-v2")


LACKS = (
    r"its processor \(.+\) offers x86-64-v2, and x86-64-v3 was expected.*"
    r"GRISTMILL_PROCESSOR=x86-64-v2 in the environment or processor=x86-64-v2$"
)


@pytest.mark.usefixtures("old_machine")
def test_a_machine_that_lacks_the_level_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=LACKS):
        Run(str(tmp_path), InProcessRunner())
    step = Step("upper", (upper(2),), source(str(tmp_path)))
    with pytest.raises(UserError, match=LACKS):
        run_step(step, str(tmp_path), InProcessRunner(), 0)
    job = TrainJob("count", "no.such:loop")
    with pytest.raises(UserError, match=LACKS):
        job.run(str(tmp_path / "job"), None)  # type: ignore[arg-type]


@pytest.mark.usefixtures("old_machine")
@pytest.mark.parametrize(
    "use",
    [Transcriber, TextScorer, TextTranslator, RequestAnnotator, lambda out: publish(out, "best", f"{out}-published")],
)
def test_models_are_not_used_by_a_machine_that_lacks_the_level(tmp_path: Path, use: Callable[[str], object]) -> None:
    with pytest.raises(UserError, match=LACKS):
        use(str(tmp_path))
    with pytest.raises(UserError, match=LACKS):
        process.prepare()


def test_what_a_machine_lacks_is_never_set(monkeypatch: pytest.MonkeyPatch, old_machine: None) -> None:
    for name in processor.variables(processor.DEFAULT):
        monkeypatch.setenv(name, "avx512")
    processor.pin()
    assert "ATEN_CPU_CAPABILITY" not in os.environ
    assert os.environ[processor.VARIABLE] == processor.DEFAULT


def test_receipts_name_the_level_and_work_of_another_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path)
    step = Step("upper", (upper(2),), source(root))
    with monkeypatch.context() as patch:
        patch.setattr(processor, "label", lambda: "x86-64-v2")
        made = run_step(step, root, InProcessRunner(), 0)
    url = step_url(root, step, 0)
    (receipt,) = read_receipts(url, ["000000"])
    assert (made.processor, receipt.processor) == ("x86-64-v2", "x86-64-v2")
    said = "was made with processor=x86-64-v2, and this run has processor=x86-64-v3, .* may give other bytes"
    with pytest.raises(UserError, match=said):
        _ = Run(root, InProcessRunner()).step(step).digest
    store.remove(store.join(url, "seal.json"))
    with pytest.raises(UserError, match=f"000000.json: {said}"):
        run_step(step, root, InProcessRunner(), 0)


def test_a_set_of_which_a_shard_has_no_level_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(tmp_path)
    step = Step("upper", (upper(2),), source(root))
    with monkeypatch.context() as patch:
        patch.setattr(processor, "label", lambda: "")  # as before levels were recorded
        run_step(step, root, InProcessRunner(), 0)
    store.remove(store.join(step_url(root, step, 0), "seal.json"))
    assert run_step(step, root, InProcessRunner(), 0).processor == ""


def test_an_artifact_of_another_level_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(str(tmp_path), InProcessRunner())
    with monkeypatch.context() as patch:
        patch.setattr(processor, "label", lambda: "native (x86-64-v4)")
        assert run.artifact("count", lambda url: {"n": b"1"}, {}).processor == "native (x86-64-v4)"
    with pytest.raises(UserError, match=r"count/\w+: was made with processor=native, and .* or another output"):
        _ = Run(str(tmp_path), InProcessRunner()).artifact("count", lambda url: {"n": b"1"}, {}).digest


def test_a_level_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    done = ran("from gristmill.pipelines.command import cli; cli.app(['doctor'])", GRISTMILL_PROCESSOR="avx2")
    assert "FAIL  processor: GRISTMILL_PROCESSOR=avx2: expected one of x86-64-v2, x86-64-v3" in done.stdout
