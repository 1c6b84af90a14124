"""Dashboard of wsi-denoise: pages, viewer, and routes for programs."""
