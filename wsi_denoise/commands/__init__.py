"""The commands, by what they are about. Imported by the command line only."""
