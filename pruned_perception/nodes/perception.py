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

"""The pipeline of `perception_node`: a bundle's detector, or those of a family under a budget."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pruned_perception.bundle import Bundle
from pruned_perception.errors import UserError
from pruned_perception.inference import Detector, FrameTimes, InferenceError, Settings
from pruned_perception.inference.encodings import image_from_message
from pruned_perception.inference.engine import run_options
from pruned_perception.inference.errors import BrokenOffError, DeviationError
from pruned_perception.inference.latency import NS_PER_MS
from pruned_perception.inference.latency_contract import LatencyContract, Spent
from pruned_perception.nodes import diagnostics, malloc
from pruned_perception.nodes.diagnostics import Filters, Watch
from pruned_perception.nodes.image_node import Result
from pruned_perception.nodes.parameters import ParameterError, class_ids

if TYPE_CHECKING:
    from pruned_perception.nodes.shadow import Shadow

CALIBRATION_S = 0.5
"""Most time for the runs beyond `LEAST_ROUNDS` that tell how long each member takes."""
LEAST_ROUNDS, MOST_ROUNDS = 5, 40
FAILURES = 2
"""In a row after which a member is not used any more; of one that took over just now, the first."""


def settings(bundle: Bundle, values: Mapping[str, Any]) -> Settings:
    """Return the detector's settings: the parameters, and the manifest's where they say so.

    Raises ParameterError for a class that the bundle does not have.
    """
    score, iou = values['score_threshold'], values['iou_threshold']
    return Settings(
        score_threshold=bundle.thresholds.score if score < 0 else score,
        iou_threshold=bundle.thresholds.iou if iou < 0 else iou,
        max_detections=values['max_detections'] or bundle.thresholds.max_detections,
        classes=class_ids(values['classes'], bundle.labels),
    )


def calibrate(detectors: Sequence[Detector]) -> list[float]:
    """Return the 90th percentile of each detector's run, ms, on noise; interleaved."""
    spec = detectors[0].bundle.input
    noise = np.random.default_rng(0).integers(0, 256, spec.shape).astype(spec.dtype)
    taken: list[list[float]] = [[] for _ in detectors]
    end = time.monotonic() + CALIBRATION_S
    for number in range(MOST_ROUNDS):
        if number >= LEAST_ROUNDS and time.monotonic() > end:
            break
        for detector, milliseconds in zip(detectors, taken, strict=True):
            start = time.monotonic_ns()
            detector.try_run(noise, run_options())
            milliseconds.append((time.monotonic_ns() - start) / NS_PER_MS)
    return [float(np.percentile(each, 90)) for each in taken]


def _max_pixels(values: Mapping[str, Any]) -> int:
    return round(values['max_megapixels'] * 1e6)


def _check_inputs(bundles: Sequence[Bundle]) -> None:
    """Raise UserError where a member has another input than the first: they take turns on frames.

    That the labels are the same, a family has been checked for.
    """
    first = bundles[0]
    for bundle in bundles[1:]:
        if replace(bundle.input, name='') != replace(first.input, name=''):
            raise UserError(
                f'{bundle.manifest_path}: field input: not that of {first.name}, so that '
                f'{bundle.name} cannot take its place (latency_budget_ms): make both alike, or '
                'choose one of them (parameter member)'
            )


@dataclass
class _Trial:
    """A run of another member after a frame, to see whether it would have fitted."""

    options: Any
    start_ns: int
    expected_ms: float
    slack_ms: float

    def hurry(self) -> None:
        """Break it off, unless it ends before the frame that came needs the processor."""
        left = self.expected_ms - (time.monotonic_ns() - self.start_ns) / NS_PER_MS
        if not 0 <= left <= self.slack_ms:
            self.options.terminate = True


class DetectorPipeline:
    """Decode the message, run a detector; see `image_node.Pipeline`.

    Args:
        bundles: the members to choose from, most accurate first; one where nothing is to be chosen.
        values: the node's parameters.
        trusted_keys: as for the bundles.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        values: Mapping[str, Any],
        trusted_keys: Sequence[str] = (),
    ) -> None:
        _check_inputs(bundles)
        self._left_out: dict[str, str] = {}
        self._load(bundles, values)
        self.labels = bundles[0].labels
        self.remark = (
            ''
            if values['trusted_keys']
            else 'trusted_keys is not set: a model is loaded whoever made it, signed or not'
        )
        self._costs_ms: list[float] = []
        self._contract: LatencyContract | None = None
        self._failures: dict[int, str] = {}
        self._before = self._current = 0
        self._failed_in_a_row = 0
        self._lost: deque[None] = deque()
        self._last_rx = 0
        self._trial: _Trial | None = None
        self._obeyed: tuple[float, str] | None = None
        self.apply(values)
        self._shadow: Shadow | None = None
        self._unwatched = ''
        if values['watch_share']:
            self._watch(values, trusted_keys)

    def _load(self, bundles: Sequence[Bundle], values: Mapping[str, Any]) -> None:
        """Make the detectors; a member in 8 bits that deviates here is left out of a family."""
        self._detectors = []
        for bundle in bundles:
            try:
                detector = Detector(
                    bundle,
                    threads=values['threads'],
                    time_limit_s=math.inf,  # the node watches over its own limits
                    execution_provider=values['execution_provider'],
                )
            except DeviationError as error:
                if len(bundles) == 1:
                    raise
                self._left_out[bundle.name] = str(error)
                continue
            # The session has its own copy of the weights.
            detector.bundle = replace(detector.bundle, onnx_bytes=b'')
            self._detectors.append(detector)
        self._describe()

    def _describe(self) -> None:
        self._names = [each.bundle.name for each in self._detectors]
        self._descriptions = [
            {
                'model': each.bundle.name,
                'sha256': each.bundle.sha256,
                'execution_provider': each.execution.provider,
                'nodes': each.execution.nodes_text,
                **({'instead': each.execution.warning} if each.execution.warning else {}),
            }
            for each in self._detectors
        ]

    # --- What the node asks ---------------------------------------------------------------------

    @property
    def description(self) -> Mapping[str, str]:
        """Name and SHA-256 of the member that runs."""
        return self._descriptions[self._current]

    @property
    def warnings(self) -> Sequence[str]:
        """What is not as asked for: providers that do not run, members that are left out."""
        said = dict.fromkeys(each.execution.warning for each in self._detectors)
        said |= {f'{name} is left out: {why}': None for name, why in self._left_out.items()}
        return [each for each in said if each]

    @property
    def score_threshold(self) -> float:
        """The score threshold in use."""
        return self._settings[self._current].score_threshold

    @property
    def filters(self) -> Filters:
        """What detections have to pass."""
        now = self._settings[self._current]
        labels = () if now.classes is None else tuple(self.labels[i] for i in sorted(now.classes))
        return Filters(now.score_threshold, now.iou_threshold, now.max_detections, labels)

    @property
    def contract(self) -> diagnostics.Contract | None:
        """How the budget is kept; None where there is nothing to choose."""
        if len(self._detectors) == 1:
            return None
        contract = self._contract
        names = self._names
        return diagnostics.Contract(
            member=names[self._current],
            pinned=contract is None,
            kept=contract is None or contract.kept,
            switches=0 if contract is None else contract.switches,
            expected_ms={}
            if contract is None
            else {name: contract.expected_ms(i) for i, name in enumerate(names)},
            failures={names[i]: reason for i, reason in self._failures.items()},
            left_out=self._left_out,
        )

    @property
    def watch(self) -> Watch | None:
        """How the certificate stands; None where it is not watched."""
        if self._shadow is not None:
            return self._shadow.state()
        return Watch(None, trouble=self._unwatched) if self._unwatched else None

    def _watch(self, values: Mapping[str, Any], trusted_keys: Sequence[str]) -> None:
        from pruned_perception.nodes.shadow import Shadow  # not for a start without it

        if len(self._detectors) > 1:
            self._unwatched = (
                'under latency_budget_ms the members change: choose one (parameter member), whose '
                'certificate is to be watched'
            )
            return
        try:
            self._shadow = Shadow(
                self._detectors[0].bundle, values['watch_share'], values['watch_file'], trusted_keys
            )
        except UserError as error:  # said, see `watch`: the robot sees nevertheless
            self._unwatched = str(error)

    def start(self) -> None:
        """Get ready to watch."""
        if self._shadow is not None:
            self._shadow.start()

    def stop(self) -> None:
        """End watching until `start`, and write what it found."""
        if self._shadow is not None:
            self._shadow.stop()

    def warm_up(self) -> None:
        """Run each detector once, give back the memory that loading took; calibrate a family.

        Raises InferenceError.
        """
        for detector in self._detectors:
            detector.warm_up(1)
        if len(self._detectors) > 1:
            self.self_check()
            self._costs_ms = calibrate(self._detectors)
            self._leave_out_what_is_slower()
            self._obey()
        malloc.give_back_unused()

    def _leave_out_what_is_slower(self) -> None:
        """Leave out members in 8 bits that take as long here as what they were made of."""
        costs = {
            each.bundle.sha256: cost
            for each, cost in zip(self._detectors, self._costs_ms, strict=True)
        }
        for at in reversed(range(len(self._detectors))):
            bundle, cost = self._detectors[at].bundle, self._costs_ms[at]
            source = (bundle.manifest.get('quantization') or {}).get('source', {})
            in_float = costs.get(source.get('sha256'), math.inf)
            if cost >= in_float:
                self._left_out[bundle.name] = (
                    f'{cost:.3g} ms in 8 bits, {source["name"]} {in_float:.3g} ms in float: INT8 '
                    'does not pay on this processor'
                )
                for each in (self._detectors, self._costs_ms, self._settings):
                    del each[at]
        self._describe()

    def self_check(self) -> None:
        """Look at what each detector makes of black, white and noise; raises InferenceError."""
        for detector in self._detectors:
            detector.self_check()

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise ParameterError where a class, or the member, is none of the model's."""
        wanted = values['active_member']
        if wanted in self._left_out:
            raise ParameterError(
                f'parameter active_member: {wanted!r} is left out here: {self._left_out[wanted]}'
            )
        if wanted and wanted not in self._names:
            raise ParameterError(
                f'parameter active_member: {wanted!r} is no member of this '
                f'model; it has {", ".join(self._names)}'
            )
        for detector in self._detectors:
            settings(detector.bundle, values)

    def apply(self, values: Mapping[str, Any]) -> None:
        """Use limits, thresholds, classes, budget and pin of `values` from the next frame on."""
        self._settings = [settings(detector.bundle, values) for detector in self._detectors]
        self._max_pixels = _max_pixels(values)
        self._asked = (values['latency_budget_ms'], values['active_member'])

    # --- Frames: in the worker's thread, but for `lost` and `hurry` -----------------------------

    def run(self, message: Any, times: FrameTimes) -> Result:
        """Detect in one image; raises ImageError or InferenceError."""
        image, order = image_from_message(message, self._max_pixels)
        if self._asked is not self._obeyed:
            self._obey()
        member = self._current
        self._used = self._settings[member]
        try:
            detections, _ = self._detectors[member].detect(image, order, self._used, times)
        except InferenceError as error:
            self._fail(member, error)
            raise
        self._failed_in_a_row = 0
        return Result(detections, self._descriptions[member], image, order)

    def lost(self) -> None:
        """Take notice of a frame that was superseded or stale; from any thread."""
        self._lost.append(None)

    def hurry(self) -> None:
        """Make way for a frame that has come; from any thread."""
        trial = self._trial
        if trial is not None:
            trial.hurry()

    def published(self, result: Result, times: FrameTimes, hurried: Callable[[], bool]) -> None:
        """Let the contract see the frame, and try another member; or the dense net, to watch."""
        contract = self._contract
        if contract is not None:
            self._judge(contract, times)
            if not hurried():
                self._try(contract, hurried)
            self._run_next(contract.member)
        if self._shadow is not None and result.image is not None:
            self._shadow.offer(result.image, result.order, result.detections, self._used, hurried())

    def _judge(self, contract: LatencyContract, times: FrameTimes) -> None:
        gap = (times.t_rx - self._last_rx) / NS_PER_MS if self._last_rx else math.nan
        self._last_rx = times.t_rx
        lost = len(self._lost)
        for _ in range(lost):
            self._lost.popleft()
            contract.finished(None, True)
        spent = Spent(
            age=(times.latency - (times.t_pub - times.t_rx)) / NS_PER_MS,
            work=(times.t_pub - times.t_rx - times.engine_wait - times.inference) / NS_PER_MS,
            run=times.inference / NS_PER_MS,
            period=gap / (1 + lost),
        )
        contract.finished(spent, times.latency / NS_PER_MS > contract.budget_ms)

    def _try(self, contract: LatencyContract, hurried: Callable[[], bool]) -> None:
        member = contract.candidate()
        if member is None:
            return
        start = time.monotonic_ns()
        self._trial = _Trial(
            run_options(), start, contract.expected_run_ms(member), contract.slack_ms
        )
        try:
            if hurried():  # it came before there was a trial to break off
                return
            tensor = self._detectors[self._current].tensor
            self._detectors[member].try_run(tensor, self._trial.options)
        except BrokenOffError:
            contract.tried(member, None)
        except InferenceError as error:
            self._failures[member] = str(error)
            contract.exclude(member)
        else:
            contract.tried(member, (time.monotonic_ns() - start) / NS_PER_MS)
        finally:
            self._trial = None

    def _obey(self) -> None:
        """Take over budget and pin; a contract starts from what calibration found."""
        self._obeyed = self._asked
        budget, pin = self._asked
        self._contract = None
        if pin in self._names:
            member = self._names.index(pin)
            self._failures.pop(member, None)
            self._run_next(member)
        elif len(self._names) > 1 and budget:
            self._contract = LatencyContract(self._costs_ms, budget)
            for member in self._failures:
                self._contract.exclude(member)
            self._lost.clear()
            self._last_rx = 0
            self._run_next(self._contract.member)

    def _run_next(self, member: int) -> None:
        if member != self._current:
            self._before, self._current = self._current, member
            self._failed_in_a_row = FAILURES - 1

    def _fail(self, member: int, error: InferenceError) -> None:
        """Fall back to the member before, where there is one and this one fails for good."""
        self._failed_in_a_row += 1
        once_is_enough = isinstance(error, BrokenOffError)
        if self._failed_in_a_row < FAILURES and not once_is_enough:
            return
        others = [i for i in range(len(self._detectors)) if i not in (member, *self._failures)]
        if not others:
            return
        self._failures[member] = str(error)
        if self._contract is not None:
            self._contract.exclude(member)
            self._run_next(self._contract.member)
        else:
            self._run_next(self._before if self._before in others else others[0])
