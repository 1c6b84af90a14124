// Draws layers on the screen's own pixels. OpenSeadragon's drawer enlarges every tile by a pixel, places it between
// pixels and interpolates: noise of sigma 13 then shows as 8. Here every edge lies between two pixels of the screen,
// and at 100 % a tile is copied.

import { boxSide, isSmooth, placement, rectangle } from "./pixels.js";

export const pixelRatio = () => window.devicePixelRatio || 1;

export class PixelDrawer extends OpenSeadragon.DrawerBase {
  constructor(options) {
    super(options);
    this.context = this.canvas.getContext("2d");
    this.sketch = document.createElement("canvas");
    this.watch();
  }

  // A move to another screen, or the browser's zoom, changes the ratio; the event comes once for each query.
  watch() {
    this.query = matchMedia(`(resolution: ${pixelRatio()}dppx)`);
    this.changed = () => {
      this.viewer.forceRedraw();
      this.watch();
    };
    this.query.addEventListener("change", this.changed, { once: true });
  }

  static isSupported() {
    return true;
  }

  getType() {
    return "pixel";
  }

  _createDrawingElement() {
    return document.createElement("canvas");
  }

  canRotate() {
    return false;
  }

  setImageSmoothingEnabled() {}

  destroy() {
    this.query.removeEventListener("change", this.changed);
    this.canvas.remove();
  }

  // The place of a layer's level 0 on the screen, before it is moved onto whole pixels.
  rawPlace(layer) {
    const ratio = pixelRatio();
    const corner = this.viewport.pixelFromPoint(layer.getBoundsNoRotate(true).getTopLeft(), true);
    const scale = layer.viewportToImageZoom(this.viewport.getZoom(true));
    return { left: corner.x * ratio, top: corner.y * ratio, scale: scale * ratio };
  }

  // The canvas covers whole pixels of the screen: otherwise the browser interpolates it onto them.
  fit() {
    const ratio = pixelRatio();
    const wide = boxSide(this.container.clientWidth, ratio);
    const high = boxSide(this.container.clientHeight, ratio);
    Object.assign(this.canvas.style, { width: `${wide}px`, height: `${high}px` });
    const [width, height] = [Math.round(wide * ratio), Math.round(high * ratio)];
    for (const canvas of [this.canvas, this.sketch]) {
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    }
  }

  draw(layers) {
    this.fit();
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (const layer of layers) {
      const tiles = layer.getTilesToDraw().map((info) => info.tile);
      if (!layer.opacity || !tiles.length) continue;
      if (layer.opacity === 1) {
        this.drawLayer(this.context, layer, tiles);
        continue;
      }
      // Tiles of two levels may overlap: the layer is made opaque first, and blended as a whole.
      const sketch = this.sketch.getContext("2d");
      sketch.clearRect(0, 0, this.sketch.width, this.sketch.height);
      this.drawLayer(sketch, layer, tiles);
      this.context.globalAlpha = layer.opacity;
      this.context.drawImage(this.sketch, 0, 0);
      this.context.globalAlpha = 1;
    }
  }

  drawLayer(context, layer, tiles) {
    const { source } = layer;
    const place = placement(this.rawPlace(layer));
    const { x, y, width, height } = layer.getClip() ?? { x: 0, y: 0, ...sizeOf(source) };
    const seen = rectangle(place, x, y, width, height);
    context.save();
    context.beginPath();
    context.rect(seen.left, seen.top, seen.width, seen.height);
    context.clip();
    for (const tile of tiles) {
      const picture = tile.getCanvasContext()?.canvas;
      if (!tile.loaded || !picture) continue;
      const step = 2 ** (source.maxLevel - tile.level);
      const side = source.getTileWidth(tile.level) * step;
      const at = rectangle(place, tile.x * side, tile.y * side, picture.width * step, picture.height * step);
      context.imageSmoothingEnabled = !source.isMeasured && isSmooth(place.scale, step);
      context.drawImage(picture, at.left, at.top, at.width, at.height);
    }
    context.restore();
  }
}

function sizeOf(source) {
  return { width: source.dimensions.x, height: source.dimensions.y };
}
