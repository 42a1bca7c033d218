"""Hides PyTorch from the processes that tests start, as most who train have none; importing it is half of a start."""

import sys

sys.modules["torch"] = None
