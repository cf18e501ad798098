"""The noises and rooms of a recipe, as banks that every worker of a node shares."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, PositiveInt, model_validator

from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.settings import Settings

_TALKERS = 160  # utterances at most that babble is made of


def _ordered(given: tuple[Any, Any]) -> tuple[Any, Any]:
    if given[0] > given[1]:
        raise ValueError(f"expected the least value first, got {list(given)}")
    return given


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


class RoomBankSettings(Settings):
    """Rooms are drawn within these ranges; see :class:`gristmill.models.speech.rooms.RoomSettings`."""

    count: int = Field(200, ge=1)
    rt60: Range = (0.15, 0.7)  # s
    method: Literal["fast", "exact"] = "fast"


class NoiseSettings(Settings):
    """Which noises, how loud, in what rooms.

    ``folder`` is a folder of noise recordings (``noise=URL`` names it alone); without one, babble of talkers of the
    unlabelled speech, music, hum, appliances and coloured noise are made. ``test_share`` of the noises are kept for
    the test sets.
    """

    @model_validator(mode="before")
    @classmethod
    def _folder_alone(cls, given: Any) -> Any:
        return {"folder": given} if isinstance(given, str) else given

    folder: str | None = None
    generated: int = Field(48, ge=4)
    seconds: float = Field(20.0, gt=1)
    test_share: float = Field(0.25, gt=0, lt=1)
    snr: Range = (0.0, 20.0)  # dB, of each noise
    noises: Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(_ordered)] = (1, 3)
    copies: int = Field(1, ge=1)  # of each unlabelled utterance
    labelled_copies: int = Field(1, ge=1)  # of each annotated utterance, for all systems alike
    rooms: RoomBankSettings = RoomBankSettings()
    rerecorded_rt60: Range = (0.3, 0.8)  # s, of the rooms of the re-recorded test set
    rerecorded_snr: Range = (0.0, 20.0)


@dataclass(frozen=True)
class Banks:
    """Noises (some held out for tests), the rooms of training, other rooms of the same kind for the noisy test set,
    and rooms of another kind for the re-recorded one.
    """

    noise: Artifact
    rooms: Artifact
    test_rooms: Artifact
    other_rooms: Artifact


def prepare_banks(run: Run, settings: NoiseSettings, speech: SealedSet, rate: int) -> Banks:
    """Make the banks, at the sampling rate of the speech (Hz)."""
    from gristmill.actors.speech import banks
    from gristmill.models.speech.rerecord import ROOMS
    from gristmill.models.speech.rooms import RoomSettings

    noise = settings.model_dump(include={"folder", "generated", "seconds", "test_share"}) | {"rate": rate}
    if settings.folder is not None:
        folder, files = settings.folder, banks.list_noises(settings.folder)
        noise |= {"listing": [[file.url, file.size, file.version] for file in files]}

        def make(url: str) -> object:
            return banks.build_noise_bank_from_folder(url, folder, files, rate=rate, test_share=settings.test_share)

    else:
        noise |= {"seed": run.seed, "speech": speech.digest}

        def make(url: str) -> object:
            return banks.build_noise_bank_generated(
                url,
                rate=rate,
                seed=run.seed,
                seconds=settings.seconds,
                count=settings.generated,
                test_share=settings.test_share,
                speech=_talkers(speech),
                speech_digest=speech.digest,
            )

    count, method = settings.rooms.count, settings.rooms.method

    def rooms(name: str, wanted: RoomSettings, seed: int) -> Artifact:
        wanted = replace(wanted, noises=settings.noises[1])
        identity = {"settings": asdict(wanted), "count": count, "rate": rate, "seed": seed, "method": method}
        return run.build(
            name,
            lambda url: banks.build_room_bank(url, wanted, count=count, rate=rate, seed=seed, method=method),
            identity,
        )

    return Banks(
        run.build("noise_bank", make, noise, [speech.digest] if settings.folder is None else []),
        rooms("room_bank", RoomSettings(rt60=settings.rooms.rt60), 2 * run.seed),
        rooms("test_room_bank", RoomSettings(rt60=settings.rooms.rt60), 2 * run.seed + 1),
        rooms("other_room_bank", replace(ROOMS, rt60=settings.rerecorded_rt60), 2 * run.seed),
    )


def _talkers(speech: SealedSet) -> dict[str, list[np.ndarray]]:
    """Return utterances for babble by split: every fourth speaker is kept for the test sets."""
    from gristmill.actors.audio import audio_bytes, decode

    place = next((number for number, shard in enumerate(speech.shards) if shard.rows), 0)
    head = speech.read(place, ["id", "speaker", "audio"]).slice(0, _TALKERS)
    speakers = sorted({name or "" for name in head["speaker"].to_pylist()})
    held_out = set(speakers[::4])
    out: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    for place, (speaker, data) in enumerate(zip(head["speaker"].to_pylist(), audio_bytes(head), strict=True)):
        test = (speaker or "") in held_out if len(speakers) > 1 else place % 4 == 0
        out["test" if test else "train"].append(decode(data or b"")[0])
    return out
