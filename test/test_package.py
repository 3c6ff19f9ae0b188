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

"""The package as a whole: style, layers, versions, and what an installation contains."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

import pruned_perception
from pruned_perception import environment
from pruned_perception.inference.frame_times import FRAME_QUANTITIES
from pruned_perception.nodes.security_policy import Camera

ROOT = Path(__file__).resolve().parents[1]
CHECKS = {
    'ruff check': (['-m', 'ruff', 'check', '.'], 'ruff'),
    'ruff format': (['-m', 'ruff', 'format', '--check', '.'], 'ruff'),
    'mypy': (['-m', 'mypy'], 'mypy'),
    'import-linter': (
        ['-c', 'from importlinter.cli import lint_imports_command as run; run()'],
        'importlinter',
    ),
}


@pytest.mark.parametrize('check', CHECKS)
def test_style_types_and_layers(check: str) -> None:
    arguments, module = CHECKS[check]
    for needed in (module, *(['torch'] if check == 'mypy' else [])):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f'needs {needed}')
    result = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('torch', 'onnx', 'onnxscript', 'torch_pruning'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Absent())
import pytest
sys.exit(pytest.main(['--collect-only', '-qq', '-p', 'no:xdist', '-p', 'no:cacheprovider']))
"""


def test_on_a_robot_without_pytorch_tests_are_skipped_not_broken() -> None:
    """As under colcon test, where nothing installs it."""
    result = subprocess.run(
        [sys.executable, '-c', WITHOUT_TORCH], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-3000:]
    assert 'needs torch' in result.stdout


def test_one_version() -> None:
    setup = re.search(r"version='([^']+)'", (ROOT / 'setup.py').read_text())
    assert setup is not None
    package = ElementTree.parse(ROOT / 'package.xml').findtext('version')
    assert setup[1] == package == pruned_perception.__version__


def test_names_and_addresses_stand_in_the_package_manifest_alone() -> None:
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    assert package.findtext('author') == package.findtext('maintainer')
    assert {url.get('type') for url in package.iter('url')} == {'repository', 'bugtracker'}
    for name in ('vision_msgs', 'statistics_msgs'):  # stand-ins for environments without ROS 2
        other = ElementTree.parse(ROOT / 'interfaces' / name / 'package.xml')
        assert other.find('maintainer').attrib == package.find('maintainer').attrib
    address = package.find('maintainer').get('email').partition('@')[2]
    for name in ('setup.py', 'README.md', 'CONTRIBUTING.md', 'QUALITY_DECLARATION.md'):
        assert address not in (ROOT / name).read_text()


def test_the_changelog_has_the_form_that_release_tools_read() -> None:
    lines = (ROOT / 'CHANGELOG.rst').read_text().splitlines()
    assert lines[1] == 'Changelog for package pruned_perception'
    assert len(set(map(len, lines[:3]))) == 1
    assert lines[3:5] == ['Forthcoming', '-' * len('Forthcoming')]
    stray = [line for line in lines[5:] if line and not line.startswith(('* ', '  '))]
    titles = re.compile(r'\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)|-+')
    assert [line for line in stray if not titles.fullmatch(line)] == []


def test_the_changelog_is_read_by_the_release_tools(capsys: pytest.CaptureFixture[str]) -> None:
    """With a version in the place of Forthcoming, as catkin_prepare_release puts it there."""
    changelogs = pytest.importorskip('catkin_pkg.changelog', reason='needs catkin_pkg')
    version = '0.1.0 (2026-11-28)'
    text = (ROOT / 'CHANGELOG.rst').read_text()
    bullets = len(re.findall(r'^\* ', text, re.MULTILINE))
    text = text.replace('Forthcoming\n-----------', f'{version}\n{"-" * len(version)}')
    changelog = changelogs.Changelog('pruned_perception')
    changelogs.populate_changelog_from_rst(changelog, text)
    [(number, _, [found])] = changelog.foreach_version()
    assert number == '0.1.0'
    assert len(list(found)) == bullets
    assert not capsys.readouterr().err  # docutils names what it cannot read


def test_the_manifest_is_read_without_a_warning() -> None:
    packages = pytest.importorskip('catkin_pkg.package', reason='needs catkin_pkg')
    warnings: list[str] = []
    packages.parse_package(str(ROOT / 'package.xml'), warnings=warnings)
    assert warnings == []


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    """Files, and headings within them; of other sites nothing is asked."""
    pages = [*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md'), ROOT / 'studies' / 'README.md']
    dangling = []
    for page in pages:
        text = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
        for target in re.findall(r'\]\(([^)\s]+)\)', text):
            if re.match(r'https?://', target):
                continue
            name, _, anchor = target.partition('#')
            file = (page.parent / name).resolve() if name else page
            headings = _anchors(file) if anchor and file.suffix == '.md' else {anchor}
            # rosdoc2 takes the folder docs/ and the pages beside package.xml, nothing else.
            left_out = page.parent.name == 'docs' and file.parent not in (
                ROOT,
                page.parent,
                page.parent / 'images',
            )
            if not file.exists() or anchor not in headings or left_out:
                dangling.append(f'{page.name}: {target}')
    assert dangling == []


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r'^#+ (.*)$', page.read_text(), re.MULTILINE)
    plain = [re.sub(r'[^\w\- ]', '', each.lower()) for each in headings]
    return {each.strip().replace(' ', '-') for each in plain}


def test_the_index_of_the_documentation_names_every_page() -> None:
    index = (ROOT / 'docs' / 'index.rst').read_text()
    named = set(re.findall(r'^   (\w+)$', index, re.MULTILINE))
    assert named == {page.stem for page in (ROOT / 'docs').glob('*.md')}


def test_every_ros_package_that_is_imported_is_a_dependency() -> None:
    """Of the package and its launch files; rosdep would not install what package.xml lacks."""
    tree = ElementTree.parse(ROOT / 'package.xml')
    declared = {element.text for element in tree.getroot().iter('exec_depend')}
    imported = set()
    for folder in ('pruned_perception', 'launch'):
        for source in (ROOT / folder).rglob('*.py'):
            imported |= set(
                re.findall(r'^\s*(?:from|import) (\w+)', source.read_text(), re.MULTILINE)
            )
    ros = {name for name in imported if name.endswith('_msgs') or name in ('rclpy', 'launch_ros')}
    assert 'vision_msgs' in ros
    assert ros <= declared


def test_constraints_pin_every_requirement_once_for_each_python() -> None:
    from packaging.requirements import Requirement

    lines = [
        line.partition('#')[0].strip()
        for line in (ROOT / 'constraints.txt').read_text().splitlines()
    ]
    pins = [Requirement(line) for line in lines if line]
    assert all(len(pin.specifier) == 1 and str(pin.specifier).startswith('==') for pin in pins)
    setup = re.sub(r'#.*', '', (ROOT / 'setup.py').read_text())
    requirements = re.search(r'install_requires=(.*?)zip_safe', setup, re.DOTALL)
    assert requirements is not None
    # Not the names of the extras, which are followed by a colon, nor versions.
    names = re.findall(r"'([A-Za-z][\w-]*)[^']*'(?!:)", requirements[1])
    assert {'numpy', 'ros-rclpy', 'torch'} <= set(names)
    for version in ('3.10', '3.11', '3.12', '3.13', '3.14'):
        present = [
            pin.name.lower().replace('_', '-')
            for pin in pins
            if pin.marker is None or pin.marker.evaluate({'python_version': version})
        ]
        assert len(present) == len(set(present)), version
        missing = {name.lower().replace('_', '-') for name in names} - set(present)
        assert not missing, f'Python {version}: {missing}'


def test_the_layout_of_rviz_is_for_any_namespace() -> None:
    """Relative topics: RViz resolves them in its own namespace, as the node does."""
    layout = yaml.safe_load((ROOT / 'config/perception.rviz').read_text())
    displays = layout['Visualization Manager']['Displays']
    topics = {each['Name']: each['Topic']['Value'] for each in displays}
    assert topics == {'Detections': 'perception_node/annotated_image', 'Camera': 'image_raw'}


def test_the_layout_of_foxglove_shows_what_the_node_publishes() -> None:
    """Full names, which is all that Foxglove takes; those of a node in the root namespace."""
    layout = json.loads((ROOT / 'config/foxglove.json').read_text())
    panels = layout['configById']
    text = json.dumps(panels)
    topics = set(re.findall(r'"(/[a-z_/]+)', text))
    names = {name.replace('~', '/perception_node') for name in Camera('/').detector('x').publish}
    assert topics <= names
    assert panels['Image!boxes']['imageMode']['imageTopic'] == '/perception_node/annotated_image'
    quantities = set(re.findall(r'metrics_source==\\"(\w+)', text))
    assert quantities == {'e2e_publish', 'inference'}
    assert quantities <= set(FRAME_QUANTITIES)

    def leaves(node: object) -> set[str]:
        if isinstance(node, str):
            return {node}
        assert isinstance(node, dict)
        return leaves(node['first']) | leaves(node['second'])

    assert leaves(layout['layout']) == set(panels)


def installed_prefix() -> Path:
    """Return the prefix that the package is installed in; skips in a bare checkout."""
    try:
        importlib.metadata.version('pruned_perception')
    except importlib.metadata.PackageNotFoundError:
        pytest.skip('the package is not installed')
    for prefix in (*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix):
        if Path(prefix, 'share/ament_index/resource_index/packages/pruned_perception').exists():
            return Path(prefix)
    pytest.fail('installed, but without its marker in the ament index')


def test_an_installation_has_what_the_checkout_has() -> None:
    prefix = installed_prefix()
    for folder in ('launch', 'examples', 'config', 'models', 'worlds'):
        for path in (ROOT / folder).rglob('*'):
            if path.is_file() and '__pycache__' not in path.parts:
                copy = prefix / 'share/pruned_perception' / path.relative_to(ROOT)
                assert copy.read_bytes() == path.read_bytes(), copy


@pytest.mark.parametrize(
    'name', ['perception_node', 'echo_node', 'simulated_robot', 'route_driver']
)
def test_ros2_run_finds_the_nodes(name: str) -> None:
    path = installed_prefix() / 'lib/pruned_perception' / name
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize('place', ['bin', 'lib/pruned_perception'])
def test_the_command_runs_from_where_it_is_installed(place: str, tmp_path: Path) -> None:
    """Also with nothing of the environment on the PATH, and from another folder."""
    path = installed_prefix() / place / 'pruned-perception'
    result = subprocess.run(
        [path, '--version'], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert pruned_perception.__version__ in result.stdout


@pytest.mark.parametrize('name', ['perception_node', 'pruned-perception'])
def test_scripts_are_read_by_a_shell_and_run_by_the_python_beside_them(
    name: str, tmp_path: Path
) -> None:
    prefix = tmp_path / 'with space'
    for folder in ('bin', 'lib/pruned_perception'):
        (prefix / folder).mkdir(parents=True)
    python = prefix / 'bin/python3'
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    python.chmod(0o755)
    script = prefix / 'lib/pruned_perception' / name
    script.write_bytes((ROOT / 'scripts' / name).read_bytes())
    script.chmod(0o755)
    result = subprocess.run([script, 'a b', 'c'], capture_output=True, text=True, check=True)
    assert result.stdout == f'{script}|a b|c|'
    compile(script.read_text(), name, 'exec')


def test_the_environments_prefix_is_appended_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / 'share/ament_index').mkdir(parents=True)
    monkeypatch.setattr(sys, 'prefix', str(tmp_path))
    monkeypatch.setenv('AMENT_PREFIX_PATH', '/workspace')
    environment.add_own_prefix()
    environment.add_own_prefix()
    assert os.environ['AMENT_PREFIX_PATH'] == f'/workspace{os.pathsep}{tmp_path}'


def test_an_environment_without_ros_packages_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, 'prefix', str(tmp_path))
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    environment.add_own_prefix()
    assert 'AMENT_PREFIX_PATH' not in os.environ
