"""How often a pruned network decides otherwise than its parent, with a confidence bound."""

from pruned_perception.pruning.certificate.certificate import Certificate, certify

__all__ = [
    'Certificate',
    'certify',
]
