// Before, after and their difference as layers of one viewport: what is moved, moves all of them.

const SIDES = ["before", "after"];

export class Layers {
  constructor(osd, job, version, missing) {
    this.osd = osd;
    this.url = (which, more = "") => `/slides/${job}/${which}.dzi?v=${version}${more}`;
    this.missing = missing;
    this.items = {};
    this.gain = null;
    this.clip = null;
  }

  has(which) {
    return which === "difference" ? !this.missing.before && !this.missing.after : !this.missing[which];
  }

  add(which, options) {
    return new Promise((resolve, reject) => {
      this.osd.addTiledImage({
        x: 0, y: 0, width: 1, ...options,
        success: (event) => resolve(event.item),
        error: (event) => reject(new Error(event.message)),
      });
    });
  }

  async open() {
    for (const which of SIDES.filter((side) => this.has(side))) {
      this.items[which] = await this.add(which, { tileSource: this.url(which), preload: true, opacity: 0 });
    }
    return this.items.before ?? this.items.after;
  }

  // Any layer, for geometry: they all lie on each other.
  get any() {
    return this.items.before ?? this.items.after;
  }

  async difference(gain) {
    if (this.gain === gain) return this.items.difference;
    this.gain = gain;
    const old = this.items.difference;
    const made = await this.add("difference", { tileSource: this.url("difference", `&gain=${gain}`), opacity: 0 });
    if (this.gain !== gain) {
      this.osd.world.removeItem(made);
      return null;
    }
    this.items.difference = made;
    if (old) this.osd.world.removeItem(old);
    return made;
  }

  // Show a state. The side that is not seen keeps loading, so that a flip is at once.
  show(state) {
    const { before, after, difference } = this.items;
    const opacity = { before: 0, after: 0, difference: 0 };
    if (state.mode === "difference") opacity.difference = 1;
    else if (state.mode === "flip") opacity[state.side] = 1;
    else if (state.mode === "opacity") Object.assign(opacity, { before: 1, after: state.opacity });
    else Object.assign(opacity, { before: 1, after: 1 });
    for (const [which, item] of Object.entries({ before, after, difference })) {
      if (!item) continue;
      item.setOpacity(opacity[which]);
      if (which !== "difference") item.setPreload(state.mode !== "difference");
    }
    if (state.mode === "difference") {
      this.difference(state.gain).then((item) => {
        if (item && state.mode === "difference") item.setOpacity(1);
      }).catch(() => {});
    }
    this.cut(state);
  }

  // OpenSeadragon 5 does not place its tiles anew where only the height of the screen has changed: they would stay where
  // they were, and be cut off where they should be. Setting the clip, whatever it is, has them placed.
  place() {
    for (const item of Object.values(this.items)) item?.setClip(item.getClip());
  }

  // Before ends where after begins: what has not been loaded yet is empty, and never the other one.
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
    // Setting it has everything drawn again, which comes here again.
    if (x === this.clip) return;
    this.clip = x;
    before.setClip(new OpenSeadragon.Rect(0, 0, x, size.y));
    after.setClip(new OpenSeadragon.Rect(x, 0, size.x - x, size.y));
    before.setOpacity(x > 0 ? 1 : 0);
    after.setOpacity(x < size.x ? 1 : 0);
  }

  // Whether everything that is seen has been loaded.
  get complete() {
    return Object.values(this.items).every((item) => item.getOpacity() === 0 || item.getFullyLoaded());
  }
}
