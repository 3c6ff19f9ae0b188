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

"""The runner with an engine of the test's own, and what machines must have in common.

The engine makes cells in this process, or loses them, so that nothing here waits for one.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import blobs
import pytest
import yaml

from pruned_perception._io import FolderError, locked
from pruned_perception.cli.main import main
from pruned_perception.compare import lease, runner
from pruned_perception.compare.cell import run_cell
from pruned_perception.compare.engines import Ending, EngineError, Run, ray_worker
from pruned_perception.compare.engines.ray_cluster import RayEngine
from pruned_perception.compare.fingerprint import RESULTS, fingerprint
from pruned_perception.compare.result import find_failure, find_result
from pruned_perception.compare.runner import run_cells
from pruned_perception.compare.study import Study, read_study
from pruned_perception.compare.table import make_table
from pruned_perception.pruning import PruningError

METHODS = {'l2': {'criterion': 'filter_l2', 'round_to': 1}}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, 'POLL_SECONDS', 0.0)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return _study(tmp_path)


def _study(folder: Path, **changes: object) -> Study:
    data = {'task': 'blobs:task', 'methods': METHODS, 'budgets': {'macs': 0.5}, 'seeds': [0, 1]}
    path = folder / 'study.yaml'
    path.write_text(yaml.safe_dump(data | changes, sort_keys=False))
    return read_study(path)


class Here:
    """Makes cells in this process when asked how they ended; `fate` may say otherwise."""

    def __init__(
        self, places: float = 2, fate: Callable[[str], Ending | None] = lambda cell: None
    ) -> None:
        self.places, self.fate = places, fate
        self.queue: list[str] = []
        self.started: list[str] = []
        self.ran = False

    @contextlib.contextmanager
    def run(self, run: Run) -> Iterator[None]:
        self.study, self.results, self.ran = run.study, run.results, True
        assert run.lease.path.is_file()
        yield

    def start(self, cell: str, log: Path) -> None:
        log.write_text(f'{cell}: under way\n')
        self.queue.append(cell)
        self.started.append(cell)
        assert len(self.queue) <= self.places

    def ended(self) -> dict[str, Ending]:
        if not self.queue:
            return {}
        cell = self.queue.pop(0)
        if (fate := self.fate(cell)) is not None:
            return {cell: fate}
        run_cell(self.study.cell(cell), self.results)
        return {cell: Ending(0)}

    def remarks(self) -> list[str]:
        return ['one node makes no cells'] if len(self.started) == 1 else []


def test_every_cell_is_made_once_and_remarks_are_passed_on(study: Study, tmp_path: Path) -> None:
    engine, said, shares = Here(places=float('inf')), [], []
    results = tmp_path / 'results'
    failures = run_cells(
        study, results, engine, progress=lambda share, _: shares.append(share), say=said.append
    )
    assert failures == {}
    assert engine.started == [cell.name for cell in study.cells]
    assert all(find_result(results, cell) for cell in study.cells)
    assert shares == sorted(shares)
    assert not (results / lease.FILE).exists()
    again = Here()
    assert run_cells(study, results, again) == {}
    assert not again.ran, 'with nothing to do, no engine is needed'


def test_a_cell_whose_worker_died_is_made_again_and_no_other(study: Study, tmp_path: Path) -> None:
    deaths = ['l2-macs0.5-seed0', 'l2-macs0.5-seed0']

    def fate(cell: str) -> Ending | None:
        if cell in deaths:
            deaths.remove(cell)
            return Ending(None, 'its worker died')
        return None

    engine, said = Here(fate=fate), []
    assert run_cells(study, tmp_path / 'results', engine, say=said.append) == {}
    assert engine.started.count('l2-macs0.5-seed0') == 3
    assert engine.started.count('l2-macs0.5-seed1') == engine.started.count('parent') == 1
    assert said.count('l2-macs0.5-seed0: its worker died; again') == 2


def test_a_worker_that_died_after_the_result_was_written_is_no_loss(
    study: Study, tmp_path: Path
) -> None:
    results = tmp_path / 'results'

    def fate(cell: str) -> Ending:
        run_cell(study.cell(cell), results)
        return Ending(None, 'its worker died')

    engine = Here(fate=fate)
    assert run_cells(study, results, engine) == {}
    assert len(engine.started) == len(study.cells)


def test_a_cell_that_kills_its_workers_is_given_up_and_recorded(
    study: Study, tmp_path: Path
) -> None:
    results = tmp_path / 'results'
    engine = Here(fate=lambda cell: Ending(None, 'out of memory') if cell == 'parent' else None)
    assert run_cells(study, results, engine) == {'parent': 'lost 3 times: out of memory'}
    assert find_failure(results, study.cells[0]) == 'lost 3 times: out of memory'
    assert engine.started.count('parent') == 3
    assert '2 of 3 cells done' in make_table(study, results).to_text()


def test_an_engine_that_is_lost_loses_no_result_and_another_ends_the_comparison(
    study: Study, tmp_path: Path
) -> None:
    results = tmp_path / 'results'

    def fate(cell: str) -> None:
        if cell != 'parent':
            raise EngineError('the head is gone')

    with pytest.raises(EngineError, match='the head is gone'):
        run_cells(study, results, Here(fate=fate))
    assert find_result(results, study.cells[0]) is not None
    second = Here()
    assert run_cells(study, results, second) == {}
    assert sorted(second.started) == ['l2-macs0.5-seed0', 'l2-macs0.5-seed1']


def test_controls_wait_for_what_they_control_on_every_engine(tmp_path: Path) -> None:
    methods = {'control': {'kind': 'scratch', 'of': 'l2'}, **METHODS}
    study = _study(tmp_path, methods=methods, seeds=[0])
    engine = Here(places=float('inf'))
    made: list[str] = []
    engine.fate = lambda cell: made.append(cell)
    assert run_cells(study, tmp_path / 'results', engine) == {}
    assert made.index('l2-macs0.5-seed0') < engine.started.index('control-macs0.5-seed0')


def test_a_cell_that_somebody_still_works_at_waits_until_it_is_free(
    study: Study, tmp_path: Path
) -> None:
    results = tmp_path / 'results'
    said: list[str] = []
    with contextlib.ExitStack() as other:
        other.enter_context(locked(results / 'parent'))
        engine = Here(places=1)

        def fate(cell: str) -> None:
            if len(engine.started) == 2:  # both others were preferred
                other.close()

        engine.fate = fate
        assert run_cells(study, results, engine, say=said.append) == {}
    assert engine.started[-1] == 'parent'
    assert len([each for each in said if 'parent: in use by another process' in each]) == 1


# Two engines


def test_a_second_engine_in_one_folder_is_refused_here_and_from_other_machines(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / 'results'
    with lease.held(results), pytest.raises(FolderError, match='in use by another process'):
        run_cells(study, results, Here())
    # A machine whose locks we do not see: its file goes on changing.
    (results / lease.FILE).write_text('token elsewhere 77 1\n')
    monkeypatch.setattr(
        lease.time, 'sleep', lambda _: (results / lease.FILE).write_text('token elsewhere 77 2\n')
    )
    with pytest.raises(FolderError, match='in use by process 77 on elsewhere'):
        run_cells(study, results, Here())
    # One that was cut off: it does not.
    monkeypatch.setattr(lease.time, 'sleep', lambda _: None)
    with lease.held(results) as found:
        assert (results / lease.FILE).read_text().startswith(found.token)


def test_results_are_wanted_as_long_as_the_file_changes_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(ray_worker.time, 'monotonic', lambda: clock[0])
    path = tmp_path / 'lease'

    def look(text: str | None, seconds: float) -> bool:
        clock[0] += seconds
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        return wanted()

    wanted = ray_worker._Wanted(path, 'mine', lease.STOP)
    assert all(look(f'mine host 1 {tick}', 50) for tick in range(5))
    assert look('mine host 1 4', 50)
    assert not look('mine host 1 4', 50), 'frozen for longer than its patience'
    for text in (None, 'other host 2 1'):
        wanted = ray_worker._Wanted(path, 'mine', lease.STOP)
        seen = [look(text, 2) for _ in range(ray_worker.MISSED)]
        assert seen == [True] * (ray_worker.MISSED - 1) + [False]
    wanted = ray_worker._Wanted(path, 'mine', lease.STOP)
    with lease.held(tmp_path / 'results') as ours:
        assert look(ours.path.read_text().replace(ours.token, 'mine'), 2)
        ours.stop()
        assert not look(ours.path.read_text(), 2)


# What machines have in common


def test_fingerprint_changes_with_what_results_depend_on(tmp_path: Path) -> None:
    shutil.copy(blobs.__file__, tmp_path)
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / '1.png').write_bytes(b'1')
    first = fingerprint(_study(tmp_path, data=['images']))
    assert set(first) >= {'Python', 'pruned_perception', 'torch', 'numpy', 'task', 'data'}
    assert fingerprint(_study(tmp_path, data=['images'])) == first
    (tmp_path / 'images' / '1.png').write_bytes(b'2')
    second = fingerprint(_study(tmp_path, data='images'))
    assert {key for key in first if first[key] != second[key]} == {'data'}
    third = fingerprint(_study(tmp_path, data='images', seeds=[0, 1, 2]))
    assert {key for key in second if second[key] != third[key]} == {'comparison'}
    with pytest.raises(PruningError, match=r'field data: .*absent: no such file or folder'):
        fingerprint(_study(tmp_path, data='absent'))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({}, ''),
        ({'folder': '/absent'}, '/absent, where the comparison was started, is not there'),
        ({'torch': '1.0'}, r'torch: \S+, expected 1\.0'),
        ({RESULTS: 'other'}, f'{RESULTS}: no such folder, expected other'),
    ],
)
def test_a_node_that_differs_is_refused_with_the_reason_found_out_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], message: str
) -> None:
    answer = {RESULTS: 'no such folder', 'torch': '2.13'}
    (tmp_path / 'check.py').write_text(
        f"open('asked', 'a').write('x'); import json; print(json.dumps({answer}))"
    )
    monkeypatch.setattr(ray_worker.tempfile, 'gettempdir', lambda: str(tmp_path))
    expected = {key: change.get(key, value) for key, value in answer.items()}
    order = {
        'folder': change.get('folder', str(tmp_path)),
        'check': ['check.py'],
        'environment': {},
        'expected': expected,
        'token': '1',
    }
    reasons = {ray_worker.refusal(order, 'node') for _ in range(3)}
    assert len(reasons) == 1
    assert re.search(message, reasons.pop())
    if 'folder' not in change:
        assert (tmp_path / 'asked').read_text() == 'x'


def test_a_node_without_the_package_says_so(tmp_path: Path) -> None:
    order = {
        'folder': str(tmp_path),
        'check': ['-I', '-m', 'no_such_package'],
        'environment': {},
        'expected': {},
        'token': '2',
    }
    assert 'No module named no_such_package' in ray_worker._differing(order)


# The command


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--address', '127.0.0.1:1'], '--address: is for --engine ray'),
        (['--gpus', '0.5'], '--gpus: is for --engine ray'),
        (['--device', 'gpu'], '--device gpu: there are auto'),
        (['--engine', 'ray', '--address', 'http://x'], 'must be host:port'),
        (['--engine', 'ray', '--address', '127.0.0.1:1'], '127.0.0.1:1: no answer'),
    ],
)
def test_options_that_do_not_fit_and_addresses_that_do_not_answer_are_refused(
    study: Study,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda name: object())
    assert main(['compare', str(study.path), '--quiet', *options]) == 1
    assert message in capsys.readouterr().err


def test_without_ray_the_way_to_get_it_is_said(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(EngineError, match=r"pip install 'pruned_perception\[ray\]'"):
        run_cells(study, tmp_path / 'results', RayEngine())
