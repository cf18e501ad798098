"""A step from Python, with the filter and the function of lab/filters.py.

python examples/extend/from_python.py          # in this process
python examples/extend/from_python.py ray      # on a local Ray, or on the cluster at RAY_ADDRESS
"""

import sys
from pathlib import Path

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.run import Run
from gristmill.shards.names import look_in
from gristmill.shards.step import Step

import pyarrow as pa

from lab.filters import too_short, words

if sys.argv[1:] == ["ray"]:
    from gristmill.cluster.ray_runner import RayRunner

    look_in(Path(__file__).parent)  # its modules are uploaded for workers on other machines
    run = Run("out/from_python", RayRunner(workers=2))
else:
    run = Run("out/from_python", InProcessRunner())

texts = run.table("texts", pa.table({"id": ["a", "b"], "text": ["lights", "lights on in the hall"]}))
stages = (too_short.stage(too_short.Settings(least=4)), words.stage())
kept = run.step(Step("kept", stages, texts, max_quarantine=0.05))
print(kept.read(0).to_pylist(), kept.seal["reasons"])
