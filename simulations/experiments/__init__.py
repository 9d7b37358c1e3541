"""What an experiment is: one frozen value, from a file or from Python, checked before it runs."""
