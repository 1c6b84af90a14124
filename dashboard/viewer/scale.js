// The scale bar: a round length that is between 60 and 150 screen pixels long. Nothing where the slide states no size.

const STEPS = [1, 2, 5];

// The longest round length, in micrometres, that is at most `most` micrometres.
export function roundLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return STEPS.filter((step) => step * power <= most * (1 + 1e-9)).pop() * power;
}

export function lengthText(micrometres) {
  if (micrometres >= 1000) return `${micrometres / 1000} mm`;
  return micrometres >= 1 ? `${micrometres} µm` : `${Math.round(micrometres * 1000)} nm`;
}

export function drawScale(box, mpp, zoom) {
  const [bar, text] = box.children;
  box.hidden = !mpp;
  if (!mpp) return;
  const perPixel = mpp[0] / zoom;
  const length = roundLength(150 * perPixel);
  bar.style.width = `${length / perPixel}px`;
  text.textContent = lengthText(length);
}

// A zoom in words; 100 % is one to one and nothing else.
export function zoomText(zoom) {
  const percent = zoom * 100;
  const near = percent !== 100 && Math.round(percent) === 100;
  if (near) return `${percent.toFixed(1)} %`;
  return `${percent < 100 ? Number(percent.toPrecision(3)) : Math.round(percent)} %`;
}
