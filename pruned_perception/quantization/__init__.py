"""Networks in 8 bits: calibrated, with sensitive layers left in float, checked against the float.

frames → ranges → QDQ graph → which layers to leave in float → bundle that checks itself at load.
Off-line: needs the package `onnx`.
"""

from pruned_perception.quantization.bundles import QuantizationRecord, quantize_bundle
from pruned_perception.quantization.errors import QuantizationError
from pruned_perception.quantization.schemes import SCHEMES, Scheme, saturates, scheme_for_here

__all__ = [
    'SCHEMES',
    'QuantizationError',
    'QuantizationRecord',
    'Scheme',
    'quantize_bundle',
    'saturates',
    'scheme_for_here',
]
