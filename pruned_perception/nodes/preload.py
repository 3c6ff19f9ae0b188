"""Shared libraries mapped by a thread, while the interpreter is busy with other imports."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import threading
from pathlib import Path

LIBRARIES = (('onnxruntime', 'capi/onnxruntime_pybind11_state*.so'), ('cv2', 'cv2*.so'))
"""Packages, and within them the extension modules that take longest to load."""


def preload() -> None:
    """Start to load the shared libraries of ONNX Runtime and OpenCV in the background.

    Their imports later find them loaded. `dlopen` is called as a foreign function, which, unlike an
    import, leaves the interpreter to other threads. What is not found is left to the import.
    """
    threading.Thread(target=_load, name='preload', daemon=True).start()


def _load() -> None:
    try:
        dlopen = ctypes.CDLL(None).dlopen
    except (AttributeError, OSError):
        return
    dlopen.restype, dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
    for package, pattern in LIBRARIES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            for library in Path(folder).glob(pattern):
                dlopen(os.fsencode(library), os.RTLD_NOW)
