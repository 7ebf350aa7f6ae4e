"""Records checked by the hundred thousand before anybody writes them, or long after: `refold validate`."""

from .checks import FieldError
from .validating import Invalid, Plan, Validation

__all__ = ["FieldError", "Invalid", "Plan", "Validation"]
