"""Evidence about a denoised slide without a clean reference."""
