"""The verbs of the command line, one group a file, and what they share."""
