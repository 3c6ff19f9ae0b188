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

"""Energy: sensors of every kind in a made-up sysfs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pruned_perception.benchmark import energy
from pruned_perception.benchmark.energy import Meter, find_sensor


def write(folder: Path, **files: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f'{content}\n')
    return folder


def rapl(root: Path, name: str, label: str, energy_uj: int) -> Path:
    folder = root / 'class' / 'powercap' / name
    return write(folder, name=label, energy_uj=energy_uj, max_energy_range_uj=10_000_000)


def watts(root: Path) -> float:
    sensor = find_sensor(root)
    assert sensor is not None
    assert not sensor.wraps
    [found] = sensor.read()
    return found


def test_without_a_sensor_nothing_is_measured(tmp_path: Path) -> None:
    assert find_sensor(tmp_path) is None
    meter = Meter(None)
    meter.start()
    assert meter.stop() is None


def test_counters_of_all_packages_are_added_and_may_wrap(tmp_path: Path) -> None:
    first = rapl(tmp_path, 'intel-rapl:0', 'package-0', 9_000_000)
    second = rapl(tmp_path, 'intel-rapl:1', 'package-1', 1_000_000)
    rapl(tmp_path, 'intel-rapl:0:0', 'core', 0)  # a part of the package
    sensor = find_sensor(tmp_path)
    assert sensor is not None
    assert sensor.name == 'RAPL, package-0, package-1'
    meter = Meter(sensor)
    meter.start()
    write(first, energy_uj=500_000)  # wrapped at 10 J
    write(second, energy_uj=3_000_000)
    assert meter.stop() == pytest.approx(1.5 + 2.0)


def test_the_platform_counter_comes_before_the_packages(tmp_path: Path) -> None:
    rapl(tmp_path, 'intel-rapl:0', 'package-0', 0)
    rapl(tmp_path, 'intel-rapl:1', 'psys', 0)
    sensor = find_sensor(tmp_path)
    assert sensor is not None
    assert sensor.name == 'RAPL, psys'


def test_the_boards_input_stands_for_its_channels(tmp_path: Path) -> None:
    device = write(tmp_path / 'class' / 'hwmon' / 'hwmon3', name='ina3221')
    for number, label in enumerate(('VDD_CPU', 'VDD_IN', 'VDD_SOC'), start=1):
        channel = {f'in{number}_input': 5000, f'curr{number}_input': 1000 * number}
        write(device, **channel, **{f'in{number}_label': label})
    write(tmp_path / 'class' / 'hwmon' / 'hwmon0', name='coretemp', power1_input=9)
    assert watts(tmp_path) == pytest.approx(10.0)  # 5 V × 2 A
    write(device, in2_label='VDD_GPU')
    assert watts(tmp_path) == pytest.approx(30.0)  # no input: all of them


def test_an_ina_that_tells_its_power(tmp_path: Path) -> None:
    write(tmp_path / 'class' / 'hwmon' / 'hwmon1', name='ina226', power1_input=2_500_000)
    assert watts(tmp_path) == pytest.approx(2.5)


def test_a_battery_counts_while_it_discharges(tmp_path: Path) -> None:
    folder = tmp_path / 'class' / 'power_supply' / 'BAT0'
    amperes = {'current_now': 2_000_000, 'voltage_now': 12_000_000}
    write(folder, type='Battery', status='Charging', **amperes)
    write(tmp_path / 'class' / 'power_supply' / 'AC', type='Mains')
    assert find_sensor(tmp_path) is None
    write(folder, status='Discharging')
    assert watts(tmp_path) == pytest.approx(24.0)
    write(folder, power_now=-20_000_000)
    assert watts(tmp_path) == pytest.approx(20.0)


def test_power_is_integrated_over_the_time(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(energy, 'PERIOD_S', 0.01)
    write(tmp_path / 'class' / 'hwmon' / 'hwmon1', name='ina219', power1_input=4_000_000)
    meter = Meter(find_sensor(tmp_path))
    start = time.monotonic()
    meter.start()
    time.sleep(0.05)
    joules = meter.stop()
    assert joules is not None
    assert 0 < joules <= 4.0 * (time.monotonic() - start)


def test_a_sensor_that_fails_on_the_way_measures_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(energy, 'PERIOD_S', 0.01)
    device = write(tmp_path / 'class' / 'hwmon' / 'hwmon1', name='ina219', power1_input=4_000_000)
    meter = Meter(find_sensor(tmp_path))
    meter.start()
    (device / 'power1_input').unlink()
    assert meter.stop() is None
