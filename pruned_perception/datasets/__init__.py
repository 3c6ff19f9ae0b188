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

"""Annotated data sets: frames, boxes, groups and splits, read and validated in one place.

A format is a module of `datasets.formats`; what it parses goes through `DatasetBuilder`, so that
every format refuses the same broken things. Training, evaluation, certificates and calibration
take what `read_dataset` returns.
"""

from pruned_perception.datasets.dataset import Dataset, DatasetBuilder
from pruned_perception.datasets.errors import DataError
from pruned_perception.datasets.formats import dataset_splits, read_dataset
from pruned_perception.datasets.labels import is_placeholder, read_labels
from pruned_perception.datasets.problems import Problem, Problems

__all__ = [
    'DataError',
    'Dataset',
    'DatasetBuilder',
    'Problem',
    'Problems',
    'dataset_splits',
    'is_placeholder',
    'read_dataset',
    'read_labels',
]
