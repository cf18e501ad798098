"""Recipe files: YAML with interpolation and ``key=value`` overrides, read into typed settings."""

from __future__ import annotations

import importlib.util
import json
import os
import pkgutil
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
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

from gristmill import configs, pipelines
from gristmill.cluster.metrics import Price
from gristmill.cluster.placement import Placement
from gristmill.cluster.training_log import LogSettings
from gristmill.shards import canonical, names, store
from gristmill.shards.errors import UserError, one_line
from gristmill.shards.settings import Settings
from gristmill.shards.wording import nearest, or_else, sentence, sentences

Model = TypeVar("Model", bound=BaseModel)

SAVED = "config.json"  # below OUT: the settings of the newest run
# Settings of execution: no result depends on them.
_EXECUTION = ("out", "runner", "workers", "resources", "price", "log", "beside")


class Common(Settings):
    """The settings common to all recipes."""

    recipe: str
    out: str = Field(min_length=1)
    seed: int = 0
    seeds: list[NonNegativeInt] = Field(default=[0], min_length=1)
    runner: Literal["ray", "inprocess"] = "ray"
    workers: PositiveInt | None = None
    resources: Placement = Placement()
    price: Price = Price()
    log: LogSettings = LogSettings()

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
    beside: str | None = None  # the config's folder, if the user's own code was found there

    @property
    def run(self) -> Callable[..., Any]:
        """The recipe's ``run(config, run) -> Report``."""
        return self.module.run

    def to_json(self) -> dict[str, Any]:
        """Return all settings, including defaults."""
        return self.config.model_dump(mode="json") | self.common.model_dump(mode="json")


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
    shipped = ", ".join(sorted(set(_shipped()) - {"fleet"}))
    near = nearest(os.path.basename(path).removesuffix(".yaml"), _shipped())
    values = read(path, overrides, "recipe file", f"a YAML file, or the name of a bundled one: {shipped}{near}")
    folder = _look_beside(find(path))
    loaded = resolve(values, path)
    own = any(str(module.parent) == folder for module in names.own_modules().values())
    return replace(loaded, beside=folder) if own else loaded


def find(path: str) -> str:
    """Return the file of a config: the path or URL if it exists, else the bundled config of that name."""
    if "://" in path or os.path.isfile(path):
        return path
    folder, name = os.path.split(path)
    return _shipped().get(name.removesuffix(".yaml"), path) if folder in ("", "configs") else path


def _shipped() -> dict[str, str]:
    """Return the files of the bundled configs, by name."""
    found = (Path(folder) / name for folder in configs.__path__ for name in os.listdir(folder))
    return {path.stem: str(path) for path in found if path.suffix == ".yaml"}


def _look_beside(path: str) -> str | None:
    """Make the user's modules beside a config and in the current folder importable; return the config's folder."""
    folder = None
    if "://" not in path and path not in _shipped().values():
        folder = os.path.dirname(os.path.abspath(path))
        names.look_in(folder)
    names.look_in(".")
    return folder


def read(path: str, overrides: Sequence[str], what: str, expected: str) -> dict[str, Any]:
    """Return the plain values of a YAML file with overrides; ``what`` and ``expected`` describe a missing file."""
    try:
        data = store.read_if_present(find(path))
    except IsADirectoryError:
        data = None
    if data is None:
        raise UserError(f"{path}: there is no such {what}; expected {expected}")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; expected {expected}") from None
    return _read(path, text, overrides)


def check(model: type[Model], values: Mapping[str, Any], origin: str) -> Model:
    """Validate settings that are not a recipe's; errors are reported as those of a recipe."""
    _refuse_secrets(values, origin)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(f"{origin}: {problem}" for problem in sentences(error, model))) from None


def load_saved(out: str, overrides: Sequence[str] = ()) -> Loaded:
    """Return the recipe last run under ``out``, from its saved settings."""
    url = store.join(out, SAVED)
    data = store.read_if_present(url)
    if data is None:
        raise UserError(
            f"{out}: no run was started here (no {SAVED}); expected the output of `gristmill run` "
            "(a script repeats quarantined records with Run(..., requeue=True))"
        )
    values = _read(url, data.decode(), overrides)
    beside = values.pop("beside", None)
    for folder in (beside, "."):
        names.look_in(folder or ".")
    return replace(resolve(values | {"out": out}, url), beside=beside)


def save(loaded: Loaded) -> bool:
    """Save the settings under the output, unless only settings changed that no result depends on."""
    url = store.join(loaded.common.out, SAVED)
    values, old = loaded.to_json(), store.read_if_present(url)
    values |= {"beside": loaded.beside} if loaded.beside else {}
    if old is not None and _matter(json.loads(old)) == _matter(values):
        return False
    store.write_bytes(url, canonical.dumps(values))
    return True


def _matter(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in _EXECUTION}


def _read(path: str, text: str, overrides: Sequence[str]) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        base = OmegaConf.create(text)
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {one_line(error)}") from None
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}") from None
    if not OmegaConf.is_dict(base):
        raise UserError(f"{path}: expected `key: value` lines, found a list")
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign or not key:
            raise UserError(f"{override!r} is not an override; expected key=value, for example seed=1")
        try:
            base = OmegaConf.merge(base, OmegaConf.from_dotlist([f"{key}={_spelled(value)}"]))
        except (OmegaConfBaseException, YAMLError) as error:
            raise UserError(f"{override!r} cannot be applied: {one_line(error)}") from None
    try:
        values = OmegaConf.to_container(base, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {one_line(error)}") from None
    return typing.cast("dict[str, Any]", values)


def _spelled(value: str) -> str:
    """Quote an override's value for YAML where needed: in a path, " #" starts no comment and ": " makes no mapping."""
    structured = value.lstrip()[:1] in ("[", "{", '"', "'")
    return value if structured or not re.search(r"(^|\s)#|:(\s|$)", value) else json.dumps(value, ensure_ascii=False)


def resolve(values: Mapping[str, Any], origin: str) -> Loaded:
    """Return the recipe with plain values; ``origin`` names their source in errors."""
    module = _module(values.get("recipe"), origin)
    config_type: type[BaseModel] = module.Config
    _refuse_secrets(values, origin)
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
        raise UserError("\n".join(f"{origin}: {problem}" for problem in dict.fromkeys(problems)))
    # A recipe may have its own defaults for the common settings.
    theirs = {key: getattr(parts[1], key) for key in shared if key not in values}
    return Loaded(str(values["recipe"]), module, parts[0].model_copy(update=theirs), parts[1])  # type: ignore[arg-type]


def _module(name: Any, origin: str) -> ModuleType:
    known = recipes()
    if not isinstance(name, str) or not name:
        raise UserError(f"{origin}: `recipe` is missing; expected one of {', '.join(known)}")
    path = known.get(name, name)
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


def _refuse_secrets(value: Any, origin: str, path: str = "") -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_secrets(inner, origin, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            _refuse_secrets(inner, origin, f"{path}[{place}]")
    elif isinstance(value, str) and re.search(r"://[^/@]*:[^/@]*@", value):
        raise UserError(
            f"{origin}: {path}: the URL contains a password, which would be stored with it; expected credentials in "
            "the environment (for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        )
