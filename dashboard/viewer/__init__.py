"""Deep-zoom viewer: its page, scripts, and routes. OpenSeadragon is downloaded into `library`."""
