// Where the pixels of a slide land on the pixels of the screen. Pure.

const EXACT = 1e-3;

// The scale to draw with: a scale that is a whole number but for rounding errors is that number.
export function exactScale(scale) {
  const whole = Math.round(scale);
  return whole >= 1 && Math.abs(scale - whole) < EXACT * whole ? whole : scale;
}

// Whether a slide at this scale is drawn pixel by pixel: then its corner lies on a corner of a screen pixel.
export const isWhole = (scale) => Number.isInteger(exactScale(scale));

// A layer's place in screen pixels, from the one that the viewport computes.
export function placement({ left, top, scale }) {
  return { left: Math.round(left), top: Math.round(top), scale: exactScale(scale) };
}

// The screen rectangle of a part of the slide, with edges between pixels: neighbours touch without a seam.
export function rectangle(place, x, y, width, height) {
  const left = Math.round(place.left + place.scale * x);
  const top = Math.round(place.top + place.scale * y);
  return {
    left, top,
    width: Math.round(place.left + place.scale * (x + width)) - left,
    height: Math.round(place.top + place.scale * (y + height)) - top,
  };
}

// Whether a tile is interpolated. From 100 % on, pixels of level 0 are copied; a coarser tile stands in until they are loaded.
export function isSmooth(scale, step) {
  return step > 1 || scale < 1;
}

// The least side of a box, in CSS pixels, that covers `least` and has a whole number of screen pixels.
export function boxSide(least, ratio) {
  for (let side = Math.ceil(least); side < least + 24; side += 1) {
    if (Math.abs(side * ratio - Math.round(side * ratio)) < EXACT) return side;
  }
  return Math.ceil(least);
}
