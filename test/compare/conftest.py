import pytest

pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
