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

"""./dev: what it says and refuses before it sets anything up (the set-up itself runs the tests)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [
    pytest.mark.skipif(shutil.which('bash') is None, reason='needs bash'),
    pytest.mark.skipif(not (ROOT / 'dev').exists(), reason='needs the checkout'),
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder that looks like a fresh clone, in a path with spaces."""
    folder = tmp_path / 'a fresh clone'
    folder.mkdir()
    for name in ('dev', 'constraints.txt', 'setup.py'):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / 'interfaces', folder / 'interfaces')
    return folder


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Return a folder that comes first on the PATH."""
    folder = tmp_path / 'tools'
    folder.mkdir()
    return folder


def tool(tools: Path, name: str, script: str) -> None:
    (tools / name).write_text(f'#!/bin/sh\n{script}\n')
    (tools / name).chmod(0o755)


def edit(script: Path, old: str, new: str) -> None:
    """Replace what stands in the script exactly once; else the test would not test what it says."""
    text = script.read_text()
    assert text.count(old) == 1, f'{old!r} stands {text.count(old)} times in {script.name}'
    script.write_text(text.replace(old, new))


def dev(checkout: Path, tools: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        'PATH': f'{tools}{os.pathsep}{os.environ["PATH"]}',
        'PYTHON': sys.executable,
        'XDG_CACHE_HOME': str(checkout.parent / 'cache'),
    }
    environment.pop('ROS_DISTRO', None)
    return subprocess.run(
        [checkout / 'dev', *arguments],
        cwd=checkout.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_arguments_it_lists_its_commands(checkout: Path, tools: Path) -> None:
    result = dev(checkout, tools)
    assert result.returncode == 0
    for command in ('demo', 'test', 'shell', 'models'):
        assert f'\n  {command} ' in result.stdout


def test_an_unknown_command_is_an_error_that_lists_them(checkout: Path, tools: Path) -> None:
    result = dev(checkout, tools, 'demmo')
    assert result.returncode == 1
    assert "there is no command 'demmo'" in result.stderr
    assert '\n  demo ' in result.stderr


def test_other_processors_without_ros_are_told_what_to_install(checkout: Path, tools: Path) -> None:
    tool(tools, 'uname', 'echo Linux aarch64')
    result = dev(checkout, tools, 'demo')
    assert result.returncode == 1
    assert 'ros-jazzy-ros-base ros-jazzy-vision-msgs ros-jazzy-statistics-msgs' in result.stderr
    assert not (checkout / '.venv').exists()


def test_a_ros_that_lacks_packages_is_told_which(
    checkout: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A Python that knows no module but rclpy.
    tool(
        tools,
        'bare',
        'case "$2" in "import rclpy") exit 0 ;; import\\ *_msgs) exit 1 ;; esac\n'
        f'exec "{sys.executable}" "$@"',
    )
    edit(checkout / 'dev', 'choose_python\n  find_ros', 'python=bare\n  find_ros')
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    environment = {**os.environ, 'PATH': f'{tools}{os.pathsep}{os.environ["PATH"]}'}
    result = subprocess.run(
        [checkout / 'dev', 'demo'], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert 'sudo apt install ros-jazzy-vision-msgs ros-jazzy-statistics-msgs' in result.stderr


def test_without_root_the_line_to_run_is_printed(checkout: Path, tools: Path) -> None:
    tool(tools, 'ldconfig', 'exit 0')  # no library at all
    tool(tools, 'apt-get', 'exit 1')
    tool(tools, 'sudo', 'exit 1')
    if os.geteuid() == 0:  # take no notice of it
        edit(checkout / 'dev', 'if ((EUID)); then', 'if true; then')
    result = dev(checkout, tools, 'demo')
    assert result.returncode == 1
    assert 'sudo apt-get update && sudo apt-get install -y --no-install-recommends' in result.stderr
    assert 'libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri' in result.stderr
    assert not (checkout / '.venv').exists()


def test_no_suitable_python_is_an_error_that_says_so(checkout: Path, tools: Path) -> None:
    for name in ('python3', *(f'python3.{minor}' for minor in range(10, 15)), 'old'):
        tool(tools, name, 'exit 1')
    environment = {
        **os.environ,
        'PATH': f'{tools}{os.pathsep}{os.environ["PATH"]}',
        'PYTHON': 'old',
    }
    result = subprocess.run(
        [checkout / 'dev', 'demo'], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert 'found no Python 3.10 to 3.14' in result.stderr


STEPS = """
make_environment() { mkdir -p "$state" "$venv/bin"; echo environment >&2; }
build_interfaces() { mkdir -p "$interfaces"; echo built >&2; }
install_debian_packages() { :; }
install_interfaces() { echo interfaces >&2; }
install_package() { echo package >&2; }
install_torch() { echo torch >&2; }
install_requirements() { echo "requirements $1" >&2; }

command=${1:-help}
"""


@pytest.fixture
def stepping(checkout: Path) -> Path:
    """Return a checkout whose ./dev goes through its steps, each of which only says its name."""
    edit(checkout / 'dev', '\ncommand=${1:-help}\n', STEPS)
    return checkout


def steps(checkout: Path, tools: Path, *arguments: str) -> list[str]:
    result = dev(checkout, tools, *arguments)
    assert result.returncode == 0, result.stderr
    return [line for line in result.stderr.splitlines() if not line.startswith('[')]


def test_a_shell_has_pytorch_where_it_is_asked_for(stepping: Path, tools: Path) -> None:
    tool(tools, 'uname', 'echo Linux x86_64')
    first = steps(stepping, tools, 'shell', 'true')
    assert sorted(first) == [
        'built', 'environment', 'interfaces', 'package', 'requirements bench,sim,ros',
    ]  # fmt: skip
    assert steps(stepping, tools, 'shell', '--train', 'true') == ['torch', 'requirements train']
    assert steps(stepping, tools, 'shell', '--train', 'true') == []


def test_an_environment_that_is_complete_needs_no_cache(stepping: Path, tools: Path) -> None:
    tool(tools, 'uname', 'echo Linux x86_64')
    assert 'built' in steps(stepping, tools, 'shell', 'true')
    shutil.rmtree(stepping.parent / 'cache')
    assert steps(stepping, tools, 'shell', 'true') == []
    (stepping / 'interfaces' / 'other').mkdir()
    (stepping / 'interfaces' / 'other' / 'other.msg').write_text('int32 value\n')
    assert steps(stepping, tools, 'shell', 'true') == ['built', 'interfaces']
