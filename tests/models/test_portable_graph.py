"""A portable graph computes what the graph says, exactly where it computes with integers, on any processor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from gristmill.models.portable_graph import portable
from tests.emulated import PROCESSORS, emulated, needs_qemu

# Loud vowels, and a word that the voice has to guess.
SPOKEN = """
import gristmill, hashlib, json
import numpy as np
from gristmill.actors.speech.synthesise import Hibari
from gristmill.actors.speech.voices import Voice
voice = Hibari()
texts = ("turn the lights off in the kitchen", "call mister zworblix", "wake me at half past seven")
sounds = [voice.speak(text, Voice.parse("hibari:heart"), 1.0, 0.2, -0.3, 7) for text in texts]
print(json.dumps([hashlib.sha256(sound.astype(np.float32).tobytes()).hexdigest() for sound in sounds]))
"""


def graph(node: Any, inputs: Mapping[str, np.ndarray], constants: Mapping[str, np.ndarray], opset: int = 17) -> bytes:
    """Return the graph of one node, whose output is ``out``."""
    kind = helper.np_dtype_to_tensor_dtype
    given = [helper.make_tensor_value_info(name, kind(a.dtype), a.shape) for name, a in inputs.items()]
    kept = [numpy_helper.from_array(a, name) for name, a in constants.items()]
    made = helper.make_graph([node], "one", given, [onnx.ValueInfoProto(name="out")], kept)
    return bytes(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9).SerializeToString()
    )


def run(model: bytes, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return ``out``."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["out"], dict(inputs))[0])


@pytest.mark.parametrize(
    ("zeros", "kind"),
    [
        ({}, np.int8),
        ({"za": np.uint8(130)}, np.int8),
        ({"za": np.uint8(3), "zb": np.int8(-100)}, np.int8),
        ({"za": np.uint8(3), "zb": np.arange(-45, 45, dtype=np.int8)}, np.int8),
        ({"za": np.uint8(3), "zb": np.uint8(7)}, np.uint8),
    ],
    ids=["none", "inputs", "both", "columns", "unsigned"],
)
def test_integer_products_are_exact_where_sums_of_two_leave_16_bits(zeros: dict[str, Any], kind: type) -> None:
    rng = np.random.default_rng(0)
    a = rng.choice(np.array([0, 1, 254, 255], np.uint8), (70, 256))
    b = rng.choice(np.array([np.iinfo(kind).min, -1 if kind is np.int8 else 1, np.iinfo(kind).max], kind), (256, 90))
    names = ["a", "b", *(["za"] if "za" in zeros else []), *(["zb"] if "zb" in zeros else [])]
    node = helper.make_node("MatMulInteger", names, ["out"])
    model = graph(node, {"a": a}, {"b": b, **{name: np.asarray(value) for name, value in zeros.items()}})
    za, zb = np.asarray(zeros.get("za", 0)).astype(np.int64), np.asarray(zeros.get("zb", 0)).astype(np.int64)
    assert np.array_equal(run(portable(model), {"a": a}), (a.astype(np.int64) - za) @ (b.astype(np.int64) - zb))


@pytest.mark.parametrize(("axis", "opset"), [(-1, 17), (1, 17), (-1, 18), (None, 13)])
def test_softmax_is_what_it_was(axis: int | None, opset: int) -> None:
    x = np.random.default_rng(0).normal(0, 30, (4, 50, 301)).astype(np.float32)
    node = helper.make_node("Softmax", ["x"], ["out"], **({} if axis is None else {"axis": axis}))
    model = graph(node, {"x": x}, {}, opset)
    changed = portable(model)
    assert "Softmax" not in {one.op_type for one in onnx.load_from_string(changed).graph.node}
    assert np.allclose(run(changed, {"x": x}), run(model, {"x": x}), rtol=1e-5, atol=1e-12)


def test_weights_that_are_computed_are_refused() -> None:
    node = helper.make_node("MatMulInteger", ["a", "b"], ["out"], "product")
    model = graph(node, {"a": np.zeros((2, 3), np.uint8), "b": np.zeros((3, 2), np.int8)}, {})
    with pytest.raises(ValueError, match=r"^product: MatMulInteger was expected to have constant weights$"):
        portable(model)


def test_weights_of_a_node_that_holds_a_constant_are_found() -> None:
    weights = numpy_helper.from_array(np.full((3, 2), -128, np.int8))
    constant = helper.make_node("Constant", [], ["b"], value=weights)
    model = onnx.load_from_string(
        graph(helper.make_node("MatMulInteger", ["a", "b"], ["out"]), {"a": np.zeros((2, 3), np.uint8)}, {})
    )
    model.graph.node.insert(0, constant)
    a = np.full((2, 3), 255, np.uint8)
    assert (run(portable(model.SerializeToString()), {"a": a}) == 3 * 255 * -128).all()


@pytest.mark.slow
@needs_qemu
@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_voice_is_the_same_on_other_processors(processor: str) -> None:
    assert json.loads(emulated(SPOKEN, processor)) == json.loads(emulated(SPOKEN))
