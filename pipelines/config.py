"""Recipe files: YAML with references and ``key=value`` overrides, read into typed settings."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import pkgutil
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
)

from gristmill import pipelines
from gristmill.cluster.metrics import Price
from gristmill.cluster.placement import Placement
from gristmill.cluster.training_log import LogSettings
from gristmill.pipelines.bundled import bundled, bundled_recipes
from gristmill.pipelines.reading import overridden, read_values
from gristmill.pipelines.values import MOST, check_no_secret, check_values
from gristmill.shards import canonical, checked, names, store
from gristmill.shards.errors import Damaged, UserError
from gristmill.shards.processor import Level
from gristmill.shards.safe_text import control_in
from gristmill.shards.settings import Settings
from gristmill.shards.wording import nearest, or_else, sentence, sentences

Model = TypeVar("Model", bound=BaseModel)

_KIND = "settings"
SAVED = "config.json"  # below OUT: the settings of the newest run
# Settings of execution: no result depends on them. Earlier versions stored the config's folder as ``beside``.
_EXECUTION = ("out", "runner", "workers", "resources", "price", "log", "beside")


class Common(Settings):
    """The settings common to all recipes."""

    recipe: str
    """The recipe that the file configures: one of Gristmill, or a module of your own."""
    out: str = Field(min_length=1)
    """Where all results are written: a path, or a URL such as ``s3://bucket/folder``; ``runs/RECIPE`` by default."""
    seed: int = 0
    """Seed of corpora, splits, noises and all else that is drawn, but for trainings."""
    seeds: list[NonNegativeInt] = Field(default=[0], min_length=1)
    """Seeds of trainings: each system is trained once for each; intervals over trainings need three or more."""
    runner: Literal["ray", "inprocess"] = "ray"
    """What does the work: a local Ray, or the cluster at ``RAY_ADDRESS``; or this process, faster on little data."""
    workers: PositiveInt | None = None
    """Most workers at a time; null: as many as there are processors. No result depends on it."""
    resources: Placement = Placement()
    price: Price = Price()
    log: LogSettings = LogSettings()
    processor: Level | None = None
    """The instruction set that every process computes with, and so the bytes of results
    (:mod:`gristmill.shards.processor`). None: that of ``GRISTMILL_PROCESSOR``, otherwise x86-64-v3."""

    @field_validator("seeds")
    @classmethod
    def _differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{seeds} repeats a seed; expected distinct seeds")
        return seeds


@dataclass(frozen=True)
class Loaded:
    """A recipe's module with its settings."""

    recipe: str
    module: ModuleType
    common: Common
    config: BaseModel

    @property
    def run(self) -> Callable[..., Any]:
        """The recipe's ``run(config, run) -> Report``."""
        return self.module.run

    def to_json(self) -> dict[str, Any]:
        """Return all settings, including defaults."""
        return self.config.model_dump(mode="json") | self.common.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """The digest of the settings that results depend on."""
        return settings_digest(self.to_json())


@functools.cache
def recipes() -> dict[str, str]:
    """Return the names of the available recipes and their modules."""
    found = {}
    for wing in pkgutil.iter_modules(pipelines.__path__, f"{pipelines.__name__}."):
        if not wing.ispkg:
            continue
        folder = importlib.util.find_spec(wing.name)
        for module in pkgutil.iter_modules(folder.submodule_search_locations if folder else [], f"{wing.name}."):
            source = importlib.util.find_spec(module.name)
            text = source.loader.get_source(module.name) if source and source.loader else ""  # type: ignore[attr-defined]
            # By source text: importing them would load dependencies that only some need.
            if _looks_like_recipe(text or ""):
                found[module.name.rpartition(".")[2]] = module.name
    return found


def _looks_like_recipe(text: str) -> bool:
    return all(re.search(form, text, re.M) for form in (r"^class Config\b", r"^def run\("))


def load(path: str, overrides: Sequence[str] = ()) -> Loaded:
    """Read and validate a recipe file with overrides such as ``student.width=256``.

    ``path`` is a path, a URL, or the name of a bundled config (``distill``, ``configs/distill.yaml``). Modules of the
    user's that it names are also searched in its folder and in the current one.

    Raises:
        UserError: with the key, the expected value and the nearest valid name.

    Example:
        >>> loaded = load("rerank", ["corpus.records=500", "seeds=[0]"])
        >>> loaded.recipe, loaded.config.corpus.records, loaded.common.seeds
        ('rerank', 500, [0])
    """
    values = _read_recipe(path, overrides)
    _look_beside(find(path))
    return resolve(values, path)


def _read_recipe(path: str, overrides: Sequence[str]) -> dict[str, Any]:
    shipped = ", ".join(bundled_recipes())
    if not path.strip():
        raise UserError(f"CONFIG: nothing is given; expected a YAML file, or the name of a bundled one: {shipped}")
    near = nearest(os.path.basename(path).removesuffix(".yaml"), bundled())
    return read(path, overrides, "recipe file", f"a YAML file, or the name of a bundled one: {shipped}{near}")


def find(path: str) -> str:
    """Return the file of a config: the path or URL if it exists, else the bundled config of that name."""
    if "://" in path or os.path.isfile(path):
        return path
    folder, name = os.path.split(path)
    return bundled().get(name.removesuffix(".yaml"), path) if folder in ("", "configs") else path


def _look_beside(path: str) -> None:
    """Make the user's modules beside a config and in the current folder importable."""
    if "://" not in path and path not in bundled().values():
        names.look_in(os.path.dirname(os.path.abspath(path)))
    names.look_in(".")


def read(path: str, overrides: Sequence[str], what: str, expected: str, *, stored: bool = True) -> dict[str, Any]:
    """Return the plain values of a YAML file with overrides; ``what`` and ``expected`` describe a missing file.

    Settings that are ``stored`` with results take no secrets from the environment.
    """
    if control_in(path):
        raise UserError(f"{path}: not the name of a {what}; expected {expected}")
    try:
        with store.open_read(find(path)) as file:
            data = file.read(MOST + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise UserError(f"{path}: there is no such {what}; expected {expected}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; expected {expected}") from None
    return read_values(text, overrides, path, stored=stored)


def check(model: type[Model], values: Mapping[str, Any], origin: str) -> Model:
    """Validate settings that are not a recipe's; errors are reported as those of a recipe."""
    check_values(values, origin)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(*(f"{origin}: {problem}" for problem in sentences(error, model))) from None


def load_saved(out: str, overrides: Sequence[str] = (), config: str | None = None) -> Loaded:
    """Return the recipe last run under ``out``, from its saved settings, which are data and choose no code.

    Modules outside this package are imported only if the user names them: in ``overrides``, or in the recipe file
    ``config``, beside which they are then looked for. References in saved settings are not followed.

    Raises:
        UserError: there are no such settings, or they name a module that the user does not.
        Damaged: the file is not as it was written.
    """
    url = store.join(out, SAVED)
    if (saved := read_saved(out)) is None:
        raise UserError(
            f"{out}: no run was started here (no {SAVED}); expected the output of `gristmill run` "
            "(a script repeats quarantined records with Run(..., requeue=True))"
        )
    values = overridden(saved, overrides, alone=True) | {"out": out}
    values.pop("beside", None)
    named = _modules_in(overridden({}, overrides))
    if config is not None:
        named |= _modules_in(_read_recipe(config, overrides))
        _look_beside(find(config))
    elif named:
        names.look_in(".")
    with names.only(
        named, f"expected `gristmill requeue {shlex.quote(out)} --config FILE` with the recipe file of the run"
    ):
        return resolve(values, url)


def _modules_in(values: Any) -> frozenset[str]:
    """Return the modules that settings name: the recipe's, and those of ``module:name``."""
    if isinstance(values, str):
        found = re.fullmatch(r"([\w.]+):[\w.]+", values)
        return frozenset([found[1]] if found else [])
    if isinstance(values, Mapping):
        inner = [*map(_modules_in, values.values()), frozenset([values["recipe"]] if "recipe" in values else [])]
        return frozenset().union(*inner)
    return frozenset().union(*map(_modules_in, values)) if isinstance(values, list) else frozenset()


def save(loaded: Loaded) -> bool:
    """Save the settings under the output, unless only settings changed that no result depends on."""
    url = store.join(loaded.common.out, SAVED)
    checked.refuse_irregular(url)
    with contextlib.suppress(Damaged):  # then it is written anew
        if same_as_saved(loaded):
            return False
    store.write_bytes(url, checked.encode(_KIND, loaded.to_json()))
    return True


def same_as_saved(loaded: Loaded) -> bool:
    """Return whether the settings that results depend on are those saved under the output.

    Raises:
        Damaged: the saved ones are not as they were written.
    """
    old = read_saved(loaded.common.out)
    return old is not None and _matter(old) == _matter(loaded.to_json())


def read_saved(out: str) -> dict[str, Any] | None:
    """Return the settings saved under an output, or ``None`` if there are none.

    Raises:
        Damaged: the file is not as it was written.
    """
    return checked.read(_KIND, store.join(out, SAVED))


def saved_digest(out: str) -> str:
    """Return the digest of the settings that are saved under an output; "" if there are none."""
    data = checked.present(store.join(out, SAVED))
    return "" if data is None else canonical.sha256(data)


def settings_digest(values: Mapping[str, Any]) -> str:
    """Return the digest of those of a recipe's settings, as they are saved, that results depend on."""
    return canonical.digest(_matter(values))


def _matter(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in _EXECUTION}


def resolve(values: Mapping[str, Any], origin: str) -> Loaded:
    """Return the recipe with plain values; ``origin`` names their source in errors."""
    check_values(values, origin)
    check_no_secret(values, origin)
    module = recipe_module(values.get("recipe"), origin)
    config_type: type[BaseModel] = module.Config
    common = {key: values[key] for key in Common.model_fields if key in values}
    common.setdefault("out", f"runs/{str(values['recipe']).rpartition('.')[2]}")
    if isinstance(common["out"], str) and common["out"]:
        common["out"] = store.absolute(common["out"])
    own = {key: value for key, value in values.items() if key not in common or key in config_type.model_fields}
    shared = [key for key in Common.model_fields if key in config_type.model_fields]
    problems: list[str] = []
    parts: list[BaseModel] = []
    for model, given in ((Common, common), (config_type, own)):
        try:
            parts.append(model.model_validate(given))
        except ValidationError as error:
            problems += [
                sentence(e, model, Common) for e in error.errors() if not (model is Common and e["loc"][0] in shared)
            ]
    if problems:
        raise UserError(*(f"{origin}: {problem}" for problem in dict.fromkeys(problems)))
    # A recipe may have its own defaults for the common settings.
    theirs = {key: getattr(parts[1], key) for key in shared if key not in values}
    return Loaded(str(values["recipe"]), module, parts[0].model_copy(update=theirs), parts[1])  # type: ignore[arg-type]


def recipe_module(name: Any, origin: str) -> ModuleType:
    """Return the module of a recipe by its name; ``origin`` names the source of the name in errors.

    Raises:
        UserError: there is no such recipe.
    """
    known = recipes()
    if not isinstance(name, str) or not name:
        raise UserError(f"{origin}: `recipe` is missing; expected one of {', '.join(known)}")
    path = known.get(name, name)
    try:
        names.check_permitted(path)
    except UserError as error:
        raise UserError(f"{origin}: recipe: {error}") from None
    own = names.own_file(name) if name in known else None
    if own is not None and _looks_like_recipe(own.read_text(errors="replace")):
        raise UserError(
            f"{origin}: recipe: {name!r} is both a recipe of Gristmill and {own}; expected {path!r} for the former, or "
            "another file name for the latter"
        )
    if path == name and "." not in name and not names.lies_in_own_folder(name):
        raise UserError(
            f"{origin}: recipe: there is no recipe {name!r}"
            + or_else(
                nearest(name, known),
                f"one of {', '.join(known)}, or {name}.py beside the config or in the current folder",
            )
        )
    try:
        module = names.named_module(path)
    except UserError as error:
        raise UserError(f"{origin}: recipe: {error}") from None
    except ModuleNotFoundError as error:
        raise UserError(f"{origin}: recipe: {name!r} cannot be imported: {error}") from None
    kind = getattr(module, "Config", None)
    if not isinstance(kind, type) or not issubclass(kind, BaseModel) or not callable(getattr(module, "run", None)):
        raise UserError(
            f"{origin}: recipe: {name!r} is not a recipe{names.hidden(path)}; expected a module with Config and run, "
            f"the first a subclass of gristmill.shards.settings.Settings, the second a function{_file(module)}"
        )
    return module


def _file(module: ModuleType) -> str:
    return f", and {module.__file__} lacks one of them" if getattr(module, "__file__", None) else ""
