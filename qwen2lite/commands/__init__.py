"""The longer commands of the command line. Each imports what it needs when it is run."""
