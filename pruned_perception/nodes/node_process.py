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

"""The life of a node's process: signals, start, spinning, a clean end.

A watchdog of the kernel's (see `_watchdog`) stands behind all of it, so that no end depends on the
interpreter: a thread in native code that does not give its lock back.
"""

from __future__ import annotations

import gc
import inspect
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pruned_perception._watchdog import Watchdog, leave
from pruned_perception.environment import add_own_prefix
from pruned_perception.errors import UserError
from pruned_perception.nodes import malloc, security, transport

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.task import Future

STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})
GRACE_S = 4.0
"""Longest orderly end, in seconds: launch sends the next, harder signal after 5."""
END_S = 8.0
"""From there on the end is the watchdog's: before launch's last signal, SIGKILL after 10 s."""
START_S = 60.0
"""Longest step of a start (imports and middleware; making the node; starting it, but for a model)
before the watchdog bites."""
FEED_S, HUNGRY_S = 1.0, 9.0
"""How often a spinning node feeds the watchdog, and after how long without it that bites.

A node whose interpreter is stuck hears of no signal, so this is the end that it has then: it comes
before the SIGKILL of launch, too.
"""


class StopSignals:
    """Ctrl-C and SIGTERM as an event, which never interrupts the main thread where it is.

    Both signals are blocked in every thread that starts from here on, and waited for by one
    thread. So no import, model load or callback is torn apart by a KeyboardInterrupt. Before
    `on_stop` nothing needs an orderly end, and the process exits at once with status 0.
    """

    def __init__(self, watchdog: Watchdog) -> None:
        self.stopped = threading.Event()
        self._watchdog = watchdog
        self._lock = threading.Lock()
        self._callback: Callable[[], Any] | None = None
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        threading.Thread(target=self._wait, name='stop_signals', daemon=True).start()

    def on_stop(self, callback: Callable[[], Any]) -> None:
        """Call `callback`, from another thread, at the first signal; at once if it came already."""
        with self._lock:
            self._callback = callback
            if not self.stopped.is_set():
                return
        callback()

    def _wait(self) -> None:
        signal.sigwait(STOP_SIGNALS)
        with self._lock:
            self.stopped.set()
            callback = self._callback
        self._watchdog.last(END_S)
        if callback is not None:
            callback()
            # Whatever the main thread is busy with by then, such as a large model, can be lost.
            threading.Event().wait(GRACE_S)
        leave(0)


def run(
    create_node: Callable[[], Node], args: Sequence[str] | None = None, *, is_camera: bool = False
) -> int:
    """Run one node until SIGINT or SIGTERM; this is the whole main() of an executable.

    `create_node` is called after `rclpy.init`; it imports what is heavy, so that a signal during
    the imports finds its handler. If the node has a method `start()`, which may be a coroutine, it
    is called before all callbacks, and `stop()` at the end. If it has `garbage`, that takes over
    from the automatic collection. Its future `finished` ends it, too, with the error that it gives
    or None. An exception in a callback is logged and spinning goes on. `is_camera`: it sends an
    image a frame.

    Returns 0 after a signal or `finished`, 1 after a UserError in creating, starting or finishing
    the node, whose text is logged.
    """
    watchdog = Watchdog()
    watchdog.feed(START_S)
    signals = StopSignals(watchdog)
    gc.disable()  # imports make little garbage, and looking for it is a twentieth of the start
    malloc.keep_large_buffers()
    add_own_prefix()
    if not is_camera:
        os.environ.update(transport.without_camera(os.environ))

    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.logging import get_logger
    from rclpy.signals import SignalHandlerOptions
    from rclpy.task import Future

    stop: Future[Exception | None] = Future()
    signals.on_stop(lambda: stop.set_result(None))
    program = os.path.basename(sys.argv[0])  # noqa: PTH119
    node = executor = None
    status = 1
    try:
        try:
            with security.explained():
                rclpy.init(
                    args=None if args is None else list(args),
                    signal_handler_options=SignalHandlerOptions.NO,
                )
                watchdog.feed(START_S)
                node = create_node()
            if open_door := security.remark(node, os.environ):
                node.get_logger().warning(open_door)
            watchdog.feed(START_S)
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            if hasattr(node, 'finished'):
                node.finished.add_done_callback(lambda done: stop.set_result(done.result()))
            if not stop.done():
                executor.create_task(_start, node, watchdog, stop)
            _spin(executor, node, stop)
            error = stop.result()
            if error is not None:
                raise error
            status = 0
        except UserError as error:
            logger = node.get_logger() if node is not None else get_logger(program)
            logger.fatal(str(error))
        except _middleware_errors() as error:
            get_logger(program).fatal(_readable(error))
    finally:
        watchdog.last(END_S)
        if node is not None:
            if hasattr(node, 'garbage'):
                node.garbage.give_back()
            if hasattr(node, 'stop'):
                node.stop()
            node.destroy_node()
        if executor is not None:
            executor.shutdown(timeout_sec=0)
        rclpy.try_shutdown()
        if getattr(node, 'is_stuck', False):
            leave(status)  # the interpreter's end does not go well with a thread at work
    return status


async def _start(node: Node, watchdog: Watchdog, stop: Future[Exception | None]) -> None:
    """Start a node; what that raises ends its spinning."""
    from rclpy.clock import Clock, ClockType

    try:
        started = node.start() if hasattr(node, 'start') else None
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        watchdog.feed(HUNGRY_S)
        node.create_timer(FEED_S, lambda: watchdog.feed(HUNGRY_S), clock=steady)
        if inspect.isawaitable(started):
            await started
    except Exception as error:
        stop.set_result(error)
    finally:
        if hasattr(node, 'garbage'):
            node.garbage.take_over()
        else:
            gc.enable()


def _spin(executor: Any, node: Node, stop: Any) -> None:
    """Spin until `stop` is done; a callback's exception is logged, never the end of the node."""
    while not stop.done():
        try:
            executor.spin_until_future_complete(stop)
        except Exception:  # also what the conversion of a malformed message raises
            node.get_logger().error(
                f'a callback failed, the node goes on:\n{traceback.format_exc()}',
                throttle_duration_sec=1.0,
            )


def _middleware_errors() -> tuple[type[Exception], ...]:
    """Return what rclpy raises for arguments, names and parameter files that it cannot take."""
    from rclpy import exceptions
    from rclpy.impl.implementation_singleton import rclpy_implementation

    names = (
        'RCLError',
        'RCLInvalidROSArgsError',
        'UnknownROSArgsError',
        'NodeNameNonExistentError',
    )
    found = [getattr(rclpy_implementation, name, None) for name in names]
    return (
        exceptions.NameValidationException,
        exceptions.ParameterException,
        exceptions.InvalidParameterValueException,
        *(each for each in found if each is not None),
    )


def _readable(error: Exception) -> str:
    """Return rcl's message in one line: the rest repeats it with places in C files."""
    text = str(error).strip().splitlines()[0]
    return f'unknown arguments: {text}' if 'Unknown' in type(error).__name__ else text
