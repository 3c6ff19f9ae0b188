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

"""Energy from a real sensor of the machine: RAPL, INA, battery; nothing is estimated.

All are read from Linux's sysfs. A sensor covers what it is wired to, the whole processor, board or
robot, idle share included: what it counts is named with every figure.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

SYSFS = Path('/sys')
PERIOD_S = 0.05
"""From one reading of a power to the next."""

_INPUT = re.compile(r'(^|_)IN$')
"""Ends the label of the channel that feeds all others (Jetson: VDD_IN, POM_5V_IN)."""


@dataclass(frozen=True)
class Sensor:
    """One way to read energy or power; `read` raises OSError or ValueError where it cannot."""

    name: str
    """Kind, and what it covers."""
    read: Callable[[], Sequence[float]]
    """Counters of energy in joules, or one power in watts."""
    wraps: Sequence[float] = ()
    """Of counters: joules at which each begins at 0 again; () for a power."""


def find_sensor(root: Path = SYSFS) -> Sensor | None:
    """Return the first sensor of RAPL, INA and battery that can be read; None without any."""
    for each in (_rapl(root), _ina(root), _battery(root)):
        if each is None:
            continue
        try:
            each.read()
        except (OSError, ValueError):  # RAPL is often root's alone
            continue
        return each
    return None


class Meter:
    """The joules between `start` and `stop`, by a sensor; None without one, or where it fails."""

    def __init__(self, sensor: Sensor | None) -> None:
        self._sensor = sensor
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._before: Sequence[float] | None = None
        self._joules: float | None = None

    def start(self) -> None:
        """Begin; of a power, a thread reads it from here on."""
        if self._sensor is None:
            return
        if self._sensor.wraps:
            self._before = _reading(self._sensor)
            return
        self._thread = threading.Thread(target=self._integrate, daemon=True)
        self._thread.start()

    def stop(self) -> float | None:
        """Return the joules since `start`."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
        elif self._sensor is not None:
            after = _reading(self._sensor)
            if self._before is not None and after is not None:
                self._joules = sum(
                    (end - begin) % wrap
                    for begin, end, wrap in zip(
                        self._before, after, self._sensor.wraps, strict=True
                    )
                )
        return self._joules

    def _integrate(self) -> None:
        """Sum up power × time, trapezoid by trapezoid; a reading that fails ends it without."""
        assert self._sensor is not None
        joules, last = 0.0, None
        while True:
            ended = self._ended.is_set()
            now, found = time.monotonic(), _reading(self._sensor)
            if found is None:
                return
            if last is not None:
                joules += (now - last[0]) * (found[0] + last[1]) / 2
            last = now, found[0]
            if ended:
                self._joules = joules
                return
            self._ended.wait(PERIOD_S)


def _reading(sensor: Sensor) -> Sequence[float] | None:
    try:
        return sensor.read()
    except (OSError, ValueError):
        return None


def _number(path: Path) -> float:
    return float(path.read_text())


def _product(unit: float, *paths: Path) -> float:
    return math.prod(map(_number, paths)) * unit


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ''


def _rapl(root: Path) -> Sensor | None:
    """Return the counters of the platform where there is one, else of all processor packages."""
    zones = sorted((root / 'class' / 'powercap').glob('*-rapl:*'))
    names = {zone: _text(zone / 'name') for zone in zones}
    chosen = [zone for zone in zones if names[zone] == 'psys'][:1] or [
        zone for zone in zones if names[zone].startswith('package')
    ]
    if not chosen:
        return None
    try:
        wraps = [_number(zone / 'max_energy_range_uj') / 1e6 for zone in chosen]
    except (OSError, ValueError):
        return None
    return Sensor(
        f'RAPL, {", ".join(names[zone] for zone in chosen)}',
        lambda: [_number(zone / 'energy_uj') / 1e6 for zone in chosen],
        wraps,
    )


def _ina(root: Path) -> Sensor | None:
    """Return the input of the board where a channel is labelled as it, else all channels."""
    channels: list[tuple[str, Callable[[], float]]] = []
    for device in sorted((root / 'class' / 'hwmon').glob('hwmon*')):
        name = _text(device / 'name')
        if not name.startswith('ina'):
            continue
        powers = sorted(device.glob('power*_input'))  # µW
        channels += [(name, partial(_product, 1e-6, file)) for file in powers]
        for current in sorted(device.glob('curr*_input')) if not powers else []:  # mA
            number = current.name.removeprefix('curr').removesuffix('_input')
            volts = device / f'in{number}_input'  # mV
            label = _text(device / f'in{number}_label') or f'{name} channel {number}'
            if volts.is_file():
                channels.append((label, partial(_product, 1e-6, current, volts)))
    inputs = [each for each in channels if _INPUT.search(each[0])][:1] or channels
    if not inputs:
        return None
    names = ', '.join(dict.fromkeys(name for name, _ in inputs))
    return Sensor(f'INA, {names}', lambda: [sum(read() for _, read in inputs)])


def _battery(root: Path) -> Sensor | None:
    """Return the power out of the batteries; a supply that charges one says nothing of the load."""
    supplies = sorted((root / 'class' / 'power_supply').glob('*'))
    batteries = [each for each in supplies if _text(each / 'type') == 'Battery']
    if not batteries:
        return None

    def watts() -> list[float]:
        return [sum(map(_out_of, batteries))]

    return Sensor(f'battery, {", ".join(each.name for each in batteries)}', watts)


def _out_of(battery: Path) -> float:
    """Return the watts out of a battery; ValueError where it is not discharging."""
    if _text(battery / 'status') != 'Discharging':
        raise ValueError(f'{battery.name} is not discharging')
    if (battery / 'power_now').is_file():  # µW; some drivers give it a sign
        return abs(_product(1e-6, battery / 'power_now'))
    return abs(_product(1e-12, battery / 'current_now', battery / 'voltage_now'))
