# Copyright 2026 the pruned_perception developers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Networks that others defined, with random weights: whether they are cut and counted rightly.

    python -m studies.foreign_networks IMAGES studies/results/foreign_networks.csv

makes what is missing in the table, a process for each network, and prints it (`--table`: only
prints). Definitions are those of the installed packages timm, torchvision, pytorchcv, ultralytics,
transformers and segmentation_models_pytorch; networks of packages that are not installed are
skipped. IMAGES is a folder of pictures: they are what is calibrated and compared on, since noise
and zeros hide errors. Of each network:

* the seconds of tracing, with the verification of every group (CPU time of one thread);
* what `absolute` sensitivities cost, in forward passes over the same pictures;
* the share of the multiply-accumulates that is left where SHARE is asked for, by the call without
  options;
* the multiply-accumulates beside those of PyTorch's own counter, and what multiplies uncounted;
* the largest difference between the cut network and the masked one, in any channel of any output,
  relative to the largest value there, in double precision.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pruned_perception._tables import Table
from pruned_perception.images import read_image
from pruned_perception.pruning import (
    Macs,
    count,
    estimate_sensitivity,
    find_groups,
    mask_channels,
    recalibrate,
)
from pruned_perception.pruning.graph.observation import run, tensors
from pruned_perception.pruning.plan import Planner

SHARE = 0.75
PICTURES = 16
LIMIT = 600  # seconds for one network

Built = tuple[nn.Module, int]  # the network, and the size of its square pictures


def _timm(name: str, size: int = 96, **options: Any) -> Callable[[], Built]:
    def build() -> Built:
        _import_torchvision()
        return importlib.import_module('timm').create_model(name, **options), size

    return build


def _torchvision(name: str, size: int = 96) -> Callable[[], Built]:
    def build() -> Built:
        models = _import_torchvision()
        if name in _SEGMENTING:
            return getattr(models.segmentation, name)(weights=None, weights_backbone=None), size
        return getattr(models, name)(weights=None), size

    return build


_SEGMENTING = ('deeplabv3_mobilenet_v3_large', 'lraspp_mobilenet_v3_large')


def _import_torchvision() -> Any:
    """Return torchvision.models, also where its wheel is not of this build of PyTorch.

    Its compiled operators (suppression, regions) are missing then, and its Python code, which
    registers shapes for them, fails to be imported; none of the networks here calls them.
    """
    try:
        return importlib.import_module('torchvision.models')
    except RuntimeError as error:
        if 'torchvision::' not in str(error):
            raise
        for name in ('nms', 'qnms'):
            _LIBRARIES.append(torch.library.Library('torchvision', 'FRAGMENT'))
            _LIBRARIES[-1].define(f'{name}(Tensor x) -> Tensor')
        for each in [each for each in sys.modules if each.partition('.')[0] == 'torchvision']:
            del sys.modules[each]
        return importlib.import_module('torchvision.models')


_LIBRARIES: list[torch.library.Library] = []


def _pytorchcv(name: str, size: int = 224, **options: Any) -> Callable[[], Built]:
    def build() -> Built:
        provider = importlib.import_module('pytorchcv.model_provider')
        return provider.get_model(name, pretrained=False, **options), size

    return build


def _ultralytics(name: str, size: int = 128) -> Callable[[], Built]:
    def build() -> Built:
        _import_torchvision()
        tasks = importlib.import_module('ultralytics.nn.tasks')
        kind = tasks.RTDETRDetectionModel if 'rtdetr' in name else tasks.DetectionModel
        return kind(f'{name}.yaml', verbose=False), size

    return build


def _transformers(name: str, size: int = 96, **options: Any) -> Callable[[], Built]:
    def build() -> Built:
        _import_torchvision()
        package = importlib.import_module('transformers')
        configuration = getattr(package, f'{name.partition("For")[0].removesuffix("Model")}Config')
        return getattr(package, name)(configuration(**options)), size

    return build


def _smp(name: str, encoder: str, size: int = 96) -> Callable[[], Built]:
    def build() -> Built:
        _import_torchvision()
        package = importlib.import_module('segmentation_models_pytorch')
        return getattr(package, name)(encoder, encoder_weights=None, classes=4), size

    return build


_TIMM = """
    resnet18 resnet50 resnext26ts seresnet50 wide_resnet50_2 res2net50_26w_4s densenet121 vgg11_bn
    mobilenetv2_100 mobilenetv3_large_100 efficientnet_b0 efficientnet_lite0 mnasnet_100
    ghostnet_100
    regnetx_008 regnety_008 repvgg_a0 hrnet_w18_small dla34 convnext_tiny convnextv2_atto dpn68
    inception_v3 xception41 cspresnet50 cspdarknet53 ese_vovnet19b_dw fbnetc_100 mobileone_s0
    edgenext_xx_small fastvit_t8 poolformer_s12 mobilevit_xxs tinynet_a selecsls42b gernet_s
    lcnet_050 nf_regnet_b0 resnet10t skresnet18 rexnet_100 mobilenetv4_conv_small repvit_m0_9
    hardcorenas_a spnasnet_100 semnasnet_075 mobilevitv2_050 legacy_seresnet18
"""
_TORCHVISION = """
    googlenet shufflenet_v2_x1_0 squeezenet1_1 alexnet mnasnet0_5 regnet_x_400mf efficientnet_v2_s
    deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large mobilenet_v3_small shufflenet_v2_x0_5
"""
_PYTORCHCV = """
    shufflenet_g3_w1 menet108_8x1_g3 condensenet74_c4_g4 diracnet18v2 igcv3_w1 bninception peleenet
"""
_ULTRALYTICS = 'yolov5n yolov8n yolov9t yolov10n yolo11n yolo12n yolo26n rtdetr-l'
_SMALL = {
    'image_size': 96,
    'hidden_size': 192,
    'num_hidden_layers': 4,
    'num_attention_heads': 3,
    'intermediate_size': 768,
}

NETWORKS: dict[str, Callable[[], Built]] = {
    **{f'timm {name}': _timm(name) for name in _TIMM.split()},
    'timm vit_tiny_patch16_224': _timm('vit_tiny_patch16_224', img_size=96),
    'timm swin_tiny_patch4_window7_224': _timm('swin_tiny_patch4_window7_224', 224),
    'timm mixer_s32_224': _timm('mixer_s32_224', 224),
    **{f'torchvision {name}': _torchvision(name) for name in _TORCHVISION.split()},
    'torchvision vit_b_32': _torchvision('vit_b_32', 224),
    **{f'pytorchcv {name}': _pytorchcv(name) for name in _PYTORCHCV.split()},
    'pytorchcv resnet20_cifar10': _pytorchcv('resnet20_cifar10', 32, num_classes=10),
    **{f'ultralytics {name}': _ultralytics(name) for name in _ULTRALYTICS.split()},
    'transformers ViTModel': _transformers('ViTModel', **_SMALL),
    'transformers SwinModel': _transformers('SwinModel', 224),
    'transformers SegformerModel': _transformers('SegformerModel', 128),
    'transformers YolosForObjectDetection': _transformers(
        'YolosForObjectDetection', **{**_SMALL, 'image_size': [96, 96]}, num_detection_tokens=20
    ),
    'transformers RTDetrForObjectDetection': _transformers(
        'RTDetrForObjectDetection', 160, num_queries=50
    ),
    'smp Unet resnet18': _smp('Unet', 'resnet18'),
    'smp FPN mobilenet_v2': _smp('FPN', 'mobilenet_v2'),
    'smp DeepLabV3Plus resnet34': _smp('DeepLabV3Plus', 'resnet34'),
    'smp Linknet resnet34': _smp('Linknet', 'resnet34'),
}


@dataclass(frozen=True)
class Result:
    """One network; `failed` says what went wrong, where something did."""

    network: str
    groups: int = 0
    trace_seconds: float = 0.0
    sensitivity_passes: float = 0.0
    plan_seconds: float = 0.0
    macs: int = 0
    counter_macs: int = 0
    share: float = 0.0
    difference: float = 0.0
    not_counted: str = ''
    whole: int = 0
    failed: str = ''

    @property
    def verdict(self) -> str:
        """Return what came of it, in a word."""
        if self.failed:
            return self.failed
        if abs(self.share - SHARE) > 0.005:
            return 'another size'
        return 'cut' if self.difference < 1e-6 else 'WRONG'


def pictures(folder: Path, size: int) -> Tensor:
    """Return (PICTURES, 3, size, size), about 0 with deviation 1."""
    found = []
    for path in sorted(folder.glob('*.jpg'))[:PICTURES]:
        image = cv2.resize(read_image(path), (size, size), interpolation=cv2.INTER_AREA)
        found.append(image.astype(np.float32).transpose(2, 0, 1) / 64 - 2)
    return torch.from_numpy(np.stack(found))


@torch.no_grad()
def make_telling(model: nn.Module) -> None:
    """Draw scales that all are the same: where they are zero, as of last norms, nothing shows."""
    for name, each in model.named_parameters():
        if 'bias' not in name and each.numel() > 1 and each.min() == each.max():
            nn.init.uniform_(each, 0.5, 1.5)


def measure(name: str, folder: Path) -> Result:
    """Return what one network shows."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    model, size = NETWORKS[name]()
    make_telling(model)
    images = pictures(folder, size)
    batches = list(images.split(8))
    model = recalibrate(model.eval(), batches)  # random weights: let activations keep their size
    example = (images[:1],)
    cost = count(model, example)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*example)
    began = time.process_time()
    planner = Planner(model, example, calibration=batches)
    trace_seconds = time.process_time() - began
    passes = _passes(model, batches, planner)
    began = time.process_time()
    plan = planner.plan(Macs(SHARE))
    plan_seconds = time.process_time() - began
    small = planner.cut(plan)
    real = count(small, example)
    if real.macs != plan.macs:
        raise AssertionError(f'planned {plan.macs}, found {real.macs}')
    return Result(
        network=name,
        groups=len(planner.structure.groups.prunable),
        trace_seconds=round(trace_seconds, 2),
        sensitivity_passes=round(passes, 2),
        plan_seconds=round(plan_seconds, 2),
        macs=cost.macs,
        counter_macs=counter.get_total_flops() // 2,
        share=real.macs / cost.macs,
        # Of the planner's: in double precision, weights that are computed would be others again.
        difference=_difference(planner.model, small, plan.kept, example, images[:4]),
        not_counted=', '.join(cost.not_counted),
        whole=len(plan.not_pruned),
    )


def _passes(model: nn.Module, batches: Sequence[Tensor], planner: Planner) -> float:
    """Return what sensitivities cost, in forward passes; the second of two rounds counts."""
    ratio = 0.0
    for _ in range(2):
        began = time.process_time()
        run(model, [(batch,) for batch in batches])
        plain = time.process_time() - began
        began = time.process_time()
        estimate_sensitivity(
            model, batches, example_inputs=(batches[0][:1],), structure=planner.structure
        )
        ratio = (time.process_time() - began) / plain
    return ratio


@torch.no_grad()
def _difference(
    model: nn.Module, small: nn.Module, kept: Any, example: tuple[Tensor, ...], images: Tensor
) -> float:
    """Return the largest difference, of any channel of any output, relative to its range."""
    groups = find_groups(model, example, verify=False)
    masked = mask_channels(model, groups, kept).double().eval()
    worst = 0.0
    small = small.double().eval()
    for wanted, found in zip(
        tensors(masked(images.double())), tensors(small(images.double())), strict=True
    ):
        if not wanted.is_floating_point() or wanted.ndim < 2:
            continue
        if wanted.shape != found.shape:
            return float('inf')
        for axis in range(1, wanted.ndim):
            rows = [
                each.movedim(axis, 0).flatten(1).abs().amax(1) for each in (wanted - found, wanted)
            ]
            least = max(1e-9 * float(rows[1].max()), 1e-12)
            if not all(row.isfinite().all() for row in rows):
                return float('inf')
            worst = max(worst, float((rows[0] / rows[1].clamp(min=least)).max()))
    return worst


def read(path: Path) -> list[Result]:
    """Return the rows of a table; none where there is no such file."""
    if not path.is_file():
        return []
    kinds = {
        each.name: {'int': int, 'float': float}.get(str(each.type), str) for each in fields(Result)
    }
    with path.open(encoding='utf-8', newline='') as file:
        return [
            Result(**{name: kinds[name](value) for name, value in row.items()})
            for row in csv.DictReader(file)
        ]


def write(path: Path, results: Sequence[Result]) -> None:
    """Write the rows, in the order of NETWORKS."""
    order = list(NETWORKS)
    with path.open('w', encoding='utf-8', newline='') as file:
        table = csv.DictWriter(file, [each.name for each in fields(Result)], lineterminator='\n')
        table.writeheader()
        table.writerows(
            asdict(each) for each in sorted(results, key=lambda r: order.index(r.network))
        )


def missing(done: Sequence[Result]) -> Iterator[str]:
    """Yield the networks that are not in the table."""
    have = {each.network for each in done}
    yield from (name for name in NETWORKS if name not in have)


def in_a_process(name: str, folder: Path) -> Result | None:
    """Return what a network shows; None where its package is not installed."""
    package = name.partition(' ')[0]
    try:
        _import_torchvision()
        importlib.import_module({'smp': 'segmentation_models_pytorch'}.get(package, package))
    except ImportError as error:
        print(f'{name}: skipped: {error}', flush=True)
        return None
    context = multiprocessing.get_context('fork')  # which has the packages already
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, name, folder))
    process.start()
    sender.close()
    try:
        if not receiver.poll(LIMIT):
            return Result(name, failed=f'more than {LIMIT} s')
        return receiver.recv()
    except EOFError:
        return Result(name, failed='killed')
    finally:
        process.kill()
        process.join()


def _send(sender: Any, name: str, folder: Path) -> None:
    warnings.simplefilter('ignore')
    try:
        sender.send(measure(name, folder))
    except Exception as error:  # whatever a network of others raises
        sender.send(Result(name, failed=f'{type(error).__name__}: {error}'[:200]))


def to_text(results: Sequence[Result]) -> str:
    """Return the table, and how many were cut."""
    header = (
        'network | groups:d | trace s:.1f | sensitivity, passes:.1f | plan s:.1f | MMAC:.1f | '
        "of PyTorch's count:.1% | MACs left:.2% | difference:.0e | whole:d | uncounted | result"
    )
    rows = [
        (
            each.network,
            each.groups,
            each.trace_seconds,
            each.sensitivity_passes,
            each.plan_seconds,
            each.macs / 1e6,
            each.macs / max(1, each.counter_macs),
            each.share,
            each.difference,
            each.whole,
            each.not_counted,
            each.verdict,
        )
        for each in results
    ]
    good = sum(each.verdict == 'cut' for each in results)
    return f'{Table.under(header, rows).to_markdown()}\n\n{good} of {len(results)} cut'


def main() -> None:
    """Make and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('images', type=Path, help='folder of JPEG pictures')
    parser.add_argument('results', type=Path, help='CSV file')
    parser.add_argument('--table', action='store_true', help='only print what is there')
    parser.add_argument('--only', metavar='TEXT', default='', help='networks with it in the name')
    args = parser.parse_args()
    results = read(args.results)
    if not args.table:
        for name in [each for each in missing(results) if args.only in each]:
            if (found := in_a_process(name, args.images)) is not None:
                results.append(found)
                write(args.results, results)
                print(f'{name}: {found.verdict}', flush=True)
    print(to_text(results))


if __name__ == '__main__':
    main()
