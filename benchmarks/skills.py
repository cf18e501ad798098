"""Several right skills on Schema-Guided Dialogue with all but one right service hidden: pseudo labels and feedback.

Real are the turns, their services and the slots of schemas; which service is shown, and feedback, are drawn.
Run: ``python -m benchmarks.skills FOLDER [--share 1] [--seeds 3] [--text]``, FOLDER with
``sgd_new_intent_turns.tsv.gz``.
"""

from __future__ import annotations

import argparse
import tempfile

from gristmill.actors.sessions.dialogue_skills import SgdSkillSettings
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions.skill_inputs import sgd_requests
from gristmill.pipelines.sessions.skill_scores import score_skills
from gristmill.pipelines.sessions.skills import SkillSettings, give_feedback, learn_skills
from gristmill.shards import store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--share", type=float, default=1.0, help="of the dialogues")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--text", action="store_true", help="without the names of slots as context")
    parser.add_argument("--out", help="a folder in which results are kept")
    given = parser.parse_args()
    settings = SkillSettings()
    read = SgdSkillSettings(share=given.share, context=not given.text)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(given.out or folder, InProcessRunner())
        requests = sgd_requests(run, "requests", store.join(given.folder, "sgd_new_intent_turns.tsv.gz"), read)
        told = give_feedback(run, settings, requests)
        learnt = {seed: learn_skills(run, settings, told, seed, f"_{seed}") for seed in range(given.seeds)}
        run.finish()
        rows = score_skills(learnt, settings)
    print(f"{requests.records} requests, {given.seeds} seeds; 95 % intervals over dialogues and seeds")
    for row in rows:
        spread = "" if row.low is None else f"({row.low:+.3f} to {row.high:+.3f})"
        value = "-" if row.value is None else f"{row.value:+.3f}"
        print(f"{row.system:9} {row.metric:25} {value} {spread} n {row.n}")


if __name__ == "__main__":
    main()
