// What is drawn over the slide: a map of its patches, and the frame around the patch that was jumped to.

export class Overlay {
  constructor(canvas, job, info) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.info = info;
    this.url = (name) => `/slides/${job}/maps/${name}.png?v=${info.version}`;
    this.pictures = {};
    this.mark = null;
  }

  load(name, then) {
    if (this.pictures[name]) return;
    const picture = new Image();
    this.pictures[name] = picture;
    picture.addEventListener("load", then);
    picture.src = this.url(name);
  }

  // Draw for a layer's present place on the screen; `zoom` is screen pixels per pixel of the slide.
  draw(layer, zoom, state) {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    const size = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)];
    if (this.canvas.width !== size[0] || this.canvas.height !== size[1]) [this.canvas.width, this.canvas.height] = size;
    const context = this.context;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, ...size);
    if (!state.overlay && !this.mark) return;
    const corner = layer.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0));
    context.setTransform(ratio * zoom, 0, 0, ratio * zoom, ratio * corner.x, ratio * corner.y);
    const picture = this.pictures[state.overlay];
    if (state.overlay && picture?.complete && picture.naturalWidth) this.paint(picture, corner, zoom, state.strength);
    if (this.mark) this.frame(zoom);
  }

  // Only the patches that are seen: a whole map of a large slide would be millions of pixels wide.
  paint(picture, corner, zoom, strength) {
    const { patch, width, height } = this.info;
    const side = patch * zoom;
    const first = (start) => Math.max(0, Math.floor(-start / side));
    const last = (start, length, count) => Math.min(count, Math.ceil((length - start) / side));
    const left = first(corner.x);
    const top = first(corner.y);
    const columns = last(corner.x, this.canvas.clientWidth, picture.naturalWidth) - left;
    const rows = last(corner.y, this.canvas.clientHeight, picture.naturalHeight) - top;
    if (columns <= 0 || rows <= 0) return;
    const context = this.context;
    context.save();
    context.beginPath();
    context.rect(0, 0, width, height);
    context.clip();
    context.globalAlpha = strength;
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, left, top, columns, rows, left * patch, top * patch, columns * patch, rows * patch);
    context.restore();
  }

  frame(zoom) {
    const { patch } = this.info;
    const { x, y } = this.mark;
    const context = this.context;
    for (const [colour, width] of [["#ffffff", 5], ["#c2185b", 2.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = width / zoom;
      context.strokeRect(x - patch / 2, y - patch / 2, patch, patch);
    }
  }
}
