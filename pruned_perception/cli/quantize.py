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

"""`pruned-perception quantize`: a bundle in 8 bits, where that pays on the machine at hand."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pruned_perception._tables import Table
from pruned_perception.cli.arguments import add_execution_provider, at_least, fraction, not_negative
from pruned_perception.cli.output import say
from pruned_perception.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pruned_perception.benchmark.engine import NetworkLatency
    from pruned_perception.bundle import Bundle
    from pruned_perception.quantization import QuantizationRecord

HELD_OUT_SHARE = 0.25
"""Of the source, its end: frames of one drive resemble each other, so it is split by time."""
SCHEMES = ('auto', 'u8s8', 'u8s7', 's8s8', 'u8u8')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('bundle', help='bundle or family, in float')
    parser.add_argument('--member', default='', help='of a family (default: the dense one)')
    parser.add_argument(
        '--images',
        type=Path,
        required=True,
        metavar='SOURCE',
        help='what the robot sees, without labels: folder of images, video or bag. Its first '
        'three quarters calibrate, the rest is compared with the network in float',
    )
    parser.add_argument('--topic', help='of a bag with several image topics')
    parser.add_argument('--out', type=Path, required=True, metavar='FOLDER', help='new bundle')
    parser.add_argument('--name', help='of the new bundle (default: NAME-int8)')
    parser.add_argument(
        '--calibration', type=at_least(1), default=64, help='frames that calibrate (%(default)s)'
    )
    parser.add_argument(
        '--held-out', type=at_least(1), default=64, help='frames that compare (%(default)s)'
    )
    parser.add_argument(
        '--scheme',
        choices=SCHEMES,
        default='auto',
        help='types of activations and weights; auto: the one for this processor',
    )
    parser.add_argument(
        '--max-error',
        type=not_negative,
        metavar='D',
        help='leave only as many layers in float as this divergence takes (default: those that '
        'bring it near its least)',
    )
    parser.add_argument(
        '--float-share',
        type=fraction,
        default=0.2,
        help='of the multiply–accumulates that may stay in float for a low error (%(default)s)',
    )
    parser.add_argument(
        '--leading-float',
        type=at_least(0),
        metavar='N',
        help='so many layers at the start stay in float, whatever their error (default: those that '
        'make the network faster there, on one thread of this machine)',
    )
    parser.add_argument('--rounds', type=at_least(6), default=20, help='of timing (%(default)s)')
    parser.add_argument('--threads', type=at_least(1), default=1, help='of a run (%(default)s)')
    add_execution_provider(parser)
    parser.add_argument('--keep', action='store_true', help='write it though it is not faster')
    parser.add_argument('--force', action='store_true', help='replace an existing bundle')


def run(args: argparse.Namespace) -> int:
    """Quantise, compare, measure; 1 where the result is not faster and so not written."""
    from pruned_perception.bundle import MANIFEST, load_member, resolve_model, write_bundle
    from pruned_perception.cli.progress import Progress
    from pruned_perception.quantization import quantize_bundle

    bundle = load_member(resolve_model(args.bundle), args.member)
    if (args.out / MANIFEST).exists() and not args.force:
        raise UserError(f'{args.out}: a bundle is there already; give --force to replace it')
    calibration, held_out = frames_of(args.images, args.topic, args.calibration, args.held_out)
    with TemporaryDirectory() as trial, Progress(f'quantising {bundle.name}') as bar:
        quantized, record = quantize_bundle(
            bundle,
            calibration,
            trial,
            held_out=held_out,
            name=args.name,
            scheme=args.scheme,
            max_error=args.max_error,
            float_share=args.float_share,
            leading_float=args.leading_float,
            execution_provider=args.execution_provider,
            on_progress=bar.share,
        )
    latency, entry = _timed(bundle, quantized, args.rounds, args.threads, args.execution_provider)
    say(_report(bundle, record, latency))
    faster = latency[1].speedup_interval is not None and latency[1].speedup_interval[0] > 1
    if not (faster or args.keep):
        say(f'{args.out}: not written; --keep writes it all the same')
        return 1
    manifest = {**quantized.manifest, 'latency': [entry]}
    write_bundle(args.out, quantized.onnx_bytes, manifest)
    say(f'{args.out}: {manifest["name"]}, {len(quantized.onnx_bytes) / 2**20:.2f} MiB')
    return 0


def frames_of(
    path: Path, topic: str | None, calibration: int, held_out: int
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    """Return BGR pictures from the first part of a source, and from its end."""
    import cv2
    import numpy as np

    from pruned_perception.inference.sources import Frame, SourceError, UnreadableFrame, open_source

    source = open_source(path, topic)
    count = source.count
    if count is None:
        count = sum(1 for _ in source.frames)
        source = open_source(path, topic)
    border = count - max(1, round(HELD_OUT_SHARE * count))
    if count < 2:
        raise SourceError(
            f'{path}: {count} frame; some to calibrate and others to compare: 2 at least'
        )
    first = set(np.linspace(0, border - 1, min(calibration, border)).astype(int).tolist())
    last = set(np.linspace(border, count - 1, min(held_out, count - border)).astype(int).tolist())
    found: tuple[list[Any], list[Any]] = ([], [])
    reason = ''
    to_bgr = {'rgb': cv2.COLOR_RGB2BGR, 'gray': cv2.COLOR_GRAY2BGR}

    def picture(frame: Frame) -> NDArray[np.uint8]:
        if frame.order == 'bgr':
            return frame.image
        return np.asarray(cv2.cvtColor(frame.image, to_bgr[frame.order]), np.uint8)

    for frame in source.frames:
        if isinstance(frame, UnreadableFrame):
            reason = f': {frame.reason}'
        elif frame.index in first:
            found[0].append(picture(frame))
        elif frame.index in last:
            found[1].append(picture(frame))
    for pictures, part in zip(found, ('first three quarters', 'last quarter'), strict=True):
        if not pictures:
            raise SourceError(f'{path}: no frame of its {part} can be read{reason}')
    return found


def _timed(
    bundle: Bundle, quantized: Bundle, rounds: int, threads: int, provider: str
) -> tuple[list[NetworkLatency], dict[str, Any]]:
    """Return the latency of both, interleaved, and the entry for the manifest of the second."""
    from pruned_perception.benchmark import engine

    networks = [
        replace(engine.of_bundle(each), execution_provider=provider) for each in (bundle, quantized)
    ]
    configuration = {'rounds': rounds, 'runs_per_round': 5, 'threads': threads}
    sessions = engine.open_sessions(networks, threads=threads)
    times = engine.measure(networks, rounds=rounds, runs=5, threads=threads, sessions=sessions)
    results = engine.compare(networks, times, sessions)
    return results, engine.latency_entry(results, 1, configuration)


def _report(bundle: Bundle, record: QuantizationRecord, latency: list[NetworkLatency]) -> str:
    in_float, in_8_bits = latency
    low, high = in_8_bits.speedup_interval or (float('nan'),) * 2
    agreement = 'no object seen' if record.agreement is None else f'{record.agreement:.1%}'
    rows = [
        ('scheme', f'{record.scheme} on {record.arithmetic}'),
        (
            'layers left in float',
            f'{len(record.float_layers)} of {record.layers}'
            + (f', {record.leading_float} at the start for speed' if record.leading_float else ''),
        ),
        ('divergence from float', f'{record.divergence:.4f}'),
        (
            'relative output error',
            'shapes change' if record.output_error is None else f'{record.output_error:.4f}',
        ),
        (
            'objects at the threshold',
            f'{record.shown} in float; {record.lost} lost, {record.invented} invented; '
            f'agreement {agreement}',
        ),
        (
            'runs on',
            '–' if in_8_bits.execution is None else in_8_bits.execution.to_text(),
        ),
        ('frames', f'{record.calibration_images} calibrate, {record.held_out_images} held out'),
        ('ms, p50', f'{in_float.latency.p50:.3f} in float, {in_8_bits.latency.p50:.3f} in 8 bits'),
        ('× faster', f'{in_8_bits.speedup:.2f} [{low:.2f}, {high:.2f}]'),
    ]
    table = Table.under(f'{bundle.name} in 8 bits | ', rows).to_text()
    return f'{table}\n{_verdict(record, low, high)}'


def _verdict(record: QuantizationRecord, low: float, high: float) -> str:
    """Say in one sentence whether INT8 pays here."""
    from pruned_perception.inference.processor import DOT_PRODUCTS

    if low > 1:
        return f'INT8 pays on this processor: {low:.2f} to {high:.2f} times as fast.'
    has = record.arithmetic in DOT_PRODUCTS
    reason = (
        'the network spends its time where 8 bits do not help'
        if has
        else f'{record.arithmetic} has no dot products of bytes'
    )
    state = 'is slower' if high < 1 else 'is not surely faster'
    return f'INT8 does not pay on this processor, it {state}: {reason}; pruning is what helps here.'
