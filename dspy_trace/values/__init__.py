"""Values of the program's, of whatever kind, as plain data within bounds, read without running code of theirs."""
