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

"""Images are prepared as a detector's authors do it, where nobody says otherwise."""

from __future__ import annotations

from pruned_perception.inference.conventions import labels_in, preparation


def test_images_are_prepared_as_given_else_as_the_authors_do():
    assert preparation('yolox', {'color': None, 'iou': 0.5})['color'] == 'bgr'
    assert preparation('yolox', {'color': 'rgb', 'iou': 0.5})['iou'] == 0.5
    assert preparation('yolox', {'color': 'rgb'})['color'] == 'rgb'
    assert preparation('ssd', {})['score'] == 0.4


def test_labels_in_a_files_metadata():
    assert labels_in({'names': "{0: 'person', 1: 'ball'}"}) == ('person', 'ball')
    assert labels_in({'names': "['a', 'b']"}) == ('a', 'b')
    for wrong in ("{0: 'person', 2: 'ball'}", '__import__("os")', '[1]', "'ab'", '{'):
        assert labels_in({'names': wrong}) is None
    assert labels_in({}) is None
