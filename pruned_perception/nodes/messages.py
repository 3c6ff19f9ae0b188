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

"""Results as ROS messages."""

from __future__ import annotations

import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from statistics_msgs.msg import MetricsMessage, StatisticDataPoint, StatisticDataType
from std_msgs.msg import Header
from vision_msgs.msg import (
    BoundingBox2D,
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    Point2D,
    Pose2D,
    VisionClass,
)

from pruned_perception.inference.detections import Detections
from pruned_perception.nodes.diagnostics import Status

_STATISTICS = (
    (StatisticDataType.STATISTICS_DATA_TYPE_AVERAGE, np.mean),
    (StatisticDataType.STATISTICS_DATA_TYPE_MINIMUM, np.min),
    (StatisticDataType.STATISTICS_DATA_TYPE_MAXIMUM, np.max),
    (StatisticDataType.STATISTICS_DATA_TYPE_STDDEV, np.std),
    (StatisticDataType.STATISTICS_DATA_TYPE_SAMPLE_COUNT, len),
)


def detection_array(
    header: Header, detections: Detections, class_names: Sequence[str]
) -> Detection2DArray:
    """Return the detections of one image; `header` is the image's own, in every part.

    `class_names[i]` is the text published as class_id of class i. The tracking id stays empty.
    """
    return Detection2DArray(
        header=header,
        detections=[
            Detection2D(
                header=header,
                results=[
                    ObjectHypothesisWithPose(
                        hypothesis=ObjectHypothesis(class_id=class_names[class_id], score=score)
                    )
                ],
                bbox=BoundingBox2D(
                    center=Pose2D(position=Point2D(x=(x0 + x1) / 2, y=(y0 + y1) / 2)),
                    size_x=x1 - x0,
                    size_y=y1 - y0,
                ),
            )
            for (x0, y0, x1, y1), score, class_id in zip(
                detections.boxes.tolist(),
                detections.scores.tolist(),
                detections.class_ids.tolist(),
                strict=True,
            )
        ],
    )


def label_info(stamp: Time, labels: Sequence[str], threshold: float) -> LabelInfo:
    """Return which class each class id stands for, and the score threshold in use."""
    return LabelInfo(
        header=Header(stamp=stamp),
        class_map=[VisionClass(class_id=i, class_name=name) for i, name in enumerate(labels)],
        threshold=threshold,
    )


def image_message(header: Header, image: NDArray[np.uint8], encoding: str) -> Image:
    """Return `image`, uint8 (H, W, 3), as a message.

    Its bytes pass through array.array: assigned as an ndarray, rclpy would convert them one by
    one, 43 ms for 640 × 480.
    """
    height, width = image.shape[:2]
    message = Image(
        header=header, height=height, width=width, encoding=encoding, step=image[0].nbytes
    )
    message.data = array.array('B', image.tobytes())
    return message


def metrics_message(
    source: str,
    quantity: str,
    unit: str,
    values: NDArray[np.float64],
    window: tuple[Time, Time],
) -> MetricsMessage:
    """Return mean, minimum, maximum, standard deviation and number of `values`, not empty."""
    return MetricsMessage(
        measurement_source_name=source,
        metrics_source=quantity,
        unit=unit,
        window_start=window[0],
        window_stop=window[1],
        statistics=[
            StatisticDataPoint(data_type=kind, data=float(statistic(values)))
            for kind, statistic in _STATISTICS
        ],
    )


def diagnostic_array(stamp: Time, node: str, statuses: Sequence[Status]) -> DiagnosticArray:
    """Return the statuses of the node named `node`, each as '<node>: <its name>'."""
    return DiagnosticArray(
        header=Header(stamp=stamp),
        status=[
            DiagnosticStatus(
                level=bytes([status.level]),
                name=f'{node}: {status.name}',
                hardware_id=node,
                message=status.message,
                values=_key_values(status.values),
            )
            for status in statuses
        ],
    )


def _key_values(values: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_text(value)) for key, value in values.items()]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'{value:.3f}' if isinstance(value, float) else str(value)
