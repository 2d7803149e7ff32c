"""What may fail between a program and its traces, done to real programs: see the table at the end of the run."""
