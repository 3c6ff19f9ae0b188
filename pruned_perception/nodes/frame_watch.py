"""What the worker notices of frames between two reports: changes of the images, failures."""

from __future__ import annotations

import threading

from pruned_perception.nodes.diagnostics import Content, Failures


class FrameWatch:
    """Collects what one thread notices and another reports."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._description = ''
        self._frame_id = ''
        self._changes = 0
        self._change = ''
        self._changed = False
        self._image_error = ''
        self._malformed = 0
        self._failures = Failures()

    def image(self, encoding: str, width: int, height: int, frame_id: str) -> None:
        """Take what an image was."""
        description = f'{encoding}, {width} × {height}'
        with self._lock:
            if self._description and description != self._description:
                self._changes += 1
                self._changed = True
                self._change = f'from {self._description} to {description}'
            self._description = description
            self._frame_id = frame_id

    def unusable_image(self, reason: str) -> None:
        """Take why an image could not be used."""
        with self._lock:
            self._image_error = reason

    def malformed(self, reason: str) -> None:
        """Take why a message could not even be deserialised."""
        with self._lock:
            self._malformed += 1
            self._image_error = reason

    def failure(self, reason: str) -> None:
        """Take why the pipeline failed on a frame."""
        with self._lock:
            self._failures = Failures(self._failures.count + 1, reason)

    def take(self) -> tuple[Content, Failures]:
        """Return what was noticed since the last call."""
        with self._lock:
            content = Content(
                self._description,
                self._frame_id,
                self._changes,
                self._change,
                self._changed,
                self._image_error,
                self._malformed,
            )
            failures = self._failures
            self._changed, self._image_error, self._failures = False, '', Failures()
            return content, failures
