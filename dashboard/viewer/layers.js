// Before, after and their difference as layers of one viewport: panning moves all of them.

const SIDES = ["before", "after"];
// A level is drawn from half its size on; below that, the next smaller level is.
const SMALLEST = 0.499;

export class Layers {
  constructor(osd, job, info) {
    this.osd = osd;
    this.job = job;
    this.info = info;
    this.items = {};
    this.asked = "";
    this.clip = null;
    this.ratio = 1;
    this.opening = 0;
  }

  has(which) {
    const { missing } = this.info;
    return which === "difference" ? !missing.before && !missing.after : !missing[which];
  }

  // Level 0 and the difference are lossless: JPEG would change the noise that is judged there.
  source(which, query = "") {
    const { width, height, tile, version } = this.info;
    const maxLevel = Math.ceil(Math.log2(Math.max(width, height)));
    const measured = which === "difference";
    return {
      width, height, tileSize: tile, tileOverlap: 0, maxLevel, minLevel: measured ? this.info.difference.least_level : 0,
      isMeasured: measured,
      getTileUrl: (level, x, y) => {
        const kind = measured || level === maxLevel ? "png" : "jpeg";
        return `/slides/${this.job}/${which}_files/${level}/${x}_${y}.${kind}?v=${version}${query}`;
      },
    };
  }

  async add(tileSource, options) {
    this.opening += 1;
    try {
      return await this.opened(tileSource, options);
    } finally {
      this.opening -= 1;
    }
  }

  opened(tileSource, options) {
    return new Promise((resolve, reject) => {
      this.osd.addTiledImage({
        tileSource, x: 0, y: 0, width: 1, minPixelRatio: SMALLEST / this.ratio, ...options,
        success: (event) => resolve(event.item),
        error: (event) => reject(new Error(event.message)),
      });
    });
  }

  async open() {
    for (const which of SIDES.filter((side) => this.has(side))) {
      this.items[which] = await this.add(this.source(which), { preload: true, opacity: 0 });
    }
  }

  // Any layer, for geometry: they all lie on each other.
  get any() {
    return this.items.before ?? this.items.after;
  }

  // Levels are chosen by the pixels of the screen, of which there are several to a CSS pixel.
  setPixelRatio(ratio) {
    this.ratio = ratio;
    for (const item of Object.values(this.items)) if (item) item.minPixelRatio = SMALLEST / ratio;
  }

  // Whether the difference can be shown at a zoom: it is computed from level 0, which takes too long for a large field.
  isMeasured(zoom) {
    return zoom >= this.info.difference.least_zoom * (1 - 1e-6);
  }

  async difference({ gain, of }) {
    const asked = `&gain=${gain}&of=${of}`;
    if (this.asked === asked) return this.items.difference;
    this.asked = asked;
    const old = this.items.difference;
    const made = await this.add(this.source("difference", asked), { opacity: 0 });
    if (this.asked !== asked) {
      this.osd.world.removeItem(made);
      return null;
    }
    this.items.difference = made;
    if (old) this.osd.world.removeItem(old);
    return made;
  }

  // Show a state. The side that is hidden keeps loading, so that a flip takes no time.
  show(state, zoom) {
    const { before, after, difference } = this.items;
    const opacity = { before: 0, after: 0, difference: 0 };
    const measured = state.mode === "difference" && this.isMeasured(zoom);
    if (state.mode === "difference") opacity.difference = Number(measured);
    else if (state.mode === "flip") opacity[state.side] = 1;
    else if (state.mode === "opacity") Object.assign(opacity, { before: 1, after: state.opacity });
    else Object.assign(opacity, { before: 1, after: 1 });
    for (const [which, item] of Object.entries({ before, after, difference })) {
      if (!item) continue;
      item.setOpacity(opacity[which]);
      if (which !== "difference") item.setPreload(state.mode !== "difference");
    }
    if (measured) {
      this.difference(state).then((item) => {
        if (item && state.mode === "difference") item.setOpacity(Number(this.isMeasured(zoom)));
      }).catch(() => {});
    }
    this.cut(state);
  }

  // OpenSeadragon 5 leaves tiles at their old places where only the height of the screen has changed. Setting the clip
  // places them again.
  place() {
    for (const item of Object.values(this.items)) item?.setClip(item.getClip());
  }

  // Before ends where after begins: a part that is not loaded yet is empty, and never the other side.
  cut(state) {
    const { before, after } = this.items;
    if (!before || !after) return;
    if (state.mode !== "curtain") {
      for (const item of [before, after]) if (item.getClip()) item.setClip(null);
      this.clip = null;
      return;
    }
    const size = after.getContentSize();
    const at = new OpenSeadragon.Point(state.curtain * this.osd.container.clientWidth, 0);
    const x = Math.min(size.x, Math.max(0, after.viewerElementToImageCoordinates(at).x));
    // Setting the clip draws again, which calls this function again.
    if (x === this.clip) return;
    this.clip = x;
    before.setClip(new OpenSeadragon.Rect(0, 0, x, size.y));
    after.setClip(new OpenSeadragon.Rect(x, 0, size.x - x, size.y));
    before.setOpacity(x > 0 ? 1 : 0);
    after.setOpacity(x < size.x ? 1 : 0);
  }

  // Whether every visible tile has been loaded.
  get complete() {
    return !this.opening && Object.values(this.items).every((item) => item.getOpacity() === 0 || item.getFullyLoaded());
  }
}
