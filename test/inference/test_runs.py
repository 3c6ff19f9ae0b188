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

"""No run or load of a network takes for ever, whoever asked for it."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from stuck_networks import ALWAYS, write_stuck_bundle
from tiny_detector import HEIGHT, WIDTH

from pruned_perception.inference import Detector, InferenceError, runs

DARK = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
WHITE = np.full_like(DARK, 255)


def test_a_run_is_broken_off_at_its_limit_and_the_next_one_runs(tmp_path):
    detector = Detector(write_stuck_bundle(tmp_path), time_limit_s=0.3)
    detector.warm_up()
    with pytest.raises(InferenceError, match=r'model\.onnx: the run was broken off after 0\.'):
        detector.detect(WHITE)
    assert len(detector.detect(DARK)[0]) == 0


def test_whoever_sets_no_limit_has_one(tmp_path):
    """Evaluation, benchmarks and certificates run bundles, too."""
    assert Detector(write_stuck_bundle(tmp_path))._time_limit_s == runs.TIME_LIMIT_S


def test_the_run_that_tells_the_outputs_shapes_is_limited_too(tmp_path):
    with pytest.raises(InferenceError, match='the run was broken off'):
        Detector(write_stuck_bundle(tmp_path, above=ALWAYS, symbolic=True), time_limit_s=0.3)


def test_another_thread_breaks_off_what_runs(tmp_path):
    detector = Detector(write_stuck_bundle(tmp_path), time_limit_s=float('inf'))
    errors = []

    def run() -> None:
        try:
            detector.detect(WHITE)
        except InferenceError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():  # which may not have come to the run yet
        runs.break_off_all()
        time.sleep(0.01)
    assert 'broken off' in errors[0]


def test_the_last_resort_is_told_of_what_cannot_be_broken_off(monkeypatch):
    told: list[str] = []
    resort = threading.Event()

    def last_resort(message: str) -> None:
        told.append(message)
        resort.set()

    monkeypatch.setattr(runs, 'last_resort', last_resort)
    monkeypatch.setattr(runs, 'GRACE_S', 0.2)
    asked: list[None] = []
    with runs.limited('net.onnx: a run', lambda: asked.append(None), 0.1):
        assert resort.wait(60)
    assert asked
    assert told[0] == 'net.onnx: a run: it has not ended within 0.1 s and cannot be broken off'
