"""What refold stands on: one module or package for each technology, found by the engine through entry points."""
