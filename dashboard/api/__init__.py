"""Routes for programs: jobs, slides, exports, uploads and metrics."""
