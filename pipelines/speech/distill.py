"""Teacher-student distillation for noise-robust speech recognition.

Mosner et al., ICASSP 2019; Parthasarathi and Strom, ICASSP 2019. A teacher is trained on little annotated clean speech
and gives soft labels to much unlabelled clean speech. Each utterance is then mixed with noises in a room, and a student
is trained on the noisy copy with the teacher's distribution of each frame; then on the annotated part with its gold
text, and finally for minimum expected word error on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from pydantic import Field

from gristmill.actors.speech.augment import Augment, Rerecord
from gristmill.actors.speech.features import LogMel
from gristmill.actors.speech.phonemise import Phonemise
from gristmill.actors.speech.teacher import labelling
from gristmill.models.speech.decode import DecodingSettings
from gristmill.models.speech.features import FilterBankSettings
from gristmill.models.speech.units import UnitSettings
from gristmill.pipelines.record_scores import keep_scores
from gristmill.pipelines.report.measures import PER, WER
from gristmill.pipelines.report.report import Report
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech import scoring
from gristmill.pipelines.speech.corpora import CorpusSettings, prepare_corpora, prepare_transcribed
from gristmill.pipelines.speech.distill_report import make_report
from gristmill.pipelines.speech.noise import NoiseSettings, prepare_banks
from gristmill.pipelines.speech.preflight import check_inputs, check_teacher
from gristmill.pipelines.speech.spelling import TeacherChoice, fitted_units, outside_units
from gristmill.pipelines.speech.systems import Data, SweepSettings, Systems, SystemSettings
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.plan import later
from gristmill.shards.stage import Resources, Stage
from gristmill.shards.step import Step

TESTS = ("clean", "noisy", "rerecorded")


class Config(DecodingSettings):
    """The recipe's settings; the defaults are the embedded default. Decoding settings apply to the test sets."""

    corpus: CorpusSettings = CorpusSettings()
    noise: NoiseSettings = NoiseSettings()
    features: FilterBankSettings = FilterBankSettings()
    units: UnitSettings = UnitSettings()
    teacher: TeacherChoice = TeacherChoice()
    systems: SystemSettings = SystemSettings()
    sweep: SweepSettings = SweepSettings()
    examples: int = Field(3, ge=0, le=20)
    """Utterances of the test sets in the report, to listen to; 0 leaves their audio and texts out."""


def run(config: Config, run: Run) -> Report:
    """Run the recipe and return its report."""
    check(config)
    outside = config.teacher.source != "trained"
    measure, normalise = (PER, "phones") if config.teacher.source == "hama" else (WER, "basic")
    rate = config.corpus.sampling_rate

    # Speech, noises and rooms.
    corpora = prepare_corpora(run, config.corpus)
    banks = prepare_banks(run, config.noise, corpora.unlabelled, rate)

    # Noisy copies for training, and the two noisy test sets: the same simulator with other rooms and held-out noises,
    # and another simulator.
    noise = config.noise
    mixed = Augment.stage(noise.of_labelled(), noise=banks.noise.ref, rooms=banks.rooms.ref)
    mixed_unlabelled = Augment.stage(noise.of_unlabelled(), noise=banks.noise.ref, rooms=banks.rooms.ref)
    mixed_test = Augment.stage(noise.of_test(), noise=banks.noise.ref, rooms=banks.test_rooms.ref)
    other_room = Rerecord.stage(noise.of_rerecorded(), noise=banks.noise.ref, rooms=banks.other_rooms.ref)
    noisy = run.step(Step("noisy_labelled", (mixed,), corpora.labelled))
    noisy_unlabelled = run.step(Step("noisy_unlabelled", (mixed_unlabelled,), corpora.unlabelled))
    tests = {
        "clean": corpora.test,
        "noisy": run.step(Step("noisy_test", (mixed_test,), corpora.test)),
        "rerecorded": run.step(Step("rerecorded_test", (other_room,), corpora.test)),
    }

    # Features of all sets; with a phoneme teacher, texts are phonemes.
    log_mel = LogMel.stage(config.features.at(rate))
    spell: tuple[Stage, ...] = (Phonemise.stage(),) if measure is PER else ()

    def featured(name: str, source: SealedSet, *first: Stage) -> SealedSet:
        return run.step(Step(f"features_{name}", (*first, log_mel), source))

    clean = None if outside else featured("labelled", corpora.labelled, *spell)
    gold = featured("noisy_labelled", noisy, *spell)
    heard = featured("noisy_unlabelled", noisy_unlabelled)
    test_features = {name: featured(name, source, *spell) for name, source in tests.items()}
    originals = {"labelled": corpora.labelled, "unlabelled": corpora.unlabelled}  # that the teacher labels
    if clean is None:
        units = outside_units(run, config.teacher)
    else:
        originals = {"labelled": clean, "unlabelled": featured("unlabelled", corpora.unlabelled)}
        units = fitted_units(run, config.units, clean)

    # The teacher, and the baseline trained on the annotated part only.
    systems = {seed: Systems(config.systems, units, seed) for seed in run.seeds}
    bare = Data(clean, gold, heard)
    teachers = {} if outside else {seed: run.train(system.teacher(bare)) for seed, system in systems.items()}
    models: dict[scoring.Key, Artifact] = {("teacher", seed): teacher for seed, teacher in teachers.items()}
    for seed, system in systems.items():
        models["multicondition", seed] = run.train(system.multicondition(bare))

    # Long recordings with their texts: the teacher finds the utterances in them, which are annotated speech as any.
    if config.corpus.transcribed:
        aligner = later(config.teacher.aligner, config.corpus.align, teachers.get(run.seeds[0]))
        found = prepare_transcribed(run, config.corpus, aligner)
        bare = replace(bare, aligned=featured("noisy_transcribed", found, mixed))
        originals["transcribed"] = found if outside else featured("transcribed", found)

    data = {}
    for seed, system in systems.items():
        # Soft labels of all clean speech, stored once for every k and temperature.
        teacher, suffix = teachers.get(seed), "" if outside else f"_seed{seed}"
        labels = {
            part: run.step(Step(f"labels_{part}{suffix}", (_labels(config, teacher, part),), source))
            for part, source in originals.items()
        }
        data[seed] = replace(
            bare,
            labels=labels["labelled"],
            unlabelled_labels=labels["unlabelled"],
            aligned_labels=labels.get("transcribed"),
            teacher=teacher,
        )

        # The students: hard labels, and soft labels.
        models["hard_labels", seed] = run.train(system.hard_labels(data[seed]))
        models["student", seed] = run.train(system.student(data[seed]))

    # Soft labels over the grid of k and T, and sequence training of the student.
    swept = {
        (f"sweep_{k}_{t:g}", seed): run.train(systems[seed].sweep_cell(data[seed], k, t, config.sweep.epochs))
        for k, t, seed in product(config.sweep.k, config.sweep.temperature, run.seeds)
    }
    for seed, system in systems.items():
        models["student_seq", seed] = run.train(system.student_seq(data[seed], models["student", seed]))

    # Transcription and scoring by every system.
    external = _external_transcripts(run, config, tests) if outside else {}
    decoding = config.part(DecodingSettings)
    written = scoring.transcribe(run, "transcripts", test_features, models, decoding)
    noisy_only = {"noisy": test_features["noisy"]}
    cells = scoring.transcribe(run, "sweep", noisy_only, swept, decoding) if swept else None
    run.finish()
    scored = scoring.results(written, normalise, external)
    sets = [*written.sets.values(), *(made for by_key in external.values() for made in by_key.values())]
    keep_scores(run, measure.name, scored, {"sets": sets, "normalise": normalise})
    settings = config.model_dump(mode="json")
    report = make_report(run, settings, measure, tests, test_features, models, written, scored)
    if cells is not None:
        of_cells = scoring.results(cells, normalise)
        grid = product(config.sweep.k, config.sweep.temperature)
        runs = {(k, t): of_cells[f"sweep_{k}_{t:g}"]["noisy"] for k, t in grid}
        report.grids = [scoring.grid(runs, measure, config.systems.student.k, config.systems.student.temperature)]
    return report


def check(config: Config) -> None:
    """Raise a ``UserError`` for mistakes that can be found before anything is made."""
    check_inputs(config.corpus, config.noise, config.teacher.source)
    made = config.features.at(config.corpus.sampling_rate)
    if config.teacher.source != "trained":
        if config.systems.init == "teacher":
            raise UserError(
                f"systems.init: 'teacher' needs a teacher trained here, not {config.teacher.source}; "
                "expected 'auto' or 'random'"
            )
        check_teacher(config.teacher.source, config.teacher.model, 1 / (made.hop_s * config.systems.model.subsampling))


def _teacher(config: Config, trained: Artifact | None, *, hypothesis: bool) -> Stage:
    """Return the stage of a teacher, whose model describes the labels."""
    given = config.teacher
    resources = Resources(gpus=config.systems.gpus if given.gpus is None else given.gpus)
    model = given.model if trained is None else trained.ref
    return later(partial(labelling, resources=resources), given.settings(hypothesis), model)


def _labels(config: Config, trained: Artifact | None, part: str) -> Stage:
    """Return the stage that labels a part of the speech."""
    # Labels are joined to features by id: audio and features need not be stored twice.
    stored = ("features",) if trained is not None else ("audio",)
    return later(partial(replace, drops=stored), _teacher(config, trained, hypothesis=part == "unlabelled"))


def _external_transcripts(run: Run, config: Config, tests: Mapping[str, SealedSet]) -> dict[str, Any]:
    """Return the test sets with transcripts by a teacher that was not trained here."""
    stage = _teacher(config, None, hypothesis=True)
    return {
        name: {("teacher", run.seeds[0]): run.step(Step(f"teacher_{name}", (stage,), tests[name]))} for name in TESTS
    }
