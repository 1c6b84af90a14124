"""Models of the noise that cameras, scanners and compression add to an image.

One module per physical cause: :mod:`fields <training.noise.fields>` (noise of unit variance and its strength),
:mod:`mosaic <training.noise.mosaic>` (colour filter array), :mod:`sensor <training.noise.sensor>` (shot and read
noise), :mod:`defects <training.noise.defects>` (stripes and faulty pixels), :mod:`codecs <training.noise.codecs>` (JPEG
and JPEG 2000). :mod:`camera <training.noise.camera>` combines them into the training corruption ``camera``.

Crops are (batch, 3, height, width) float32; images are sRGB in [0, 1], noise fields have unit variance. Values per
crop, such as a sigma or a share, are (batch,). A generator is the only source of randomness.
"""
