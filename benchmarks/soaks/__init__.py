"""The long forms of fault rows: `make soak`."""
