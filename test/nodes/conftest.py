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

"""Fixtures of the nodes' tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest

from pruned_perception.bundle import Bundle

if TYPE_CHECKING:
    from ros_harness import Observer


@pytest.fixture(scope='session')
def context() -> Iterator[Any]:
    """Return a context in the session's domain; skips without ROS 2."""
    pytest.importorskip('rclpy', reason='needs ROS 2')
    pytest.importorskip('vision_msgs', reason='needs the interface packages')
    pytest.importorskip('statistics_msgs', reason='needs the interface packages')
    import rclpy
    from ros_harness import new_context

    context = new_context()
    yield context
    rclpy.try_shutdown(context=context)


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """Return a namespace of the test's own."""
    name = ''.join(c if c.isalnum() else '_' for c in request.node.name)
    return f'/{name}'


@pytest.fixture
def observer(context: Any, namespace: str) -> Iterator[Observer]:
    """Return an observer in the test's namespace."""
    from ros_harness import Observer

    with closing(Observer(context, namespace)) as observer:
        yield observer


@pytest.fixture
def perception(
    request: pytest.FixtureRequest,
    context: Any,
    namespace: str,
    tiny_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Any]]:
    """Return a function that starts a perception node, of the tiny model by default, here.

    It reports every fifth of a second. (Nodes that tests start as processes do once a second.)
    """
    from ros_harness import InProcess

    from pruned_perception.nodes import image_node
    from pruned_perception.nodes.perception_node import create_node

    monkeypatch.setattr(image_node, 'REPORT_S', 0.2)
    observer = request.getfixturevalue('observer') if 'observer' in request.fixturenames else None
    with ExitStack() as stack:

        def start(*arguments: str, **parameters: Any) -> Any:
            given = {'model': str(tiny_bundle.path), **parameters}
            process = InProcess(context, create_node, namespace, given, arguments)
            stack.enter_context(closing(process))
            if observer is not None:
                # What is said once would not be heard before its diagnostics are.
                observer.wait(lambda: observer.statuses, 'diagnostics')
            return process.node

        yield start
