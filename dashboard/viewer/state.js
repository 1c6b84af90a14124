// What a link restores: place, zoom, mode and what belongs to it. Pure, apart from reading and writing the address.

export const MODES = ["curtain", "flip", "opacity", "difference"];
export const MEASURES = ["mean", "rms"];
export const MAPS = ["", "noise", "structure"];
const DEFAULTS = { mode: "curtain", side: "before", curtain: 0.5, opacity: 0.5, gain: 4, of: "mean", overlay: "", strength: 0.5 };

function number(text, low, high) {
  if (text === null || text.trim() === "") return null;
  const value = Number(text);
  return Number.isFinite(value) && value >= low && value <= high ? value : null;
}

function oneOf(text, allowed, otherwise) {
  return allowed.includes(text) ? text : otherwise;
}

// The state that a query string means; what is missing or wrong takes its default, and a place without a zoom is none.
export function parse(query) {
  const asked = new URLSearchParams(query);
  const far = 1e7;
  const x = number(asked.get("x"), -far, far);
  const y = number(asked.get("y"), -far, far);
  const zoom = number(asked.get("zoom"), 1e-6, 1e3);
  const gain = number(asked.get("k"), 1, 64);
  return {
    x, y, zoom,
    placed: x !== null && y !== null && zoom !== null,
    mode: oneOf(asked.get("mode"), MODES, DEFAULTS.mode),
    side: oneOf(asked.get("side"), ["before", "after"], DEFAULTS.side),
    curtain: number(asked.get("position"), 0, 1) ?? DEFAULTS.curtain,
    opacity: number(asked.get("opacity"), 0, 1) ?? DEFAULTS.opacity,
    gain: gain === null ? DEFAULTS.gain : 2 ** Math.round(Math.log2(gain)),
    of: oneOf(asked.get("of"), MEASURES, DEFAULTS.of),
    overlay: oneOf(asked.get("overlay"), MAPS, DEFAULTS.overlay),
    strength: number(asked.get("strength"), 0.05, 1) ?? DEFAULTS.strength,
    theme: oneOf(asked.get("theme"), ["light", "dark"], ""),
  };
}

function short(value, digits) {
  return String(Number(value.toPrecision(digits)));
}

// The parameters of a state, without those that do not matter in its mode.
export function parameters(state) {
  const result = { x: String(Math.round(state.x * 10) / 10), y: String(Math.round(state.y * 10) / 10) };
  result.zoom = short(state.zoom, 5);
  result.mode = state.mode;
  if (state.mode === "flip") result.side = state.side;
  if (state.mode === "curtain") result.position = short(state.curtain, 3);
  if (state.mode === "opacity") result.opacity = short(state.opacity, 3);
  if (state.mode === "difference") Object.assign(result, { k: String(state.gain), of: state.of });
  if (state.overlay) {
    result.overlay = state.overlay;
    result.strength = short(state.strength, 2);
  }
  if (state.theme) result.theme = state.theme;
  return result;
}
