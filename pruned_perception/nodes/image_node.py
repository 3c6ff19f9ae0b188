"""The lifecycle node around a pipeline from images to detections: topics, worker, reports.

`perception_node` and `echo_node` are this node with different pipelines, so that what they differ
by is the network alone.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray, LabelInfo

from pruned_perception.errors import UserError
from pruned_perception.inference import latency as lat
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.errors import ImageError
from pruned_perception.nodes import messages
from pruned_perception.nodes.declaration import NodeParameters
from pruned_perception.nodes.image_input import ImageInput
from pruned_perception.nodes.latest_frame import PUBLISHED, LatestFrame
from pruned_perception.nodes.parameters import Parameter
from pruned_perception.nodes.reporter import Reporter
from pruned_perception.nodes.stamps import stamp_ns
from pruned_perception.nodes.timings_file import TimingsFile

REPORT_S = 1.0
_LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
_RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
_LAST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class Result(NamedTuple):
    """What a pipeline made of one message."""

    detections: Detections
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
        """`model`, its name, and `sha256`."""

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise a UserError where the parameters `values` do not fit this model."""

    def apply(self, values: Mapping[str, Any]) -> None:
        """Use the live parameters `values` from the next frame on."""

    def warm_up(self) -> None:
        """Run once, so that the first frame is not the slowest; UserError where that fails."""

    @property
    def score_threshold(self) -> float:
        """The score threshold in use."""

    def run(self, message: Any, times: lat.FrameTimes) -> Result:
        """Detect in an Image or CompressedImage, and set t_pre, t_inf and t_post of its `times`.

        UserError where that is impossible.
        """


class Frame(NamedTuple):
    """A received message and its moments."""

    message: Any
    times: lat.FrameTimes


class ImageNode(LifecycleNode):
    """Subscribes to images, runs a pipeline on the newest one, publishes what it found.

    `table` are the node's parameters; `load` makes the pipeline from their values and raises
    UserError where it cannot. `loaded_by` names the parameters that ask for a new one.
    `node_options` are rclpy's own, such as `namespace`.
    """

    def __init__(
        self,
        name: str,
        table: Sequence[Parameter],
        load: Callable[[Mapping[str, Any]], Pipeline],
        loaded_by: Sequence[str] = (),
        **node_options: Any,
    ) -> None:
        super().__init__(name, **node_options)
        self._load = load
        self._loaded_by = loaded_by
        self._loaded_from: tuple[Any, ...] = ()
        self._pipeline: Pipeline | None = None
        self._input: ImageInput | None = None
        self._slot: LatestFrame[Frame] = LatestFrame()
        self._worker: threading.Thread | None = None
        self._outputs: list[Any] = []
        self._timings: TimingsFile | None = None
        self._active = self._announced = False
        self.parameters = NodeParameters(
            self,
            table,
            is_active=lambda: self._active,
            refuse=self._refuse,
            changed=self._parameters_changed,
        )
        self._reporter = Reporter(self, _RELIABLE)
        # Timers of the node's clock stand still without /clock, and this one reports that.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(REPORT_S, self._report, clock=self._steady)

    # --- Life cycle -----------------------------------------------------------------------------

    def start(self) -> None:
        """Configure and activate if `autostart` is set; raises UserError where that fails."""
        if not self.parameters['autostart']:
            return
        if self.trigger_configure() != SUCCESS or self.trigger_activate() != SUCCESS:
            raise UserError('autostart failed, see the error above')

    def stop(self) -> None:
        """End the worker, and flush the timings, whatever state the node is in."""
        self._end_work()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, create the publishers."""
        return self._transition('configure', lambda: self._configure(state))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images and start the worker."""
        return self._transition('activate', lambda: self._activate(state))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the subscription, finish the frame in hand, stop the worker."""
        self._end_work()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of model and publishers."""
        self._release()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop work and let go of everything."""
        self._end_work()
        self._release()
        return SUCCESS

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
            pipeline = self._load_pipeline()
            # A run of the network leaves the interpreter to the publishers' making.
            with ThreadPoolExecutor(max_workers=1) as thread:
                warm_up = thread.submit(pipeline.warm_up)
                self._create_outputs()
            warm_up.result()
            name = self.parameters['timings_file']
            self._timings = TimingsFile(name) if name else None
        except UserError:
            self._release()
            raise
        return super().on_configure(state)

    def _activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self._loaded_from != self._load_key(self.parameters.values):
            pipeline = self._load_pipeline()
            self._loaded_from = ()  # until it has run: a later activation tries again
            pipeline.warm_up()
            self._loaded_from = self._load_key(self.parameters.values)
        assert self._pipeline is not None
        result = super().on_activate(state)
        labels, by_name = self._pipeline.labels, self.parameters['class_id_format'] == 'name'
        self._class_names = [name if by_name else str(i) for i, name in enumerate(labels)]
        self._apply_parameters()
        self._reporter.reset()
        self._announced = False
        self._active = True
        self._publish_labels()
        self._active_model.publish(String(data=' '.join(self._pipeline.description.values())))
        self._slot = LatestFrame()
        self._worker = threading.Thread(
            target=self._work, args=(self._slot,), name='worker', daemon=True
        )
        self._worker.start()
        self._input = ImageInput(
            self,
            self.parameters['image_transport'],
            self.parameters['image_reliability'],
            self._on_image,
            self._on_malformed,
        )
        return result

    def _load_key(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(values[name] for name in self._loaded_by)

    def _load_pipeline(self) -> Pipeline:
        values = self.parameters.values
        pipeline = self._load(values)
        pipeline.check(values)
        self._pipeline, self._loaded_from = pipeline, self._load_key(values)
        return pipeline

    def _create_outputs(self) -> None:
        self._detections = self._output(Detection2DArray, 'detections', _RELIABLE)
        self._labels = self._output(LabelInfo, 'label_info', _LATCHED)
        self._active_model = self._output(String, '~/active_model', _LATCHED)
        self._annotated = self._output(Image, '~/annotated_image', _LAST)

    def _output(self, type_: Any, topic: str, qos: QoSProfile) -> Any:
        publisher = self.create_lifecycle_publisher(type_, topic, qos)
        self._outputs.append(publisher)
        return publisher

    def _end_work(self) -> None:
        self._active = False
        if self._input is not None:
            self._input.close()
            self._input = None
        self._slot.close()
        if self._worker is not None:
            self._worker.join()
            self._worker = None
        self._write_timings()

    def _release(self) -> None:
        for publisher in self._outputs:
            self.destroy_lifecycle_publisher(publisher)
        self._outputs.clear()
        self._pipeline, self._loaded_from = None, ()
        self._timings = None

    # --- Parameters -----------------------------------------------------------------------------

    def _refuse(self, changes: Mapping[str, Any]) -> None:
        values = {**self.parameters.values, **changes}
        # Values for a model that is yet to be loaded are checked when it is.
        if self._pipeline is not None and self._loaded_from == self._load_key(values):
            self._pipeline.check(values)

    def _parameters_changed(self, changes: Mapping[str, Any]) -> None:
        if not self._active:
            return
        self._apply_parameters()
        if 'score_threshold' in changes:
            self._publish_labels()

    def _apply_parameters(self) -> None:
        self._max_age_ns = round(self.parameters['max_age_ms'] * lat.NS_PER_MS)
        self._reporter.recorder.budget_ms = self.parameters['latency_budget_ms'] or None
        assert self._pipeline is not None
        self._pipeline.apply(self.parameters.values)

    def _publish_labels(self) -> None:
        assert self._pipeline is not None
        stamp = self.get_clock().now().to_msg()
        threshold = self._pipeline.score_threshold
        self._labels.publish(messages.label_info(stamp, self._pipeline.labels, threshold))

    # --- Frames ---------------------------------------------------------------------------------

    def _on_image(self, message: Any) -> None:
        times = lat.FrameTimes(
            t_rx=time.monotonic_ns(),
            clock_rx=self._clock_ns(),
            stamp=stamp_ns(message.header.stamp),
        )
        if self._slot.put(Frame(message, times)):
            self._reporter.recorder.drop('superseded')
        self._reporter.recorder.receive(times.t_rx)
        self._reporter.stamps.observe(times.stamp, times.clock_rx)
        self._reporter.last_rx = times.t_rx

    def _on_malformed(self, reason: str) -> None:
        rx = time.monotonic_ns()
        self._slot.refuse()
        self._reporter.recorder.drop('error')
        self._reporter.recorder.receive(rx)
        self._reporter.last_rx = rx
        self._reporter.watch.malformed(reason)
        self._log_dropped(reason)

    def _work(self, slot: LatestFrame[Frame]) -> None:
        """Process frames until the slot is closed; the worker thread."""
        while (frame := slot.take()) is not None:
            outcome = self._process(frame)
            slot.finish(outcome)
            if outcome != PUBLISHED:
                self._reporter.recorder.drop(outcome)

    def _process(self, frame: Frame) -> str:
        """Publish the detections of one frame; return its outcome. Never raises."""
        message, times = frame
        times.t_start = time.monotonic_ns()
        try:
            if self._max_age_ns:
                age = lat.age_ns(times.stamp, self._clock_ns())
                if age is not None and age > self._max_age_ns:
                    return 'stale'
            assert self._pipeline is not None
            result = self._pipeline.run(message, times)
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
            self._reporter.watch.failure(f'{type(error).__name__}: {error}')
            self._log_dropped(
                str(error) if isinstance(error, UserError) else traceback.format_exc()
            )
            return 'error'
        self._reporter.recorder.publish(times)
        try:
            self._look_at(message, result)
            if self._timings is not None:
                self._timings.note(times, len(result.detections))
            self._annotate(message, result)
        except Exception:
            self.get_logger().error(
                f'after publishing: {traceback.format_exc()}', throttle_duration_sec=5.0
            )
        return PUBLISHED

    def _look_at(self, message: Any, result: Result) -> None:
        """Notice the encoding and the size of an image."""
        encoding: str = message.encoding if isinstance(message, Image) else message.format
        if result.image is not None:
            height, width = result.image.shape[:2]
        else:
            height, width = getattr(message, 'height', 0), getattr(message, 'width', 0)
        self._reporter.watch.image(encoding, width, height, message.header.frame_id)

    def _log_dropped(self, reason: str) -> None:
        self.get_logger().error(f'frame dropped: {reason}', throttle_duration_sec=5.0)

    def _annotate(self, message: Any, result: Result) -> None:
        """Draw the detections where somebody looks at them; after they were published."""
        if result.image is None or not self._annotated.get_subscription_count():
            return
        from pruned_perception.inference.drawing import draw  # OpenCV is not for the node's start

        assert self._pipeline is not None
        drawn = draw(result.image, result.detections, self._pipeline.labels, result.order)
        encoding = 'rgb8' if result.order == 'rgb' else 'bgr8'
        self._annotated.publish(messages.image_message(message.header, drawn, encoding))

    def _clock_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    # --- Reports --------------------------------------------------------------------------------

    def _report(self) -> None:
        description = {} if self._pipeline is None else self._pipeline.description
        if self._input is not None:
            self._input.look()
            values = self.parameters.values
            self._reporter.report(self._input, self._slot.counts(), description, values)
            if not self._announced:
                self._announce()
            self._write_timings()
        else:
            state = 'unconfigured' if self._pipeline is None else 'inactive'
            self._reporter.report_inactive(state, description)

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
