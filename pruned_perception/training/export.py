"""Checkpoint → bundle: ONNX with scaling and decoding in the graph, compared with PyTorch."""

from __future__ import annotations

import copy
import datetime
import math
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pruned_perception import __version__
from pruned_perception.bundle import SCHEMA_VERSION, Bundle, write_bundle
from pruned_perception.errors import UserError
from pruned_perception.pruning import count
from pruned_perception.training.architecture import STRIDES
from pruned_perception.training.detector import LOG_PIXELS, ConvBlock, Detector, Head, decode, grid

OPSET = 17
IR_VERSION = 8  # ONNX Runtime 1.17 reads up to 9; exporters write newer ones
COMPARED_FRAMES = 16
TOLERANCE = 1e-3  # on scores; on distances relative to the stride, or to themselves if longer
SCORE_THRESHOLD, IOU_THRESHOLD, MAX_DETECTIONS = 0.4, 0.6, 100


class ExportError(UserError):
    """The exported model does not compute what the checkpoint does."""


class Deployed(nn.Module):
    """The detector as the robot runs it: uint8 (1, H, W, 3) RGB → predictions (1, N, 4 + C).

    Everything that is constant is folded into the convolutions: batch norms, the scaling 1/255
    (exact, since no mean is subtracted that zero padding would get wrong), the strides (as
    logarithms, into the biases of the box outputs), and the order of the image's axes.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = folded(detector)
        first = self.detector.get_submodule('backbone.0.0')
        assert isinstance(first, ConvBlock)
        first.conv = interleaved(first.conv, 1 / 255)
        with torch.no_grad():
            for head, stride in zip(self.detector.heads, STRIDES, strict=True):
                assert isinstance(head, Head)
                assert head.box_output.bias is not None
                head.box_output.bias += math.log(stride)

    def forward(self, image: Tensor) -> Tensor:
        """Return the predictions of one image."""
        _, height, width, _ = image.shape
        raw = self.detector(image.reshape(1, 1, height, 3 * width).float())
        return torch.cat((raw[..., :4].clamp(*LOG_PIXELS).exp(), raw[..., 4:].sigmoid()), dim=-1)


@torch.no_grad()
def interleaved(conv: nn.Conv2d, scale: float) -> nn.Conv2d:
    """Return `conv` for images (1, 1, H, 3W) whose colours alternate, as cameras store them.

    Three pixels of three channels are nine neighbours in a row: the same products and sums
    without the transposition, which would cost a small net 5 % of its time. Values are scaled.
    """
    outputs, channels, height, width = conv.weight.shape
    assert not isinstance(conv.padding, str)
    (stride_y, stride_x), (pad_y, pad_x) = conv.stride, conv.padding
    row = nn.Conv2d(
        1,
        outputs,
        (height, channels * width),
        (stride_y, channels * stride_x),
        (pad_y, channels * pad_x),
    )
    row.weight.copy_(scale * conv.weight.permute(0, 2, 3, 1).reshape(row.weight.shape))
    assert row.bias is not None
    if conv.bias is None:
        row.bias.zero_()
    else:
        row.bias.copy_(conv.bias)
    return row


def folded(detector: Detector) -> Detector:
    """Return a copy in eval mode whose batch norms are folded into their convolutions."""
    plain = copy.deepcopy(detector).eval()
    for module in plain.modules():
        if isinstance(module, ConvBlock):
            assert isinstance(module.norm, nn.BatchNorm2d)
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return plain


def to_onnx(detector: Detector, images: np.ndarray) -> bytes:
    """Return the ONNX model of `detector`, after comparing it with PyTorch on `images`.

    Args:
        detector: as trained.
        images: (K, H, W, 3) uint8 RGB at the network's input size.

    Raises:
        ExportError: ONNX Runtime's outputs differ from PyTorch's.
    """
    try:
        import onnx
        import onnxscript.optimizer
    except ImportError as error:
        raise UserError(
            "export needs onnx and onnxscript: pip install 'pruned_perception[train]'"
        ) from error
    deployed = Deployed(detector).eval()
    example = torch.from_numpy(np.array(images[:1]))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        path = Path(folder) / 'model.onnx'
        torch.onnx.export(
            deployed,
            (example,),
            str(path),
            input_names=['image'],
            output_names=['predictions'],
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(path)
    # Shapes are fixed: what the exporter computes from them becomes a constant.
    model = onnxscript.optimizer.optimize(onnx.shape_inference.infer_shapes(model))
    _clean(model)
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    compare(detector, data, images)
    return data


@torch.no_grad()
def compare(detector: Detector, onnx_bytes: bytes, images: np.ndarray) -> float:
    """Return the largest difference of ONNX Runtime from PyTorch (unfused) on `images`.

    Scores differ absolutely, distances relative to their cell's stride or, where they are longer,
    to themselves. Raises ExportError above TOLERANCE.
    """
    session = onnxruntime.InferenceSession(onnx_bytes, providers=['CPUExecutionProvider'])
    _, strides = grid(*detector.input_size)
    worst = 0.0
    for image in images:
        (found,) = session.run(None, {'image': image[None]})
        tensor = torch.from_numpy(np.array(image))[None].permute(0, 3, 1, 2).float() / 255
        wanted = decode(detector.eval()(tensor), strides).numpy()
        gap = np.abs(found - wanted)
        gap[..., :4] /= np.maximum(strides.numpy()[:, None], wanted[..., :4])
        worst = max(worst, float(gap.max()))
    if not worst <= TOLERANCE:
        raise ExportError(f'ONNX Runtime differs from PyTorch by {worst:.2g} (> {TOLERANCE:g})')
    return worst


def export_bundle(
    checkpoint: Mapping[str, Any],
    detector: Detector,
    images: np.ndarray,
    folder: str | os.PathLike[str],
    *,
    name: str,
    parent: Bundle | None,
    provenance: Mapping[str, Any],
) -> Bundle:
    """Write the bundle of a checkpoint and return it as the robot loads it.

    Args:
        checkpoint: as read; its labels, experiment and ancestry go into the manifest.
        detector: of the checkpoint.
        images: (K, H, W, 3) uint8 on which ONNX Runtime is compared with PyTorch.
        folder: of the bundle.
        name: of the bundle.
        parent: the dense member, for a pruned one.
        provenance: data and licences.

    Raises:
        ExportError: see `to_onnx`.
    """
    onnx_bytes = to_onnx(detector, images)
    height, width = detector.input_size
    cost = count(folded(detector), (torch.zeros(1, 3, height, width),))
    ancestry = checkpoint['ancestry']
    manifest = {
        'schema_version': SCHEMA_VERSION,
        'name': name,
        'input': {
            'name': 'image',
            'shape': [1, height, width, 3],
            'dtype': 'uint8',
            'layout': 'NHWC',
            'color': 'rgb',
            'resize': 'stretch',
            'align': 'center',
            'pad_value': 114,
            'mean': [0, 0, 0],
            'std': [1, 1, 1],
        },
        'output': {
            'names': ['predictions'],
            'decoder': 'anchor_free',
            'parameters': {'strides': list(STRIDES)},
        },
        'labels': list(checkpoint['labels']),
        'thresholds': {
            'score': SCORE_THRESHOLD,
            'iou': IOU_THRESHOLD,
            'max_detections': MAX_DETECTIONS,
        },
        'cost': {'parameters': cost.parameters, 'macs': cost.macs},
        'parent': None if parent is None else {'name': parent.name, 'sha256': parent.sha256},
        'pruning': ancestry.get('plan'),
        'certificate': None,
        'evaluation': [],
        'latency': [],
        'provenance': {
            'created': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
            'tool': f'pruned_perception {__version__}',
            **provenance,
            'experiment': checkpoint['experiment'],
            'architecture': checkpoint['architecture'],
            'training': {
                'frames': checkpoint['data']['frames'],
                'annotations_sha256': checkpoint['data']['train'],
                'steps': checkpoint['steps'],
                'cpu_seconds': round(checkpoint['cpu_seconds'], 1),
                'cpu_seconds_of_parents': round(ancestry.get('cpu_seconds', 0.0), 1),
                'torch': str(torch.__version__),
            },
            'seed': checkpoint['experiment']['seed'],
        },
    }
    return write_bundle(folder, onnx_bytes, manifest)


def _clean(model: Any) -> None:
    """Drop what names the machine that exported it, and mark it readable for older runtimes."""
    model.ir_version = IR_VERSION
    model.doc_string = ''
    model.producer_name, model.producer_version = 'pruned_perception', __version__
    del model.metadata_props[:]
    model.graph.doc_string = ''
    model.graph.name = 'detector'
    _without_documentation(model.graph.node)
    _without_documentation(model.graph.initializer)
    _without_documentation([*model.graph.input, *model.graph.output, *model.graph.value_info])


def _without_documentation(items: Sequence[Any]) -> None:
    for item in items:
        item.doc_string = ''
        if hasattr(item, 'metadata_props'):
            del item.metadata_props[:]
