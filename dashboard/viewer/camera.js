// What of the slide is on the screen, in pixels of the slide and of the screen: 1 is one to one on every display.

import { PixelDrawer, pixelRatio } from "./drawer.js";
import { isWhole, placement } from "./pixels.js";

const SETTINGS = {
  prefixUrl: "/viewer/static/", showNavigationControl: false, showNavigator: false, tabIndex: "",
  preserveImageSizeOnResize: true, animationTime: 0.5, springStiffness: 9, blendTime: 0, maxZoomPixelRatio: 16,
  visibilityRatio: 0.3, zoomPerScroll: 1.3, imageLoaderLimit: 6, maxImageCacheCount: 300, crossOriginPolicy: false,
  loadTilesWithAjax: false, timeout: 60000, gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
  gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
};
const FARTHEST = 0.7;
const NEAR_ONE = 0.02;

export function openViewer(element) {
  const osd = new OpenSeadragon.Viewer({ element, drawer: PixelDrawer, ...SETTINGS });
  // The page has its own keys.
  osd.innerTracker.keyDownHandler = null;
  osd.innerTracker.keyHandler = null;
  return osd;
}

export class Camera {
  constructor(osd, layers) {
    this.osd = osd;
    this.layers = layers;
  }

  get viewport() {
    return this.osd.viewport;
  }

  // CSS pixels per pixel of the slide.
  get cssZoom() {
    return this.layers.any.viewportToImageZoom(this.viewport.getZoom(true));
  }

  // Screen pixels per pixel of the slide, as they are drawn now.
  get zoom() {
    return placement({ left: 0, top: 0, scale: this.cssZoom * pixelRatio() }).scale;
  }

  // The zoom that an animation leads to.
  get target() {
    const scale = this.layers.any.viewportToImageZoom(this.viewport.getZoom(false)) * pixelRatio();
    return placement({ left: 0, top: 0, scale }).scale;
  }

  get centre() {
    return this.layers.any.viewportToImageCoordinates(this.viewport.getCenter(false));
  }

  // One to one can be reached on any screen, however small the slide.
  limit() {
    const one = this.layers.any.imageToViewportZoom(1 / pixelRatio());
    this.viewport.minZoomLevel = FARTHEST * Math.min(this.viewport.getHomeZoom(), one);
    this.layers.setPixelRatio(pixelRatio());
  }

  go(x, y, scale, immediately = false) {
    const layer = this.layers.any;
    if (scale) this.viewport.zoomTo(layer.imageToViewportZoom(scale / pixelRatio()), null, immediately);
    this.viewport.panTo(layer.imageToViewportCoordinates(new OpenSeadragon.Point(x, y)), immediately);
    this.viewport.applyConstraints(immediately);
  }

  // Where nothing moves: a zoom next to 100 % is 100 %, and a slide that is drawn pixel by pixel lies on whole pixels.
  // A link then leads to the same pixels. Returns whether the view was changed.
  snap() {
    const layer = this.layers.any;
    const { target, viewport } = this;
    if (target !== 1 && Math.abs(target - 1) < NEAR_ONE) {
      viewport.zoomTo(layer.imageToViewportZoom(1 / pixelRatio()), null, true);
    }
    const raw = this.osd.drawer.rawPlace(layer);
    if (!isWhole(raw.scale)) return false;
    const place = placement(raw);
    const by = new OpenSeadragon.Point(raw.left - place.left, raw.top - place.top);
    if (Math.abs(by.x) + Math.abs(by.y) < 0.01) return false;
    viewport.panBy(viewport.deltaPointsFromPixels(by.divide(pixelRatio()), true), true);
    return true;
  }
}
