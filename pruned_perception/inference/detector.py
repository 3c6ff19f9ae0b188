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

"""The detector: a verified bundle in ONNX Runtime, from image to boxes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.bundle import Bundle
from pruned_perception.inference import decoders, engine, graph, reference
from pruned_perception.inference.detections import Candidates, Detections
from pruned_perception.inference.errors import DeviationError, InferenceError
from pruned_perception.inference.frame_times import FrameTimes
from pruned_perception.inference.nms import class_wise_nms
from pruned_perception.inference.preprocess import (
    Placement,
    Preprocessor,
    boxes_to_source,
    place,
)
from pruned_perception.inference.processor import integer_arithmetic, processor_name
from pruned_perception.inference.providers import CPU
from pruned_perception.inference.runs import TIME_LIMIT_S

MOST_CANDIDATES = 5000
"""Of one frame; the suppression takes time with their square, 0.15 s for as many.

Those with the highest scores are taken; the shipped detectors have 2,268 cells.
"""

_ROUNDING = 1e-3  # of scores, as quantised networks have it
_TYPES = {'uint8': 'tensor(uint8)', 'float32': 'tensor(float)', 'float16': 'tensor(float16)'}


@dataclass(frozen=True)
class Settings:
    """What may change while the detector runs; `classes` None means all."""

    score_threshold: float
    iou_threshold: float
    max_detections: int
    classes: frozenset[int] | None = None


class Detector:
    """Runs one bundle; not for use by two threads at once.

    Parameters
    ----------
    bundle
        The verified bundle.
    threads
        Threads within one run of the network.
    allow_spinning
        Let these threads spin while they wait: lower latency on a machine with idle cores.
    time_limit_s
        Seconds after which loading, or a run, is broken off.
    execution_provider
        Where the network runs; see `inference.providers`. `execution` says where it does.

    Raises
    ------
    InferenceError
        The network's inputs and outputs are not those of the manifest, the decoder is unknown or
        does not fit, or ONNX Runtime does not load the model.
    ProviderError
        No execution provider that was asked for loads.
    DeviationError
        A quantised network computes something else on this processor than where it was made.

    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 1,
        allow_spinning: bool = False,
        time_limit_s: float = TIME_LIMIT_S,
        execution_provider: str = CPU,
    ) -> None:
        self.bundle = bundle
        self._time_limit_s = time_limit_s
        self.settings = Settings(
            bundle.thresholds.score, bundle.thresholds.iou, bundle.thresholds.max_detections
        )
        try:
            self._decoder = decoders.get(bundle.output.decoder)
        except InferenceError as error:
            raise InferenceError(f'{bundle.manifest_path}: field output.decoder: {error}') from None
        self._parameters = bundle.output.parameters
        self._input_size = (bundle.input.height, bundle.input.width)
        self._output_names = list(bundle.output.names)
        self._preprocess = Preprocessor(bundle.input)
        self.tensor = np.zeros(bundle.input.shape, bundle.input.dtype)
        """The network's input in the last call of `detect`: a buffer that the next one fills."""
        # OpenCV would take all cores for a resize of a tenth of a millisecond.
        cv2.setNumThreads(threads)
        self._session = engine.create_session(
            bundle.onnx_bytes,
            threads=threads,
            allow_spinning=allow_spinning,
            name=str(bundle.onnx_path),
            time_limit_s=time_limit_s,
            execution_provider=execution_provider,
        )
        self.execution = self._session.execution
        self._constants = self._check_input()
        self._fixed = {node.name: node.shape for node in self._session.get_outputs()}
        self._add_batch = False
        self._check_outputs()
        self._check_arithmetic()

    def warm_up(self, runs: int = 3) -> None:
        """Run `runs` detections on a grey image, so that no allocation falls on the first frame."""
        grey = np.full((*self._input_size, 3), 114, np.uint8)
        for _ in range(runs):
            self.detect(grey)

    def self_check(self) -> None:
        """Run a black, a white and a noisy image, and look at what no threshold hides.

        Raises InferenceError where an output is not finite, or a score outside 0 … 1.
        """
        noise = np.random.default_rng(0).integers(0, 256, (*self._input_size, 3), np.uint8)
        for image in (np.zeros_like(noise), np.full_like(noise, 255), noise):
            outputs = self._run(self._preprocess(image, 'rgb')[0])
            self._check_finite(outputs)
            self._check_candidates(self.decoded(outputs))

    def detect(
        self,
        image: NDArray[np.uint8],
        order: str = 'bgr',
        settings: Settings | None = None,
        times: FrameTimes | None = None,
    ) -> tuple[Detections, FrameTimes]:
        """Detect objects in one image.

        Parameters
        ----------
        image
            uint8 (H, W, 3) with `order` 'rgb' or 'bgr', or (H, W) with 'gray'.
        order
            The order of the image's channels.
        settings
            Thresholds for this call; `self.settings` by default.
        times
            The moments of a frame on its way, to go on with; new ones that start now by default.

        Returns
        -------
        The objects, and the times with t_pre, t_inf and t_post set.

        Raises
        ------
        ImageError
            The image's shape, type or size cannot be used.
        InferenceError
            The run failed or was broken off, or an output is not finite.

        """
        settings = self.settings if settings is None else settings
        times = FrameTimes(t_start=time.monotonic_ns()) if times is None else times
        tensor, placement = self._preprocess(image, order)
        times.t_pre = time.monotonic_ns()
        self.tensor = tensor
        outputs = self._run(tensor)
        times.t_inf = time.monotonic_ns()
        self._check_finite(outputs)
        height, width = image.shape[:2]
        with np.errstate(over='ignore', invalid='ignore'):  # absurd but finite outputs
            detections = self._finish(outputs, placement, height, width, settings)
        times.t_post = time.monotonic_ns()
        return detections, times

    def try_run(self, tensor: NDArray[Any], options: Any) -> None:
        """Run the network alone, on the `tensor` of a detector of the same input.

        Raises InferenceError where that fails, where it is broken off by `options`
        (`engine.run_options`), or where an output is not finite.
        """
        self._check_finite(self._run(tensor, options))

    def outputs(self, image: NDArray[np.uint8], order: str = 'bgr') -> list[NDArray[Any]]:
        """Return the network's own outputs for an image, before decoding; see `detect`."""
        outputs = self._run(self._preprocess(image, order)[0])
        self._check_finite(outputs)
        return outputs

    def feeds(self, image: NDArray[np.uint8], order: str = 'bgr') -> dict[str, NDArray[Any]]:
        """Return what the graph takes for an image, by name; see `detect`."""
        return {
            self.bundle.input.name: self._preprocess(image, order)[0].copy(),
            **self._constants,
        }

    def decoded(self, outputs: Sequence[NDArray[Any]]) -> Candidates:
        """Return all candidates of raw outputs, whatever their score, in pixels of the input."""
        with np.errstate(over='ignore', invalid='ignore'):
            return self._decoder.decode(outputs, self._parameters, self._input_size, -math.inf)

    def finished(self, outputs: Sequence[NDArray[Any]], size: tuple[int, int]) -> Detections:
        """Return the detections of raw outputs for an image of (height, width) pixels."""
        placement = place(self.bundle.input, *size)
        with np.errstate(over='ignore', invalid='ignore'):
            return self._finish(outputs, placement, *size, self.settings)

    def _finish(
        self,
        outputs: Sequence[NDArray[Any]],
        placement: Placement,
        height: int,
        width: int,
        settings: Settings,
    ) -> Detections:
        """Return what remains of the outputs: decoded, suppressed, in pixels of the source."""
        candidates = self._decoder.decode(
            outputs, self._parameters, self._input_size, settings.score_threshold
        )
        self._check_candidates(candidates)
        if settings.classes is not None:
            candidates = _only(candidates, np.isin(candidates.class_ids, list(settings.classes)))
        left_out = max(0, len(candidates.scores) - MOST_CANDIDATES)
        if left_out:
            best = np.argsort(-candidates.scores, kind='stable')[:MOST_CANDIDATES]
            candidates = _only(candidates, best)
        keep = class_wise_nms(*candidates, settings.iou_threshold, settings.max_detections)
        boxes = boxes_to_source(candidates.boxes[keep], placement, height, width)
        # What lay in a letterbox's border has no extent left.
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        keep = keep[inside]
        return Detections(
            boxes[inside], candidates.scores[keep], candidates.class_ids[keep], left_out
        )

    def _run(self, tensor: NDArray[Any], options: Any = None) -> list[NDArray[Any]]:
        outputs = engine.run(
            self._session,
            self._output_names,
            {self.bundle.input.name: tensor, **self._constants},
            name=str(self.bundle.onnx_path),
            time_limit_s=self._time_limit_s,
            options=options,
        )
        named = dict(zip(self._output_names, outputs, strict=True))
        outputs = graph.one_image(named, self.bundle.input, self._fixed)
        return [output[None] for output in outputs] if self._add_batch else outputs

    def _check_finite(self, outputs: Sequence[NDArray[Any]]) -> None:
        for name, output in zip(self._output_names, outputs, strict=True):
            if not _all_finite(output):
                raise InferenceError(
                    f'{self.bundle.onnx_path}: output {name!r} holds NaN or infinity; the model '
                    'is damaged or the input normalisation of its manifest is wrong'
                )

    def _check_candidates(self, candidates: Candidates) -> None:
        boxes, scores, _ = candidates
        if len(scores) and not (scores.min() >= -_ROUNDING and scores.max() <= 1 + _ROUNDING):
            raise InferenceError(
                f'{self.bundle.onnx_path}: scores from {scores.min():.4g} to {scores.max():.4g}; '
                f'decoder {self.bundle.output.decoder!r} needs them in 0 … 1: does the graph '
                'return logits, or per cent?'
            )
        if not _all_finite(boxes):
            raise InferenceError(
                f'{self.bundle.onnx_path}: boxes that are not finite; is '
                f'{self.bundle.output.decoder!r} the right decoder?'
            )
        count = len(self.bundle.labels)
        if len(candidates.class_ids) and candidates.class_ids.max() >= count:
            raise InferenceError(
                f'{self.bundle.manifest_path}: field labels: {count} labels, but '
                f'{self.bundle.onnx_path.name} returned class {candidates.class_ids.max()}'
            )

    def _check_arithmetic(self) -> None:
        quantization = self.bundle.manifest.get('quantization')
        if quantization is None:
            return
        try:
            found = reference.deviations(
                quantization['check'], self.outputs(reference.reference_picture(*self._input_size))
            )
        except ValueError as error:
            raise InferenceError(
                f'{self.bundle.manifest_path}: field quantization.check: {error}'
            ) from None
        worst = max(found, key=lambda each: each[0] - each[1])
        if worst[0] > worst[1]:
            made_on = quantization['made_on']
            way_out = 'quantise it again for this processor (`pruned-perception quantize`), or '
            if self.execution.provider != CPU:  # whose kernels it was made by
                way_out = f'run it by execution_provider {CPU}, or '
            raise DeviationError(
                f'{self.bundle.onnx_path}: computes something else on this processor '
                f'({processor_name()}, {integer_arithmetic()}, {self.execution.provider}) than '
                f'where it was quantised ({made_on["processor"]}, {made_on["arithmetic"]}): '
                f'outputs of the reference picture are off by {worst[0]:.3g}, at most '
                f'{worst[1]:.3g} is allowed; {way_out}use {quantization["source"]["name"]}'
            )

    def _check_input(self) -> dict[str, NDArray[Any]]:
        """Return the graph's inputs beside the image, by name."""
        spec, file = self.bundle.input, self.bundle.manifest_path
        inputs = {node.name: node for node in self._session.get_inputs()}
        if set(inputs) != {spec.name, *spec.constants}:
            others = f' and {", ".join(spec.constants)} (input.constants)' * bool(spec.constants)
            raise InferenceError(
                f'{file}: field input.name: {spec.name!r}{others}, but the inputs of '
                f'{self.bundle.onnx_path.name} are {list(inputs)}'
            )
        node = inputs[spec.name]
        if node.type != _TYPES[spec.dtype]:
            raise InferenceError(
                f'{file}: field input.dtype: {spec.dtype!r}, but {spec.name!r} of '
                f'{self.bundle.onnx_path.name} is {node.type}'
            )
        fits = len(node.shape) == len(spec.shape) and all(
            not isinstance(have, int) or have == want
            for have, want in zip(node.shape, spec.shape, strict=True)
        )
        if not fits:
            raise InferenceError(
                f'{file}: field input.shape: {list(spec.shape)}, but {spec.name!r} of '
                f'{self.bundle.onnx_path.name} is {node.shape}'
            )
        try:
            return {
                name: graph.constant(inputs[name], values)
                for name, values in spec.constants.items()
            }
        except ValueError as error:
            raise InferenceError(
                f'{file}: field input.constants: of {self.bundle.onnx_path.name}, {error}'
            ) from None

    def _check_shapes(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Raise ValueError where the decoder does not take the outputs.

        Those of a graph that takes an image, not a batch, may lack that dimension, too.
        """
        count = len(self.bundle.labels)
        try:
            self._decoder.check(shapes, self._parameters, self._input_size, count)
        except ValueError:
            if 'N' in self.bundle.input.layout:
                raise
            batched = [(1, *shape) for shape in shapes]
            self._decoder.check(batched, self._parameters, self._input_size, count)
            self._add_batch = True

    def _check_outputs(self) -> None:
        file = self.bundle.manifest_path
        have = {node.name: tuple(node.shape) for node in self._session.get_outputs()}
        missing = [name for name in self._output_names if name not in have]
        if missing:
            raise InferenceError(
                f'{file}: field output.names: {missing[0]!r} is no output of '
                f'{self.bundle.onnx_path.name}; it has {list(have)}'
            )
        shapes = [have[name] for name in self._output_names]
        spec = self.bundle.input
        whole = all(isinstance(size, int) for shape in shapes for size in shape)
        if spec.batch > 1 or not whole:
            # Where the graph's dimensions are symbolic, one run tells the true ones.
            shapes = [output.shape for output in self._run(np.zeros(spec.shape, spec.dtype))]
        try:
            self._check_shapes(shapes)
        except KeyError as error:
            raise InferenceError(
                f'{file}: field output.parameters: decoder {self.bundle.output.decoder!r} needs '
                f'{error}'
            ) from None
        except (TypeError, ValueError) as error:
            raise InferenceError(
                f'{file}: decoder {self.bundle.output.decoder!r} with {len(self.bundle.labels)} '
                f'labels does not fit {self.bundle.onnx_path.name}: {error}'
            ) from None


def _all_finite(values: NDArray[Any]) -> bool:
    """Tell whether no value is NaN or infinity: in one fast pass, as the sum carries them."""
    if math.isfinite(np.add.reduce(values, axis=None)):
        return True
    return bool(np.isfinite(values).all())  # large ones may have summed up to infinity


def _only(candidates: Candidates, index: NDArray[Any]) -> Candidates:
    boxes, scores, class_ids = candidates
    return Candidates(boxes[index], scores[index], class_ids[index])
