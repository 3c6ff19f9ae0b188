from __future__ import annotations

from pathlib import Path

import pytest
import shapes

pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")


@pytest.fixture(scope='session')
def shapes_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the data sets `train` and `validation` of coloured shapes."""
    root = tmp_path_factory.mktemp('shapes')
    shapes.write_shapes(root / 'train', 120, seed=1)
    shapes.write_shapes(root / 'validation', 40, seed=2)
    return root
