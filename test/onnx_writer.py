"""ONNX files without the package `onnx`: the package's own writer, by the name that tests use."""

from pruned_perception.inference.onnx_writer import TYPES, graph, model, node, value

__all__ = ['TYPES', 'graph', 'model', 'node', 'value']
