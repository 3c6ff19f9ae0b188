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

"""The lifecycle node around a pipeline from images to detections: topics, worker, reports.

`perception_node` and `echo_node` are this node with different pipelines, so that what they differ
by is the network alone.
"""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from lifecycle_msgs.msg import Transition
from numpy.typing import NDArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import (
    LifecycleNode,
    LifecycleNodeMixin,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from rclpy.timer import Timer
from sensor_msgs.msg import Image
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray, LabelInfo

from pruned_perception._watchdog import end_now
from pruned_perception.errors import UserError
from pruned_perception.inference import runs
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.errors import ImageError
from pruned_perception.inference.frame_times import FrameTimes, age_ns
from pruned_perception.inference.latency import NS_PER_MS
from pruned_perception.nodes import diagnostics, messages, qos
from pruned_perception.nodes.garbage import BetweenFrames
from pruned_perception.nodes.header_stamps import stamp_ns
from pruned_perception.nodes.image_input import ImageInput
from pruned_perception.nodes.latest_frame import PUBLISHED
from pruned_perception.nodes.parameter_declaration import NodeParameters
from pruned_perception.nodes.parameters import Parameter
from pruned_perception.nodes.reporter import Reporter
from pruned_perception.nodes.timings_file import TimingsFile
from pruned_perception.nodes.worker import Background, Worker

REPORT_S = 1.0
WATCH_S = 0.2
"""How often the node looks at what its threads are busy with."""
PATIENCE_S = 0.25
"""A deactivation waits so long for the frame in hand, and once more after breaking off its run."""
GRACE_S = 1.0
"""From breaking off a run to the end of a process in which that did not help."""
FAREWELL_S = 1.0
"""From the state `finalized` to the end of the process: others can see it, and get the answer."""
_DEPTH = 10
_CONFIGURE = ('configure', Transition.TRANSITION_CONFIGURE)
_ACTIVATE = ('activate', Transition.TRANSITION_ACTIVATE)
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class Result(NamedTuple):
    """What a pipeline made of one message."""

    detections: Detections
    made_by: Mapping[str, str]
    """The `description` of the model that made it."""
    image: NDArray[np.uint8] | None = None
    """The decoded image, to draw on; None: the pipeline has none."""
    order: str = 'bgr'


class Pipeline(Protocol):
    """From an image message to detections; made anew by each configuration."""

    @property
    def labels(self) -> Sequence[str]:
        """The names of the classes."""

    @property
    def description(self) -> Mapping[str, str]:
        """`model`, the name of the one that runs, and its `sha256`."""

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise a UserError where the parameters `values` do not fit this model."""

    def apply(self, values: Mapping[str, Any]) -> None:
        """Use the live parameters `values` from the next frame on."""

    @property
    def remark(self) -> str:
        """What a user should know about this configuration; '' for nothing."""

    @property
    def warnings(self) -> Sequence[str]:
        """What is not as the user asked for it, in words."""

    @property
    def filters(self) -> diagnostics.Filters | None:
        """What detections have to pass; None where they pass nothing."""

    @property
    def watch(self) -> diagnostics.Watch | None:
        """What is known against the model's certificate; None where it is not watched."""

    @property
    def contract(self) -> diagnostics.Contract | None:
        """How a latency budget is kept by a choice of models; None where there is no choice."""

    def start(self) -> None:
        """Get ready for frames, at each activation."""

    def stop(self) -> None:
        """End what goes on beside the frames, at each deactivation."""

    def published(self, result: Result, times: FrameTimes, hurried: Callable[[], bool]) -> None:
        """Take notice of a frame after it was published; `hurried()`: the next one waits already.

        What this does until then makes way when `hurry` is called.
        """

    def lost(self) -> None:
        """Take notice of a frame that was superseded or stale; from any thread."""

    def hurry(self) -> None:
        """Take notice of a frame that waits now; from any thread."""

    def warm_up(self) -> None:
        """Run once, so that the first frame is not the slowest; UserError where that fails."""

    def self_check(self) -> None:
        """Raise UserError where the model returns nonsense."""

    @property
    def score_threshold(self) -> float:
        """The score threshold in use."""

    def run(self, message: Any, times: FrameTimes) -> Result:
        """Detect in an Image or CompressedImage, and set t_pre, t_inf and t_post of its `times`.

        UserError where that is impossible.
        """


class Loaded(NamedTuple):
    """A pipeline that has run once, and the values of `loaded_by` that it was made from."""

    pipeline: Pipeline
    loaded_from: tuple[Any, ...]


class Frame(NamedTuple):
    """A received message and its moments."""

    message: Any
    times: FrameTimes


class ImageNode(LifecycleNode):
    """Subscribes to images, runs a pipeline on the newest one, publishes what it found.

    `table` are the node's parameters; `load` makes the pipeline from their values and raises
    UserError where it cannot; so does `look`, quickly, where it sees that `load` could not. Values
    of which `load_key` differs ask for another pipeline. `node_options` are rclpy's own, such as
    `namespace`.
    """

    def __init__(
        self,
        name: str,
        table: Sequence[Parameter],
        load: Callable[[Mapping[str, Any]], Pipeline],
        load_key: Callable[[Mapping[str, Any]], tuple[Any, ...]] = lambda _: (),
        look: Callable[[Mapping[str, Any]], None] = lambda _: None,
        **node_options: Any,
    ) -> None:
        # A transition that waits for the model would otherwise hold up the services beside it.
        Node.__init__(self, name, **node_options)
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self._load = load
        self._load_key = load_key
        self._look = look
        self._loaded_from: tuple[Any, ...] | None = None
        self._loading: Background[Loaded] | None = None
        self._loaded: Background[Loaded] | None = None
        self._pipeline: Pipeline | None = None
        self._warned_of: Pipeline | None = None
        self._swap: Background[Loaded] | None = None
        self._next: Loaded | None = None
        self._not_swapped: tuple[tuple[Any, ...], str] = (), ''
        self._abandoned: list[Background[Loaded]] = []
        self._input: ImageInput | None = None
        self._worker: Worker[Frame] | None = None
        self._left_behind: list[Worker[Frame] | Background[Loaded]] = []
        self._overdue: float | None = None
        self._outputs: list[Any] = []
        self._timings: TimingsFile | None = None
        self._active = self._announced = self._remarked = self._finalized = False
        self.garbage = BetweenFrames()
        self.finished: Future[UserError | None] = Future()
        """Done where the node has no further use, with the reason if that is an error: some time
        after a shutdown, or after it was seen that nothing can arrive any more."""
        self._farewell: Timer | None = None
        self.parameters = NodeParameters(
            self,
            table,
            is_active=lambda: self._active,
            refuse=self._refuse,
            changed=self._parameters_changed,
        )
        self._reporter = Reporter(self, _DEPTH)
        # Timers of the node's clock stand still without /clock, and these report that.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(REPORT_S, self._report, clock=self._steady)
        self.create_timer(WATCH_S, self._watch, clock=self._steady)
        self._wake = self.create_guard_condition(lambda: None)
        self._swap_ended = self.create_guard_condition(self._on_swap_ended)
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state

    # --- Life cycle -----------------------------------------------------------------------------

    async def start(self) -> None:
        """Configure and activate if `autostart` is set; raises UserError where that fails."""
        if not self.parameters['autostart']:
            return
        await self._load_first()
        if self.trigger_configure() != SUCCESS or self.trigger_activate() != SUCCESS:
            raise UserError('autostart failed, see the error above')

    def stop(self) -> None:
        """End the worker, and flush the timings, whatever state the node is in."""
        self._end_work()
        if self._loading is not None or self._abandoned:
            runs.break_off_all()
            for each in (self._loading, *self._abandoned):
                if each is not None:
                    each.wait(PATIENCE_S)

    @property
    def is_stuck(self) -> bool:
        """Whether a thread of the node does not end."""
        threads = (*self._left_behind, *self._abandoned, self._worker, self._loading)
        return any(each.alive for each in threads if each is not None)

    async def _on_change_state(self, request: Any, response: Any) -> Any:
        """Load what a transition needs, then make it: no other callback waits for a model."""
        wanted = request.transition.label or request.transition.id
        configured = self._pipeline is not None
        needs_a_model = (wanted in _CONFIGURE and not configured and not self._finalized) or (
            wanted in _ACTIVATE and configured and not self._active and self._is_stale()
        )
        if needs_a_model:
            if self._loading is not None:
                self.get_logger().error(f'cannot {wanted}: a model is being loaded already')
                response.success = False
                return response
            await self._load_first()
        response = self._change_state(request, response)
        self._loaded = None  # where another transition came before this one
        return response

    async def _load_first(self) -> None:
        """Load the model in a thread for the transition that follows, which raises its errors."""
        ended: Future[None] = Future()
        self._given_up = ended

        def wake() -> None:
            ended.set_result(None)
            self._wake.trigger()

        self._loading = self._start_loading(wake)
        await ended
        self._loaded, self._loading = self._loading, None
        if self._loaded.alive:
            self._left_behind.append(self._loaded)

    def _start_loading(
        self, ended: Callable[[], None] = lambda: None, *, checked: bool = False
    ) -> Background[Loaded]:
        values = self.parameters.values

        def load() -> Loaded:
            pipeline = self._load(values)
            pipeline.check(values)
            pipeline.warm_up()
            if checked:
                pipeline.self_check()
            return Loaded(pipeline, self._load_key(values))

        return Background(load, ended)

    def _take_pipeline(self) -> None:
        """Use the pipeline that was loaded for this transition; load it now where none was."""
        loaded, self._loaded = self._loaded, None
        limit = self.parameters['load_limit_s']
        if loaded is None:
            loaded = self._start_loading()
            if not loaded.wait(limit):
                runs.break_off_all()
                loaded.wait(PATIENCE_S)
            if loaded.alive:
                self._left_behind.append(loaded)
        late = f'the model was not loaded and warmed up within {limit:g} s (load_limit_s)'
        if loaded.alive:
            raise UserError(f'{late}: one that does not end, or too large for this machine')
        try:
            pipeline, loaded_from = loaded.result()
        except UserError as error:
            if loaded.took > limit:
                raise UserError(f'{late}: {error}') from error
            raise
        pipeline.check(self.parameters.values)  # which may have changed meanwhile
        self._pipeline, self._loaded_from = pipeline, loaded_from

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, create the publishers."""
        return self._transition('configure', lambda: self._configure(state))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images and start the worker."""
        return self._transition('activate', lambda: self._activate(state))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the subscription, wait a moment for the frame in hand, stop the worker."""
        self._end_work()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of model and publishers."""
        self._release()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop work and let go of everything; the node has no further use, see `finished`."""
        self._end_work()
        self._release()
        self._finalized = True
        self._finish_soon()
        return SUCCESS

    def _finish_soon(self, reason: UserError | None = None) -> None:
        """Be finished once what was said last has gone out."""

        def finish() -> None:
            if not self.finished.done():
                self.finished.set_result(reason)

        if self._farewell is None:
            self._farewell = self.create_timer(FAREWELL_S, finish, clock=self._steady)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to the unconfigured state after a defect in a transition."""
        self._end_work()
        self._release()
        return SUCCESS

    def _transition(
        self, name: str, action: Callable[[], TransitionCallbackReturn]
    ) -> TransitionCallbackReturn:
        """Run a transition: a UserError is logged and refuses it."""
        try:
            return action()
        except UserError as error:
            self.get_logger().error(f'cannot {name}: {error}')
            return FAILURE
        except Exception:
            self.get_logger().error(f'{name} failed:\n{traceback.format_exc()}')
            raise

    def _configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._take_pipeline()
            self._create_outputs()
            name = self.parameters['timings_file']
            self._timings = TimingsFile(name) if name else None
        except UserError:
            self._release()
            raise
        return super().on_configure(state)

    def _activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self._is_stale():
            self._take_pipeline()
        pipeline = self._pipeline
        assert pipeline is not None
        result = super().on_activate(state)
        self._apply_parameters()
        self._name_classes(pipeline)
        self._reporter.reset()
        self._announced = False
        self._active = True
        self._publish_labels()
        self._announce_model(pipeline.description, None)
        pipeline.start()
        self._worker = Worker(self._process, self._on_dropped)
        self._input = ImageInput(
            self,
            self.parameters['image_transport'],
            self.parameters['image_reliability'],
            self._on_image,
            self._on_malformed,
        )
        return result

    def _is_stale(self) -> bool:
        """Tell whether the parameters ask for another pipeline than the one that there is."""
        return self._loaded_from != self._load_key(self.parameters.values)

    def _create_outputs(self) -> None:
        self._detections = self._output(Detection2DArray, 'detections', qos.reliable(_DEPTH))
        self._labels = self._output(LabelInfo, 'label_info', qos.latched())
        self._active_model = self._output(String, '~/active_model', qos.latched())
        self._annotated = self._output(Image, '~/annotated_image', qos.reliable(1))

    def _output(self, type_: Any, topic: str, profile: QoSProfile) -> Any:
        with qos.explained(self.resolve_topic_name(topic)):
            publisher = self.create_lifecycle_publisher(
                type_, topic, profile, qos_overriding_options=qos.overridable()
            )
        self._outputs.append(publisher)
        return publisher

    def _end_work(self) -> None:
        self._active = False
        if self._swap is not None:
            self._abandon_swap()
        self._next = None  # the next activation loads what the parameters ask for
        if self._input is not None:
            self._input.close()
            self._input = None
        worker, self._worker = self._worker, None
        if worker is not None and not worker.end(PATIENCE_S):
            runs.break_off_all()
            if not worker.end(PATIENCE_S):
                worker.left_behind = True
                self._left_behind.append(worker)
                self._loaded_from = None  # it still uses the pipeline: the next one gets another
                self.get_logger().error('the frame in hand does not end, and is left behind')
        if worker is not None and self._pipeline is not None:
            self._pipeline.stop()
        self._write_timings()

    def _release(self) -> None:
        for publisher in self._outputs:
            self.destroy_lifecycle_publisher(publisher)
        self._outputs.clear()
        self._pipeline, self._loaded_from = None, None
        self._timings = None

    # --- Parameters -----------------------------------------------------------------------------

    def _refuse(self, changes: Mapping[str, Any]) -> None:
        values = {**self.parameters.values, **changes}
        # Values for a model that is yet to be loaded are checked when it is.
        if self._pipeline is not None and self._loaded_from == self._load_key(values):
            self._pipeline.check(values)
        elif self._active:
            self._look(values)

    def _parameters_changed(self, changes: Mapping[str, Any]) -> None:
        if not self._active:
            return
        try:
            self._apply_parameters()
        except UserError:  # they are of the model that is to come
            if not self._is_stale():
                raise
        if 'score_threshold' in changes:
            self._publish_labels()
        self._swap_if_stale()

    def _apply_parameters(self) -> None:
        self._max_age_ns = round(self.parameters['max_age_ms'] * NS_PER_MS)
        self._reporter.recorder.budget_ms = self.parameters['latency_budget_ms'] or None
        assert self._pipeline is not None
        self._pipeline.apply(self.parameters.values)

    def _publish_labels(self) -> None:
        assert self._pipeline is not None
        stamp = self.get_clock().now().to_msg()
        threshold = self._announced_threshold = self._pipeline.score_threshold
        self._labels.publish(messages.label_info(stamp, self._pipeline.labels, threshold))

    # --- Another pipeline while the node is active ----------------------------------------------

    def _swap_if_stale(self) -> None:
        """Load another pipeline beside the one that runs, where the parameters ask for one."""
        wanted = self._load_key(self.parameters.values)
        if self._swap is not None or not self._active or wanted == self._not_swapped[0]:
            return  # a swap that has ended looks again
        self._not_swapped = (), ''
        coming = self._next
        if wanted != (self._loaded_from if coming is None else coming.loaded_from):
            self._next = None
            if self._is_stale():
                self._swap = self._start_loading(self._swap_ended.trigger, checked=True)

    def _on_swap_ended(self) -> None:
        """Hand what was loaded to the worker; where that failed, the old one goes on."""
        swap = self._swap
        if swap is None or swap.alive:
            return
        self._swap = None
        values = self.parameters.values
        try:
            loaded = swap.result()
            if loaded.loaded_from == self._load_key(values):
                loaded.pipeline.check(values)
                self._next = loaded
        except Exception as error:
            known = isinstance(error, UserError)
            self._do_not_swap(str(error) if known else traceback.format_exc())
        self._swap_if_stale()  # they may ask for yet another one by now

    def _do_not_swap(self, reason: str) -> None:
        self._not_swapped = self._load_key(self.parameters.values), reason
        self.get_logger().error(f'the model is not changed: {reason}')

    def _abandon_swap(self) -> None:
        """Break off the loading; a thread that does not end is left alone, the node goes on."""
        assert self._swap is not None
        runs.break_off_all(self._swap.thread)
        self._abandoned.append(self._swap)
        self._swap = None

    def _watch_swap(self) -> None:
        self._abandoned = [each for each in self._abandoned if each.alive]
        for each in self._abandoned:
            runs.break_off_all(each.thread)  # again: it may have been between two runs
        limit = self.parameters['load_limit_s']
        if self._swap is not None and self._swap.seconds > limit:
            self._abandon_swap()
            self._do_not_swap(
                f'it was not loaded, warmed up and checked within {limit:g} s (load_limit_s): one '
                'that does not end, or too large for this machine'
            )

    def _take_over(self) -> None:
        """Change to the pipeline that waits; between two frames, in the worker's thread."""
        new, self._next = self._next, None
        if new is None:
            return
        old = self._pipeline
        assert old is not None
        try:
            new.pipeline.apply(self.parameters.values)
        except UserError as error:  # changed since they were checked
            self._do_not_swap(str(error))
            return
        new.pipeline.start()
        self._name_classes(new.pipeline)
        self._pipeline, self._loaded_from = new
        self._publish_labels()
        threading.Thread(target=old.stop, name='retire', daemon=True).start()

    def _name_classes(self, pipeline: Pipeline) -> None:
        labels, by_name = pipeline.labels, self.parameters['class_id_format'] == 'name'
        self._class_names = [name if by_name else str(i) for i, name in enumerate(labels)]

    def _announce_model(self, made_by: Mapping[str, str], stamp: Any) -> None:
        """Say which model makes the results from the image with this stamp on; None: the first."""
        self._announced_model = made_by
        since = None if stamp is None else {'sec': stamp.sec, 'nanosec': stamp.nanosec}
        self._active_model.publish(String(data=json.dumps({**made_by, 'since': since})))
        self._announced_since = stamp
        assert self._pipeline is not None
        if self._pipeline.score_threshold != self._announced_threshold:
            self._publish_labels()

    # --- Frames ---------------------------------------------------------------------------------

    def _on_image(self, message: Any) -> None:
        times = FrameTimes(
            t_rx=time.monotonic_ns(),
            clock_rx=self._clock_ns(),
            stamp=stamp_ns(message.header.stamp),
        )
        assert self._worker is not None
        assert self._pipeline is not None
        if self._worker.put(Frame(message, times)):
            self._on_dropped('superseded')
        self._pipeline.hurry()
        self._reporter.recorder.receive(times.t_rx)
        self._reporter.stamps.observe(times.stamp, times.clock_rx)
        self._reporter.last_rx = times.t_rx

    def _on_malformed(self, reason: str) -> None:
        rx = time.monotonic_ns()
        assert self._worker is not None
        self._worker.refuse()
        self._reporter.recorder.drop('error')
        self._reporter.recorder.receive(rx)
        self._reporter.last_rx = rx
        self._reporter.watch.malformed(reason)
        self._log_dropped(reason)

    def _on_dropped(self, outcome: str) -> None:
        self._reporter.recorder.drop(outcome)
        if outcome != 'error' and self._pipeline is not None:
            self._pipeline.lost()

    def _process(self, frame: Frame, worker: Worker[Frame]) -> str:
        """Publish the detections of one frame; return its outcome. Never raises."""
        message, times = frame
        times.t_free, times.t_start = worker.free_ns, time.monotonic_ns()
        try:
            if self._next is not None:
                self._take_over()
            pipeline = self._pipeline
            assert pipeline is not None
            if self._max_age_ns:
                age = age_ns(times.stamp, self._clock_ns())
                if age is not None and age > self._max_age_ns:
                    return 'stale'
            result = pipeline.run(message, times)
            if worker.left_behind:
                return 'error'
            if result.made_by != self._announced_model or self._announced_since is None:
                self._announce_model(result.made_by, message.header.stamp)
            self._detections.publish(
                messages.detection_array(message.header, result.detections, self._class_names)
            )
            times.t_pub = time.monotonic_ns()
            times.clock_pub = self._clock_ns()
        except ImageError as error:
            self._reporter.watch.unusable_image(str(error))
            self._log_dropped(str(error))
            return 'error'
        except Exception as error:  # what the network refused, or a defect: one frame, no more
            if not worker.left_behind:
                self._reporter.watch.failure(f'{type(error).__name__}: {error}')
                self._log_dropped(
                    str(error) if isinstance(error, UserError) else traceback.format_exc()
                )
            return 'error'
        self._reporter.recorder.publish(times)
        try:
            self._look_at(message, result)
            if self._timings is not None:
                self._timings.note(times, len(result.detections), result.made_by['model'])
            self._annotate(pipeline, message, result)
            pipeline.published(result, times, lambda: worker.hurried)
            if not worker.hurried:
                self.garbage.collect()
        except Exception:
            self.get_logger().error(
                f'after publishing: {traceback.format_exc()}', throttle_duration_sec=5.0
            )
        return PUBLISHED

    def _look_at(self, message: Any, result: Result) -> None:
        """Notice the encoding and the size of an image, and candidates that were too many."""
        self._reporter.watch.made(result.made_by['model'])
        if result.detections.left_out:
            self._reporter.watch.crowded(result.detections.left_out)
        encoding: str = message.encoding if isinstance(message, Image) else message.format
        if result.image is not None:
            height, width = result.image.shape[:2]
        else:
            height, width = getattr(message, 'height', 0), getattr(message, 'width', 0)
        self._reporter.watch.image(encoding, width, height, message.header.frame_id)

    def _log_dropped(self, reason: str) -> None:
        self.get_logger().error(f'frame dropped: {reason}', throttle_duration_sec=5.0)

    def _annotate(self, pipeline: Pipeline, message: Any, result: Result) -> None:
        """Draw the detections where somebody looks at them; after they were published."""
        if result.image is None or not self._annotated.get_subscription_count():
            return
        from pruned_perception.inference.drawing import draw  # OpenCV is not for the node's start

        drawn = draw(result.image, result.detections, pipeline.labels, result.order)
        encoding = 'rgb8' if result.order == 'rgb' else 'bgr8'
        self._annotated.publish(messages.image_message(message.header, drawn, encoding))

    def _clock_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    # --- Reports --------------------------------------------------------------------------------

    def _report(self) -> None:
        if self._worker is None or self._worker.since is None:
            self.garbage.collect()
        pipeline, values = self._pipeline, self.parameters.values
        description = {} if pipeline is None else pipeline.description
        if pipeline is not None and pipeline.remark and not self._remarked:
            self._remarked = True
            self.get_logger().info(pipeline.remark)
        if pipeline is not None and pipeline is not self._warned_of:
            self._warned_of = pipeline
            for text in pipeline.warnings:
                self.get_logger().warning(text)
        if self._input is not None:
            assert self._worker is not None and pipeline is not None
            self._input.look()
            deaf = self._reporter.report(
                self._input,
                self._worker.counts(),
                pipeline,
                values,
                self._worker_status(),
                self._swap_state(),
            )
            if not self._announced:
                self._announce()
            self._write_timings()
            if deaf:  # to services, too
                self._finish_soon(UserError(deaf))
            return
        state = 'inactive' if pipeline is not None else 'unconfigured'
        loading = self._loading
        self._reporter.report_inactive(
            diagnostics.inactive(
                diagnostics.FINALIZED if self._finalized else state,
                description,
                None if loading is None else diagnostics.Job(loading.what, loading.seconds),
                values['load_limit_s'],
            ),
            self._worker_status(),
        )

    def _swap_state(self) -> str:
        """Return what is to be said of a change of the model; '' where nothing is."""
        said = []
        if self._not_swapped[1]:
            said.append(f'the model is not changed: {self._not_swapped[1]}')
        if self._abandoned:
            said.append(
                f'{len(self._abandoned)} that did not end was left behind, and takes a core until '
                'the process ends'
            )
        return '; '.join(said)

    def _worker_status(self) -> diagnostics.Status:
        values = self.parameters.values
        job = None
        if self._worker is not None and self._worker.since is not None:
            job = diagnostics.Job(self._worker.what, self._worker.seconds)
        for each in self._left_behind:
            if each.alive:
                job = diagnostics.Job(each.what, each.seconds, left_behind=True)
        return diagnostics.worker(job, values['frame_timeout_s'], values['frame_limit_s'])

    def _watch(self) -> None:
        """Report what takes too long at once, break it off, and if that is in vain, end it all."""
        self._left_behind = [each for each in self._left_behind if each.alive]
        self._watch_swap()
        worker = self._worker
        late = worker is not None and worker.seconds > self.parameters['frame_timeout_s']
        if worker is not None and late and self._overdue != worker.since:
            self._overdue = worker.since
            self._report()
        for thread, limit in self._limits():
            over = thread.seconds - limit
            if over > GRACE_S:
                self.get_logger().fatal(
                    f'{thread.what} has not ended for {thread.seconds:.1f} s, more than {limit:g} '
                    's, and cannot be broken off: the process ends, by SIGALRM'
                )
                end_now()
            if over > 0:
                runs.break_off_all()
                if thread is self._loading and over > PATIENCE_S:
                    self._given_up.set_result(None)

    def _limits(self) -> Iterator[tuple[Worker[Frame] | Background[Loaded], float]]:
        """Yield the threads at work and how many seconds they have."""
        for thread in (self._worker, self._loading, *self._left_behind):
            if thread is not None:
                name = 'load_limit_s' if isinstance(thread, Background) else 'frame_limit_s'
                yield thread, self.parameters[name]

    def _announce(self) -> None:
        """Log what is active; not earlier, as rclpy's first log line takes 50 ms of the start."""
        assert self._input is not None and self._pipeline is not None
        self._announced = True
        model = ', '.join(f'{key} {value}' for key, value in self._pipeline.description.items())
        self.get_logger().info(
            f'active: {self._input.topic} ({self._input.reliability}) → '
            f'{self.resolve_topic_name("detections")}, {model}'
        )

    def _write_timings(self) -> None:
        if self._timings is None:
            return
        try:
            self._timings.write()
        except UserError as error:
            self.get_logger().error(str(error))
            self._timings = None
