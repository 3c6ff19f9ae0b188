"""The network that these tests quantise."""

from __future__ import annotations

import pytest
from layered_network import layered_onnx
from tiny_detector import write_tiny_bundle

from pruned_perception.bundle import Bundle

pytest.importorskip('onnx', reason="quantisation needs onnx: extra 'train'")


@pytest.fixture(scope='session')
def layered(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Write the bundle of a network of four layers. Do not change its files."""
    return write_tiny_bundle(
        tmp_path_factory.mktemp('layered') / 'layered', name='layered', onnx=layered_onnx()
    )
