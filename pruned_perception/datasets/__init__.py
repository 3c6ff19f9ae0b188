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
