"""The noises and rooms of a recipe, as banks shared by the workers of a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from gristmill.actors.audio import audio_bytes, decode
from gristmill.actors.speech import banks
from gristmill.actors.speech.augment import AugmentSettings, MixSettings
from gristmill.actors.speech.banks import GeneratedNoiseSettings, NoiseBankSettings, RoomBankSettings
from gristmill.models.speech import rerecord
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.settings import PositiveRange, Range, Size

_RERECORDED_NOISES = (1, 2)  # minimum and maximum number of noises in the re-recorded test set
_TALKERS = 160  # utterances for babble, at most


class NoiseSettings(MixSettings, GeneratedNoiseSettings):
    """Noises, signal-to-noise ratios and rooms; ``noise=URL`` sets the folder only.

    ``copies`` are per unlabelled utterance. Some noises are held out for the test sets.
    """

    @model_validator(mode="before")
    @classmethod
    def _folder_alone(cls, given: Any) -> Any:
        return {"folder": given} if isinstance(given, str) else given

    folder: str | None = None
    """Folder of noise recordings; without one, noises are generated, including babble from the unlabelled speech."""
    labelled_copies: Size = Field(1, ge=1)
    """Copies per annotated utterance, the same for all systems."""
    rooms: RoomBankSettings = RoomBankSettings()
    """Rooms of training and of the noisy test set; those of the re-recorded one are larger and damped."""
    rerecorded_rt60: PositiveRange = rerecord.ROOMS.rt60
    """Reverberation time of the rooms of the re-recorded test set, s."""
    rerecorded_snr: Range = (0.0, 20.0)
    """Signal-to-noise ratios of the re-recorded test set, dB."""

    def of_labelled(self) -> AugmentSettings:
        """Return the augmentation of annotated training utterances."""
        return AugmentSettings(**dict(self.part(MixSettings)) | {"copies": self.labelled_copies})

    def of_unlabelled(self) -> AugmentSettings:
        """Return the augmentation of unlabelled training utterances."""
        return AugmentSettings(**dict(self.part(MixSettings)))

    def of_test(self) -> AugmentSettings:
        """Return the augmentation of the noisy test set."""
        return AugmentSettings(snr=self.snr, noises=self.noises, split="test")

    def of_rerecorded(self) -> AugmentSettings:
        """Return the augmentation of the re-recorded test set."""
        return AugmentSettings(snr=self.rerecorded_snr, noises=_RERECORDED_NOISES, split="test")


@dataclass(frozen=True)
class Banks:
    """Noises (some held out for tests), rooms of training, other rooms of the same distribution for the noisy test set,
    and rooms of another distribution for the re-recorded one.
    """

    noise: Artifact
    rooms: Artifact
    test_rooms: Artifact
    other_rooms: Artifact


def prepare_banks(run: Run, settings: NoiseSettings, speech: SealedSet, rate: int) -> Banks:
    """Make the banks, at the sampling rate of the speech (Hz)."""
    noises = max(settings.noises[1], _RERECORDED_NOISES[1])  # a room has a position for each

    def rooms(name: str, wanted: RoomBankSettings, seed: int) -> Artifact:
        identity = {"settings": wanted.identity(), "noises": noises, "rate": rate, "seed": seed}
        return run.artifact(
            name, lambda url: banks.build_room_bank(url, wanted, noises=noises, rate=rate, seed=seed), identity
        )

    other = settings.rooms.but(**dict(rerecord.ROOMS) | {"rt60": settings.rerecorded_rt60})
    return Banks(
        _noise_bank(run, settings, speech, rate),
        rooms("room_bank", settings.rooms, 2 * run.seed),
        rooms("test_room_bank", settings.rooms, 2 * run.seed + 1),
        rooms("other_room_bank", other, 2 * run.seed),
    )


def _noise_bank(run: Run, settings: NoiseSettings, speech: SealedSet, rate: int) -> Artifact:
    """Make the bank of the folder's noises or, without a folder, of generated noises."""
    if settings.folder is not None:
        folder, files, gathered = settings.folder, banks.list_noises(settings.folder), settings.part(NoiseBankSettings)
        return run.artifact(
            "noise_bank",
            lambda url: banks.build_noise_bank_from_folder(url, gathered, folder=folder, files=files, rate=rate),
            {
                "settings": gathered.identity(),
                "listing": banks.listing_of(folder, files),
                "rate": rate,
                "version": banks.NOISES_VERSION,
            },
            on_driver=True,
        )
    made, seed = settings.part(GeneratedNoiseSettings), run.seed
    return run.artifact(
        "noise_bank",
        lambda url: banks.build_noise_bank_generated(
            url, made, rate=rate, seed=seed, speech=_talkers(speech), speech_digest=speech.digest
        ),
        {"settings": made.identity(), "rate": rate, "seed": seed, "speech": speech},
        [speech],
    )


def _talkers(speech: SealedSet) -> dict[str, list[np.ndarray]]:
    """Return utterances for babble by split: every fourth speaker is held out for the test sets."""
    place = next((number for number, shard in enumerate(speech.shards) if shard.rows), 0)
    head = speech.read(place, ["id", "speaker", "audio"]).slice(0, _TALKERS)
    speakers = sorted({name or "" for name in head["speaker"].to_pylist()})
    held_out = set(speakers[::4])
    out: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    for place, (speaker, data) in enumerate(zip(head["speaker"].to_pylist(), audio_bytes(head), strict=True)):
        test = (speaker or "") in held_out if len(speakers) > 1 else place % 4 == 0
        out["test" if test else "train"].append(decode(data or b"")[0])
    return out
