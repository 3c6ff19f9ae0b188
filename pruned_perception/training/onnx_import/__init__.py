"""ONNX detectors in PyTorch: imported, given batch norms to train with, exported again."""

from pruned_perception.training.onnx_import.batch_norms import folded, with_batch_norms
from pruned_perception.training.onnx_import.builder import OnnxImportError
from pruned_perception.training.onnx_import.export import (
    OnnxExportError,
    disagreement,
    export_onnx,
)
from pruned_perception.training.onnx_import.network import OnnxNetwork, Port, import_onnx

__all__ = [
    'OnnxExportError',
    'OnnxImportError',
    'OnnxNetwork',
    'Port',
    'disagreement',
    'export_onnx',
    'folded',
    'import_onnx',
    'with_batch_norms',
]
