"""Many runs from one file: which they are, how they are started, and what came of each."""
