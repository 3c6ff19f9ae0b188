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

"""Loading MuJoCo and its off-screen OpenGL context, with errors that say what to install."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from typing import Any

from pruned_perception.errors import UserError

_NO_DRIVER = (
    'the simulator cannot render: no off-screen OpenGL driver ({reason}). '
    'Install Mesa: sudo apt install libegl1 libgl1-mesa-dri '
    '(MUJOCO_GL={backend}; egl is the default, osmesa the alternative)'
)


def load_mujoco() -> Any:
    """Return the module `mujoco`, prepared for off-screen rendering.

    Raises
    ------
    UserError
        If MuJoCo is not installed, or the OpenGL library that it needs cannot be loaded.
    """
    os.environ.setdefault('MUJOCO_GL', 'egl')
    if importlib.util.find_spec('mujoco') is None:
        raise UserError(
            "the simulator needs MuJoCo: pip install 'pruned_perception[sim]' (or pip install "
            "'mujoco>=3.3,<5')"
        )
    try:
        return importlib.import_module('mujoco')
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise _driver_error(error) from error


def open_context(width: int, height: int) -> Any:
    """Return the process's off-screen OpenGL context, made current in the calling thread.

    One is kept for each size, because opening it takes nearly a second.

    Raises
    ------
    UserError
        If there is no working driver.
    """
    try:
        context = _context(width, height)
        context.make_current()
    except UserError:
        raise
    except Exception as error:  # each backend raises errors of its own
        raise _driver_error(error) from error
    return context


@functools.cache
def _context(width: int, height: int) -> Any:
    return load_mujoco().GLContext(width, height)


def _driver_error(error: Exception) -> UserError:
    backend = os.environ.get('MUJOCO_GL', 'egl')
    return UserError(_NO_DRIVER.format(reason=str(error).strip() or repr(error), backend=backend))
