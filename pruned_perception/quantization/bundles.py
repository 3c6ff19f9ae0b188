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

"""Bundle in float → bundle in 8 bits, with the record of how, where and how well."""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception import __version__
from pruned_perception.bundle import QUANTIZED_SCHEMA_VERSION, Bundle, write_bundle
from pruned_perception.datasets.fingerprints import Fingerprints, picture_hash
from pruned_perception.inference.decisions import match_objects
from pruned_perception.inference.detections import Candidates
from pruned_perception.inference.detector import Detector
from pruned_perception.inference.divergence import divergence, relative_error
from pruned_perception.inference.engine import create_session, version
from pruned_perception.inference.intervals import median_interval
from pruned_perception.inference.processor import integer_arithmetic, processor_name
from pruned_perception.inference.providers import CPU
from pruned_perception.inference.reference import packed, reference_picture, sampled
from pruned_perception.inference.timing import by_turns
from pruned_perception.quantization.errors import QuantizationError
from pruned_perception.quantization.qdq import Feeds, Quantizer
from pruned_perception.quantization.schemes import SCHEMES, saturates, scheme_for_here
from pruned_perception.quantization.sensitivity import choose

Picture = NDArray[np.uint8]

MOST_CALIBRATION_IMAGES = 256
FLOAT_SHARE = 0.2
"""Of the multiply–accumulates that may stay in float."""
MOST_LEADING = 2
"""Layers at the start that may stay in float because they are faster there."""
_SENSITIVITY_IMAGES = 4
_ROUNDS, _RUNS = 20, 5  # of timing
_TOLERANCE = 0.5  # of the error against the float network, on the reference picture
SEEN = 'seen'  # of `provenance`: which frames the network was fitted or chosen on


@dataclass(frozen=True)
class QuantizationRecord:
    """How a bundle was quantised, and how far it is from the float on frames held out."""

    scheme: str
    arithmetic: str
    """The processor's 8-bit arithmetic, such as 'AVX-512 VNNI'."""
    saturates: bool
    """Whether U8S8 saturates on it."""
    layers: int
    float_layers: tuple[str, ...]
    leading_float: int
    """How many of them are the network's first, left in float because that is faster."""
    steps: tuple[tuple[int, float], ...]
    """(layers in float, divergence) on calibration frames, of each choice that was measured."""
    calibration_images: int
    held_out_images: int
    divergence: float
    """From the float network; see `inference.divergence`."""
    output_error: float | None
    """‖INT8 − float‖ / ‖float − its mean‖ of the raw outputs; None where their shapes change."""
    shown: int
    """Objects that the float network shows at the bundle's threshold."""
    lost: int
    """Those of them that the network in 8 bits does not show."""
    invented: int
    """Objects that only the network in 8 bits shows."""

    @property
    def agreement(self) -> float | None:
        """Share of the float network's objects that the one in 8 bits shows, too."""
        return 1 - self.lost / self.shown if self.shown else None


def quantize_bundle(
    bundle: Bundle,
    images: Iterable[Picture],
    folder: str | os.PathLike[str],
    *,
    held_out: Iterable[Picture],
    name: str | None = None,
    scheme: str = 'auto',
    max_error: float | None = None,
    float_share: float = FLOAT_SHARE,
    leading_float: int | None = None,
    execution_provider: str = CPU,
    on_progress: Callable[[float], None] = lambda done: None,
) -> tuple[Bundle, QuantizationRecord]:
    """Write a bundle of the same detector in 8 bits, and return it with the record.

    Static QDQ quantisation, weights per channel, through the bundle's own preprocessing. It runs
    with ONNX Runtime alone; nothing is trained and no labels are needed.

    Args:
        bundle: in float.
        images: uint8 (H, W, 3) BGR, which calibrate: 32 of what the robot sees or more, at most
            256 are used. Layers to be left in float are chosen on four of them.
        folder: of the new bundle.
        held_out: other images of the kind, on which nothing is chosen.
        name: of the new bundle; NAME-int8 by default.
        scheme: a name in SCHEMES; 'auto' is `scheme_for_here()`.
        max_error: divergence on calibration images that is good enough; see `choose`.
        float_share: 0 … 1 of the multiply–accumulates that may stay in float to keep the error
            low; 0: none.
        leading_float: how many layers at the start stay in float because that is faster: a
            picture's three channels fill no instruction of 8 bits. None: measured here, on one
            thread, `MOST_LEADING` at most.
        execution_provider: what both run on, and the new one checks itself for; see
            `inference.providers`. Ranges are always measured on the processor.
        on_progress: told the share of the work that is done.

    Raises:
        QuantizationError: no images, or all alike; unknown scheme; a network that the quantiser
            does not take.
        BundleError: the bundle cannot be written.
        ProviderError: the provider is not there, or takes nothing of a network.
    """
    scheme = scheme_for_here() if scheme == 'auto' else scheme
    if scheme not in SCHEMES:
        raise QuantizationError(f'unknown scheme {scheme!r}; there are {", ".join(SCHEMES)}')
    if not 0 <= float_share <= 1:
        raise QuantizationError(f'float_share: must be in 0 … 1, got {float_share}')
    if leading_float is not None and leading_float < 0:
        raise QuantizationError(f'leading_float: must be 0 or more, got {leading_float}')
    pictures = _some(images, 'calibration')
    held = _some(held_out, 'held-out')
    parent = Detector(bundle, execution_provider=execution_provider)
    feeds = [parent.feeds(picture) for picture in pictures]
    quantizer = Quantizer(
        bundle.onnx_bytes,
        feeds,
        str(bundle.onnx_path),
        channels_last=parent.execution.provider == CPU,
    )
    layers = [each.name for each in quantizer.layers]
    if leading_float is not None and leading_float >= len(layers):
        raise QuantizationError(
            f'leading_float: {leading_float}: {bundle.name} has {len(layers)} layers, of which one '
            'at least must be in 8 bits'
        )

    chosen_on = pictures[:: max(1, len(pictures) // _SENSITIVITY_IMAGES)][:_SENSITIVITY_IMAGES]
    wanted = [parent.decoded(parent.outputs(each)) for each in chosen_on]

    def error_of(layers: Sequence[str]) -> float:
        child = _child(parent, quantizer.quantized(SCHEMES[scheme], layers), execution_provider)
        return divergence(wanted, [child.decoded(child.outputs(each)) for each in chosen_on])

    choice = choose(
        quantizer.layers,
        error_of,
        share=float_share,
        max_error=max_error,
        on_progress=on_progress,
    )

    def with_in_float(leading: int) -> bytes:
        kept = {*choice.in_float, *layers[:leading]}
        return quantizer.quantized(SCHEMES[scheme], [each for each in layers if each not in kept])

    if leading_float is None:
        leading_float = _leading(with_in_float, len(layers), feeds[0], execution_provider)
    data = with_in_float(leading_float)
    child = _child(parent, data, execution_provider)
    found = _measure(parent, child, held)
    record = QuantizationRecord(
        scheme=scheme,
        arithmetic=integer_arithmetic(),
        saturates=saturates(),
        layers=len(quantizer.layers),
        float_layers=(
            *layers[:leading_float],
            *(each for each in choice.in_float if each not in layers[:leading_float]),
        ),
        leading_float=leading_float,
        steps=choice.steps,
        calibration_images=len(pictures),
        held_out_images=len(held),
        **found,
    )
    manifest = _manifest(bundle, record, name or f'{bundle.name}-int8', pictures, float_share)
    manifest['quantization']['check'] = _check(parent, child)
    if child.execution.provider != CPU:
        manifest['quantization']['made_on']['provider'] = child.execution.provider
    return write_bundle(folder, data, manifest), record


def _some(images: Iterable[Picture], what: str) -> list[Picture]:
    pictures: list[Picture] = []
    for picture in images:
        pictures.append(picture)
        if len(pictures) == MOST_CALIBRATION_IMAGES:
            break
    if not pictures:
        raise QuantizationError(f'no {what} image: give images of what the robot sees')
    if len(pictures) > 1 and len({picture_hash(each) for each in pictures}) == 1:
        raise QuantizationError(
            f'all {len(pictures)} {what} images are the same picture: ranges of one picture '
            'are too narrow for others; give images from all over a drive'
        )
    return pictures


def _leading(
    quantized: Callable[[int], bytes], layers: int, feeds: Feeds, execution_provider: str
) -> int:
    """Return how many layers at the start are surely faster in float, in the network as a whole."""
    chosen, best = 0, quantized(0)
    for number in range(1, min(MOST_LEADING, layers - 1) + 1):
        trial = quantized(number)
        calls = [
            partial(create_session(each, execution_provider=execution_provider).run, None, feeds)
            for each in (best, trial)
        ]
        times = by_turns(calls, rounds=_ROUNDS, runs=_RUNS, rng=np.random.default_rng(0))
        before, after = np.median(times, -1)
        if median_interval(before / after)[0] <= 1:
            break
        chosen, best = number, trial
    return chosen


def _child(parent: Detector, model: bytes, execution_provider: str) -> Detector:
    """Return the detector with another network, which nothing is known of yet."""
    bundle = replace(parent.bundle, onnx_bytes=model)
    return Detector(bundle, execution_provider=execution_provider)


def _measure(parent: Detector, child: Detector, pictures: Sequence[Picture]) -> dict[str, Any]:
    """Return what the record says of held-out pictures."""
    raw: tuple[list[Any], list[Any]] = ([], [])
    decoded: tuple[list[Candidates], list[Candidates]] = ([], [])
    counts = {'shown': 0, 'lost': 0, 'invented': 0}
    for picture in pictures:
        shown = []
        for which, detector in enumerate((parent, child)):
            raw[which].append(detector.outputs(picture))
            decoded[which].append(detector.decoded(raw[which][-1]))
            shown.append(detector.finished(raw[which][-1], picture.shape[:2]))
        in_float, in_8_bits = shown
        threshold = parent.settings.score_threshold
        decisions = match_objects(in_float, in_8_bits, score_threshold=threshold)
        for each in counts:
            counts[each] += len(getattr(decisions, each))
    same = all(len({one.shape for one in each}) == 1 for each in zip(*raw[0], *raw[1], strict=True))
    return {
        'divergence': divergence(*decoded),
        'output_error': relative_error(*raw) if same else None,
        **counts,
    }


def _manifest(
    bundle: Bundle,
    record: QuantizationRecord,
    name: str,
    pictures: Sequence[Picture],
    float_share: float,
) -> dict[str, Any]:
    manifest = {key: value for key, value in bundle.manifest.items() if key != 'onnx'}
    seen = Fingerprints.of(picture_hash(each) for each in pictures)
    provenance = bundle.manifest['provenance']
    earlier = provenance.get(SEEN) or {f'training of {bundle.name}': None}
    found = asdict(record)
    return {
        **manifest,
        'schema_version': QUANTIZED_SCHEMA_VERSION,
        'name': name,
        'parent': bundle.manifest['parent'] or {'name': bundle.name, 'sha256': bundle.sha256},
        'quantization': {
            'scheme': record.scheme,
            'source': {'name': bundle.name, 'sha256': bundle.sha256},
            'made_on': {
                'processor': processor_name(),
                'arithmetic': record.arithmetic,
                'engine': version(),
                'saturates': record.saturates,
            },
            'calibration': {
                'images': record.calibration_images,
                'sha256': calibration_sha256(pictures),
                'method': 'smallest and largest value',
                'float_share': float_share,
                'leading_float': record.leading_float,
            },
            'layers': record.layers,
            'float_layers': list(record.float_layers),
            'error': {
                key: found[key]
                for key in (
                    'held_out_images', 'divergence', 'output_error', 'shown', 'lost', 'invented',
                )
            },
        },
        'certificate': None,
        'evaluation': [],
        'latency': [],
        'provenance': {
            **provenance,
            'created': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
            'tool': f'pruned_perception {__version__}',
            SEEN: {**earlier, 'calibration in 8 bits': seen.to_dict()},
        },
    }  # fmt: skip


def _check(parent: Detector, child: Detector) -> list[dict[str, Any]]:
    """Return what a robot compares at load: outputs of the reference picture, and their slack."""
    spec = parent.bundle.input
    picture = reference_picture(spec.height, spec.width)
    entries = []
    for wanted, found in zip(parent.outputs(picture), child.outputs(picture), strict=True):
        here = sampled(found)
        gap = float(np.sqrt(np.mean((here.astype(float) - sampled(wanted)) ** 2)))
        entries.append({'values': packed(here), 'tolerance': _TOLERANCE * gap})
    return entries


def calibration_sha256(pictures: Sequence[Picture]) -> str:
    """Return the SHA-256 of the pictures that calibrate, as the manifest has it."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(picture_hash(picture))
    return digest.hexdigest()
