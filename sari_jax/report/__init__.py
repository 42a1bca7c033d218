"""Charts and pages that show runs and results."""
