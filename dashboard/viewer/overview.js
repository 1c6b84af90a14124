// The small picture of the whole slide, with a frame around what is seen. A click or a drag goes there.

export class Overview {
  constructor(box, job, info, go) {
    this.box = box;
    this.info = info;
    [this.picture, this.frame] = box.children;
    this.picture.addEventListener("load", () => this.place());
    this.picture.addEventListener("error", () => { box.hidden = true; });
    this.picture.src = `/slides/${job}/thumbnail.jpeg?side=256&v=${info.version}`;
    const move = (event) => {
      const bounds = this.picture.getBoundingClientRect();
      go(((event.clientX - bounds.left) / bounds.width) * info.width,
        ((event.clientY - bounds.top) / bounds.height) * info.height);
    };
    box.addEventListener("pointerdown", (event) => {
      box.setPointerCapture(event.pointerId);
      move(event);
    });
    box.addEventListener("pointermove", (event) => {
      if (box.hasPointerCapture(event.pointerId)) move(event);
    });
  }

  // `seen` is the part of the slide on the screen, in its pixels: {x, y, width, height}.
  place(seen = this.seen) {
    this.seen = seen;
    const { clientWidth, clientHeight } = this.picture;
    if (!seen || !clientWidth) return;
    const across = clientWidth / this.info.width;
    const down = clientHeight / this.info.height;
    const left = Math.max(0, seen.x * across);
    const top = Math.max(0, seen.y * down);
    const right = Math.min(clientWidth, (seen.x + seen.width) * across);
    const bottom = Math.min(clientHeight, (seen.y + seen.height) * down);
    Object.assign(this.frame.style, {
      left: `${Math.min(left, clientWidth - 6)}px`, top: `${Math.min(top, clientHeight - 6)}px`,
      width: `${Math.max(0, right - left)}px`, height: `${Math.max(0, bottom - top)}px`,
    });
  }
}
