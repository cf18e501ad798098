from __future__ import annotations

import json
from pathlib import Path

import pytest

from gristmill.pipelines import config
from gristmill.pipelines.config import load, load_saved, save
from gristmill.shards import canonical
from gristmill.shards.errors import SettingsError, UserError
from gristmill.shards.settings import Settings


def test_overrides_lists_and_interpolation(recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "records: 7\nseeds: [1, 2]\ntext: ${recipe}-${records}\n")
    loaded = load(str(recipe), ["shape.width=3", "seed=5", "workers=2"])
    assert loaded.config.model_dump() == {
        "records": 7,
        "text": "tests.pipelines.tiny-7",
        "shape": {"width": 3, "mode": "loud"},
        "broken": 1,
        "empty": False,
    }
    assert (loaded.common.seed, loaded.common.seeds, loaded.common.workers) == (5, [1, 2], 2)
    assert load(str(recipe), ["seeds=[4,5,6]"]).common.seeds == [4, 5, 6]


def test_the_default_output_is_named_after_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("recipe: tests.pipelines.tiny\n")
    assert load(str(path)).common.out == str(Path("runs/tiny").resolve())


WRONG = {
    "key": (["recrds=3"], "recrds: there is no such setting, did you mean 'records'?"),
    "inner key": (["shape.widht=3"], "shape.widht: there is no such setting, did you mean 'width'?"),
    "key of another level": (["width=3"], "width: there is no such setting, did you mean 'shape.width'?"),
    "common key": (["wrkers=3"], "wrkers: there is no such setting, did you mean 'workers'?"),
    "type": (["records=many"], "records: 'many' is not right; expected a valid integer"),
    "range": (["shape.width=0"], "shape.width: 0 is not right; expected greater than or equal to 1"),
    "section": (["shape=null"], "shape: nothing is given; expected a section of settings"),
    "choice": (["shape.mode=loudly"], "shape.mode: 'loudly' is not right, did you mean 'loud'?"),
    "common value": (["runner=spark"], "runner: 'spark' is not right; expected 'ray' or 'inprocess'"),
    "item": (["seeds=[1,x]"], "seeds[1]: 'x' is not right; expected a valid integer"),
    "seed": (["seeds=[-1]"], "seeds[0]: -1 is not right"),
    "equal seeds": (["seeds=[1,2,1]"], "seeds: [1, 2, 1] repeats a seed; expected distinct seeds"),
    "no list": (["seeds=1"], "seeds: 1 is not right; expected a valid list"),
    "no override": (["records"], "'records' is not an override; expected key=value"),
    "interpolation": (["text=${absent}"], "absent"),
    "recipe": (["recipe=distil"], "there is no recipe 'distil', did you mean 'distill'?"),
    "module": (["recipe=no.such.module"], "recipe: no.such.module cannot be imported: there is no module 'no'"),
    "no recipe": (["recipe=gristmill.shards.store"], "is not a recipe; expected a module with Config and run"),
    "password": (["text=s3://user:secret@bucket/x"], "text: the URL contains a password"),
}


@pytest.mark.parametrize(("overrides", "message"), WRONG.values(), ids=WRONG)
def test_errors_name_the_path(recipe: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(str(recipe), overrides)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_sentence_says_no_more_than_it_must(recipe: Path) -> None:
    ends = {
        "recrds=3": ", did you mean 'records'? (expected one of",
        "records=many": "records: 'many' is not right; expected a valid integer",
        "records=null": "records: nothing is given; expected a valid integer",
        "shape.mode=loudly": "'loudly' is not right, did you mean 'loud'? (expected '",
    }
    for override, end in ends.items():
        with pytest.raises(UserError) as caught:
            load(str(recipe), [override])
        assert end in str(caught.value)
        assert "unable" not in str(caught.value)


def test_settings_made_in_python_are_checked_in_the_same_words() -> None:
    class Inner(Settings):
        size: int = 3

    class Outer(Settings):
        inner: Inner = Inner()
        name: str

    cases = {
        "Outer: inner.size: 'x' is not right; expected a valid integer": {"name": "a", "inner": {"size": "x"}},
        "Outer: inner.sise: there is no such setting, did you mean 'size'? (expected one of size)": {
            "name": "a",
            "inner": {"sise": 1},
        },
        "Outer: name: this setting is missing; it has no default": {},
    }
    for message, values in cases.items():
        with pytest.raises(SettingsError) as caught:
            Outer(**values)
        assert str(caught.value) == message
    with pytest.raises(UserError, match=r"^Inner: size: 2.5 is not right; expected a valid integer$"):
        Inner().but(size=2.5)
    assert isinstance(caught.value, ValueError)  # so that a check within a check is reported at its place


def test_every_mistake_is_reported(recipe: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(str(recipe), ["recrds=3", "shape.width=x", "seed=x"])
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("text", ["recipe: [", "- a\n- b\n", "", "recipe:\n"])
def test_a_file_that_is_not_a_recipe(recipe: Path, text: str) -> None:
    recipe.write_text(text)
    with pytest.raises(UserError, match=r"tiny\.yaml"):
        load(str(recipe))


def test_a_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.yaml"):
        with pytest.raises(UserError, match="there is no such recipe file"):
            load(str(path))


def test_settings_are_saved_once_and_found_after_a_move(recipe: Path, tmp_path: Path) -> None:
    loaded = load(str(recipe), ["records=7"])
    assert save(loaded)
    assert not save(loaded)
    carried = ["workers=3", "price.cpu_hour=1", "resources.gpu={gpus: 0.5, labels: {ray.io/node-group: gpu}}"]
    assert not save(load(str(recipe), ["records=7", *carried]))
    assert save(load(str(recipe), ["records=8"]))
    moved = tmp_path / "moved"
    (tmp_path / "out").rename(moved)
    found = load_saved(str(moved))
    assert found.config.model_dump()["records"] == 8
    assert found.common.out == str(moved)
    with pytest.raises(UserError, match="no run was started here"):
        load_saved(str(tmp_path / "out"))


def test_recipes_are_found_by_their_definitions() -> None:
    assert config.recipes()["distill"] == "gristmill.pipelines.speech.distill"
    assert "report" not in config.recipes()


def test_the_configs_of_the_project_are_valid() -> None:
    folder = Path(config.__file__).parent.parent / "configs"
    for path in sorted(set(folder.glob("*.yaml")) - {folder / "fleet.yaml"}):  # machines, not a recipe
        loaded = load(str(path))
        kept = canonical.dumps(loaded.to_json())
        again = config.resolve(json.loads(kept), str(path))
        # A saved default is read back with its value and type, on which names of results depend.
        assert canonical.dumps(again.config.model_dump()) == canonical.dumps(loaded.config.model_dump())
        assert canonical.dumps(again.to_json()) == kept


def test_an_output_may_have_any_character_in_its_name(recipe: Path, tmp_path: Path) -> None:
    for name in ("a #1", "b: c", "#d", "e#f:g", "[h", "i's", "हिन्दी", "a=b"):
        assert load(str(recipe), [f"out={tmp_path}/{name}"]).common.out == f"{tmp_path}/{name}"
    assert load(str(recipe), [f'out="{tmp_path}/j"']).common.out == f"{tmp_path}/j"


def test_the_default_with_noise_from_debian_differs_in_noise_alone() -> None:
    folder = Path(config.__file__).parent.parent / "configs"
    own, debian = (
        load(str(folder / f"{name}.yaml")).config.model_dump() for name in ("distill", "distill-debian-noise")
    )
    assert debian["noise"]["folder"] == "/usr/share/games"
    assert debian | {"noise": debian["noise"] | {"folder": None, "generated": own["noise"]["generated"]}} == own
