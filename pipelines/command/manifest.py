"""Fleet manifests as text: the fleet is read like a recipe, and no secret in the environment gets into them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import yaml

from gristmill.cluster.fleet.kuberay import kuberay
from gristmill.cluster.fleet.ray_up import ray_up
from gristmill.cluster.fleet.settings import Fleet
from gristmill.cluster.fleet.slurm import slurm
from gristmill.pipelines import config
from gristmill.shards.errors import UserError
from gristmill.shards.safe_text import secret_in
from gristmill.shards.wording import nearest, or_else

DEFAULT = "configs/fleet.yaml"
KINDS: dict[str, Callable[[Fleet], str]] = {
    "kuberay": lambda fleet: _yaml(kuberay(fleet)),
    "ray-up": lambda fleet: _yaml(ray_up(fleet)),
    "slurm": slurm,
}


def render(kind: str, arguments: Sequence[str] = ()) -> str:
    """Return a manifest; ``arguments`` are an optional fleet file and settings ``key=value``.

    Raises:
        UserError: an unknown kind, an invalid fleet, or a manifest that would contain a secret of the environment.
    """
    if kind not in KINDS:
        rest = or_else(nearest(kind, KINDS), f"one of {', '.join(KINDS)}")
        raise UserError(f"{kind!r} is not a kind of manifest{rest}")
    given = list(arguments)
    path = given.pop(0) if given and "=" not in given[0] else DEFAULT
    text = KINDS[kind](read_fleet(path, given))
    if name := secret_in(text):
        raise UserError(f"{path}: the manifest would contain the value of ${name}; expected a reference to it")
    return text


def read_fleet(path: str, overrides: Sequence[str] = ()) -> Fleet:
    """Read and validate a fleet.

    Raises:
        UserError: names the key, the expected value and the nearest valid name.
    """
    values = config.read(path, overrides, "fleet file", f"a YAML file such as {DEFAULT}", stored=False)
    return config.check(Fleet, values, path)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def _yaml(manifest: object) -> str:
    return yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=120)
