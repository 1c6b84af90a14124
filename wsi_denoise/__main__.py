"""Runs the command line as ``python -m wsi_denoise``."""

from wsi_denoise.cli.app import main

if __name__ == "__main__":
    main()
