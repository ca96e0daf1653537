"""The only code that touches descriptors, the clock, signals and files; knows nothing of guests."""
