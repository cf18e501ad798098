"""ONNX graphs whose results ONNX Runtime gives to the bit on every processor of x86-64 with AVX2.

ONNX Runtime chooses kernels by what the processor offers, and no setting limits it. Of the kinds of node that the
embedded voice is made of, two give other results with other kernels, seen on processors with AVX-512 and on emulated
ones of Intel and AMD without (``tests/models/test_portable_graph.py``):

- ``MatMulInteger`` with signed weights: without VNNI, sums of two products saturate at 16 bits; with it they are exact.
  With unsigned weights all kernels are exact.
- ``Softmax``: how many partial sums are added follows the width of the registers.

Both are written here as nodes that do not depend on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_SHIFT = 128  # what makes an int8 a uint8


def portable(graph: bytes) -> bytes:
    """Return a graph that computes the same without what depends on the processor.

    Raises:
        ValueError: signed weights of an integer product are not constant.
    """
    import onnx

    model = onnx.load_from_string(graph)
    constants = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants.update((node.output[0], one.t) for one in node.attribute if one.name == "value")
    rewriting = _Rewriting(model, constants)
    nodes = [one for node in model.graph.node for one in rewriting.nodes(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(rewriting.added.values())
    return bytes(model.SerializeToString())


def open_portable(path: str | Path) -> Any:
    """Return the session of the :func:`portable` graph of a file."""
    return open_graph(portable(Path(path).read_bytes()))


def open_graph(graph: bytes) -> Any:
    """Return the ``onnxruntime.InferenceSession`` of a graph, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class _Rewriting:
    """``added``: the constants that rewritten nodes need, by name."""

    def __init__(self, model: Any, constants: dict[str, Any]) -> None:
        self._constants = constants
        # Until then the axes of ReduceMax were an attribute.
        self._axes_are_inputs = next(one.version for one in model.opset_import if not one.domain) >= 18
        self.added: dict[str, Any] = {}

    def nodes(self, node: Any) -> list[Any]:
        """Return the nodes that compute what a node does."""
        if node.op_type == "MatMulInteger":
            return [self._unsigned(node)]
        return self._softmax(node) if node.op_type == "Softmax" else [node]

    def _unsigned(self, node: Any) -> Any:
        """(a - za) (b - zb) = (a - za) ((b + 128) - (zb + 128))."""
        from onnx import TensorProto, helper

        a, b, za, zb = [*node.input, "", ""][:4]
        if b not in self._constants:
            raise ValueError(f"{node.name}: MatMulInteger was expected to have constant weights")
        if self._constants[b].data_type != TensorProto.INT8:
            return node
        zero = self._shifted(zb) if zb else self._constant("zero_point_128", np.asarray(_SHIFT, np.uint8))
        return helper.make_node("MatMulInteger", [a, self._shifted(b), za, zero], node.output, node.name)

    def _shifted(self, name: str) -> str:
        from onnx import numpy_helper

        values = numpy_helper.to_array(self._constants[name]).astype(np.int16)
        return self._constant(f"{name}_unsigned", (values + _SHIFT).astype(np.uint8))

    def _constant(self, name: str, values: np.ndarray) -> str:
        from onnx import numpy_helper

        self.added[name] = numpy_helper.from_array(values, name)
        return name

    def _softmax(self, node: Any) -> list[Any]:
        from onnx.helper import get_attribute_value, make_node

        axis = next((get_attribute_value(one) for one in node.attribute if one.name == "axis"), -1)
        (given,), (out,) = node.input, node.output
        most, less, powers, total = (f"{out}_{part}" for part in ("most", "less", "powers", "total"))
        axes = self._constant(f"softmax_axis_{axis}", np.asarray([axis], np.int64))
        maximum = (
            make_node("ReduceMax", [given, axes], [most], keepdims=1)
            if self._axes_are_inputs
            else make_node("ReduceMax", [given], [most], axes=[axis], keepdims=1)
        )
        return [
            maximum,
            make_node("Sub", [given, most], [less]),
            make_node("Exp", [less], [powers]),
            make_node("ReduceSum", [powers, axes], [total], keepdims=1),
            make_node("Div", [powers, total], [out]),
        ]
