// The page of one job: before and after on one viewport, with everything that is set kept in the address.

import { Camera, openViewer } from "./camera.js";
import { pixelRatio } from "./drawer.js";
import { Layers } from "./layers.js";
import { MAPS, parameters, parse } from "./state.js";
import { Overlay } from "./overlay.js";
import { Overview } from "./overview.js";
import { drawScale, zoomText } from "./scale.js";

const $ = (id) => document.getElementById(id);
const job = Number(location.pathname.split("/").pop());
const state = parse(location.search);
const embedded = window.parent !== window;
const root = document.documentElement;
const STEP = 0.05;
const SAVE_AFTER = 250;

let info, osd, layers, camera, overlay, overview;
let place = -1;
let saving = 0;
let ratio = 0;
let measured = null;
let moving = false;

function theme(name) {
  root.dataset.theme = name || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

function say(text) {
  $("said").textContent = text;
}

function fail(text) {
  $("message").textContent = text;
  $("message").hidden = false;
  // Nothing can be done without a slide.
  for (const id of ["bar", "left", "right", "corner", "curtain", "overview"]) $(id).hidden = true;
  $("slide").tabIndex = -1;
  root.dataset.ready = "failed";
}

function go(x, y, scale, immediately = false) {
  camera.go(x, y, scale, immediately);
  save();
}

// The parameters of what is seen now, for the address and for an embedding page.
function link() {
  const { x, y } = camera.centre;
  Object.assign(state, { x, y, zoom: camera.target });
  return parameters(state);
}

// Whether nothing moves, every visible tile has been loaded and drawn, and the address is up to date. Tests wait for it.
function ready() {
  root.dataset.ready = String(!saving && !moving && layers.complete && !osd.world.needsDraw());
}

function save() {
  clearTimeout(saving);
  saving = setTimeout(() => {
    if (moving) return save();
    saving = 0;
    camera.snap();
    ready();
    const set = link();
    history.replaceState(null, "", `?${new URLSearchParams(set)}`);
    if (embedded) window.parent.postMessage({ wsiDenoise: { job, ...set } }, location.origin);
  }, SAVE_AFTER);
  ready();
}

// The address to share: the page around this one, where there is one of the same origin.
function shared() {
  const set = new URLSearchParams(link());
  try {
    if (embedded && window.parent.location.origin === location.origin) {
      const url = new URL(window.parent.location.href);
      for (const [name, value] of new URLSearchParams({ job, ...Object.fromEntries(set) })) url.searchParams.set(name, value);
      return url.href;
    }
  } catch {
    // The page around is of another origin.
  }
  return `${location.origin}${location.pathname}?${set}`;
}

async function copy() {
  const url = shared();
  try {
    await navigator.clipboard.writeText(url);
    say("Link copied.");
  } catch {
    // Without https browsers give no clipboard to a page that is not of this machine.
    const box = document.createElement("textarea");
    box.value = url;
    document.body.append(box);
    box.select();
    say(document.execCommand("copy") ? "Link copied." : url);
    box.remove();
  }
}

function differenceText() {
  const least = info.difference.least_zoom;
  if (!measured) return `The difference is computed from level 0: zoom in to ${zoomText(least)} or more to see it.`;
  const gain = `× ${state.gain}`;
  return state.of === "rms" ? `Before − after, root mean square, ${gain}; black: unchanged`
    : `Before − after, mean, ${gain}; grey: unchanged`;
}

function chips() {
  const left = $("left");
  const right = $("right");
  const texts = {
    curtain: ["Before", "After"],
    flip: [state.side === "before" ? "Before" : "After", ""],
    opacity: [`After, ${Math.round(state.opacity * 100)} %`, ""],
    difference: [differenceText(), ""],
  }[state.mode];
  [left.textContent, right.textContent] = texts;
  left.hidden = false;
  right.hidden = !texts[1];
}

function legend() {
  const facts = info.maps[state.overlay];
  $("legend").hidden = !facts;
  $("overlay-opacity-box").hidden = !facts;
  if (!facts) return;
  $("legend-title").textContent = facts.title;
  $("legend-colours").replaceChildren(...facts.colours.map((colour) => {
    const part = document.createElement("i");
    part.style.background = colour;
    return part;
  }));
  const [low, high] = $("legend-ends").children;
  low.textContent = String(facts.low);
  high.textContent = `${facts.high} ${facts.unit}`;
}

// Bring everything on the page to the state.
function update() {
  for (const button of document.querySelectorAll("[data-mode]")) {
    const chosen = button.dataset.mode === state.mode;
    button.setAttribute("aria-checked", String(chosen));
    button.tabIndex = chosen ? 0 : -1;
  }
  for (const part of document.querySelectorAll(".setting")) part.hidden = part.dataset.for !== state.mode;
  $("side").textContent = state.side === "before" ? "Before" : "After";
  $("side").disabled = !layers.has(state.side === "before" ? "after" : "before");
  $("opacity").value = String(Math.round(state.opacity * 100));
  $("opacity-text").textContent = `${Math.round(state.opacity * 100)} %`;
  $("gain").value = String(Math.log2(state.gain));
  $("gain-text").textContent = `× ${state.gain}`;
  $("overlay").value = state.overlay;
  $("overlay-opacity").value = String(Math.round(state.strength * 100));
  const curtain = $("curtain");
  curtain.hidden = state.mode !== "curtain";
  curtain.style.left = `${state.curtain * 100}%`;
  curtain.setAttribute("aria-valuenow", String(Math.round(state.curtain * 100)));
  curtain.setAttribute("aria-valuetext", `${Math.round(state.curtain * 100)} % of the width shows before`);
  measured = layers.isMeasured(camera.zoom);
  layers.show(state, camera.zoom);
  $("of").value = state.of;
  if (state.overlay) overlay.load(state.overlay, draw);
  chips();
  legend();
  draw();
  save();
}

function zoomNote(zoom) {
  if (zoom > 1) return ", pixels as they are";
  return zoom === 1 ? ", pixel for pixel" : ", made smaller: noise looks weaker";
}

// What follows the viewport; runs with each frame.
function draw() {
  if (ratio !== pixelRatio()) {
    ratio = pixelRatio();
    camera.limit();
  }
  const now = camera.zoom;
  if (state.mode === "difference" && measured !== layers.isMeasured(now)) return update();
  layers.cut(state);
  overlay.draw(layers.any, camera.cssZoom, state);
  drawScale($("scale"), info.mpp, camera.cssZoom);
  $("zoom").textContent = zoomText(now) + zoomNote(now);
  const seen = layers.any.viewportToImageRectangle(osd.viewport.getBounds(true));
  overview.place(seen);
}

function set(change) {
  Object.assign(state, change);
  if (layers.items.before || layers.items.after) update();
}

function mode(name) {
  const possible = name === "flip" ? layers.has(state.side) : layers.has("difference");
  if (possible) set({ mode: name });
}

function flip() {
  if (state.mode !== "flip") return mode("flip");
  const other = state.side === "before" ? "after" : "before";
  if (layers.has(other)) set({ side: other });
  say(state.side === "before" ? "Before" : "After");
}

function jump(step) {
  const places = info.worst;
  if (!places.length) return say("No structure was found in what was removed.");
  place = (place + step + places.length + (place < 0 && step < 0 ? 1 : 0)) % places.length;
  const { x, y, value } = places[place];
  overlay.mark = { x, y };
  go(x, y, Math.max(1, camera.target));
  $("place").textContent = `${place + 1} of ${places.length}`;
  const change = value < 0 ? "lighter than before" : "darker than before";
  say(`${Math.abs(value).toFixed(1)} deviations, ${change}; from ${info.structure_limit} on it is for review.`);
  draw();
}

// One step of what [ and ] change.
function adjust(direction) {
  const within = (value) => Math.min(1, Math.max(0, Math.round((value + direction * STEP) * 100) / 100));
  if (state.mode === "curtain") set({ curtain: within(state.curtain) });
  else if (state.mode === "opacity") set({ opacity: within(state.opacity) });
  else if (state.mode === "difference") {
    set({ gain: Math.min(info.most_gain, Math.max(1, direction > 0 ? state.gain * 2 : state.gain / 2)) });
  } else flip();
}

function keys(show = $("keys").hidden) {
  $("keys").hidden = !show;
  $("help").setAttribute("aria-expanded", String(show));
  if (show) $("close").focus();
}

async function full() {
  try {
    await (document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen());
  } catch {
    say("The browser does not allow full screen here.");
  }
}

function home() {
  osd.viewport.goHome();
  save();
}

function dark() {
  state.theme = root.dataset.theme === "dark" ? "light" : "dark";
  theme(state.theme);
  save();
}

function pan(x, y, far) {
  const by = (far ? 0.5 : 0.12) / osd.viewport.getZoom();
  osd.viewport.panBy(new OpenSeadragon.Point(x * by, y * by));
  osd.viewport.applyConstraints();
  save();
}

function magnify(by) {
  osd.viewport.zoomBy(by);
  osd.viewport.applyConstraints();
  save();
}

const ACTIONS = {
  c: () => mode("curtain"), f: flip, " ": flip, o: () => mode("opacity"), d: () => mode("difference"),
  "[": () => adjust(-1), "]": () => adjust(1), m: () => set({ overlay: nextMap() }),
  r: () => state.mode === "difference" && set({ of: state.of === "rms" ? "mean" : "rms" }),
  n: () => jump(1), p: () => jump(-1), l: copy, v: full, t: dark, "?": () => keys(), h: () => keys(),
  0: home, 1: () => magnify(1 / camera.target), "+": () => magnify(1.5), "=": () => magnify(1.5), "-": () => magnify(1 / 1.5),
  ArrowLeft: (far) => pan(-1, 0, far), ArrowRight: (far) => pan(1, 0, far),
  ArrowUp: (far) => pan(0, -1, far), ArrowDown: (far) => pan(0, 1, far),
  Escape: () => keys(false),
};

function nextMap() {
  const there = MAPS.filter((name) => !name || info.maps[name]);
  return there[(there.indexOf(state.overlay) + 1) % there.length];
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !layers?.any) return;
  const on = event.target;
  if (on.matches("input, select")) return;
  if (on.matches("button") && (event.key === " " || event.key.startsWith("Arrow"))) return;
  if (on.id === "curtain" && event.key.startsWith("Arrow")) {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") adjust(event.key === "ArrowLeft" ? -1 : 1);
    return event.preventDefault();
  }
  const action = ACTIONS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action(event.shiftKey);
}

// Arrow keys within the radio group, as keyboard users expect.
function chosen(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const buttons = [...document.querySelectorAll("[data-mode]")].filter((button) => !button.disabled);
  const next = buttons[(buttons.indexOf(event.target) + step + buttons.length) % buttons.length];
  next?.focus();
  next?.click();
}

function drag(event) {
  const curtain = $("curtain");
  if (!curtain.hasPointerCapture(event.pointerId)) return;
  const bounds = $("stage").getBoundingClientRect();
  set({ curtain: Math.min(1, Math.max(0, (event.clientX - bounds.left) / bounds.width)) });
}

function wire() {
  for (const button of document.querySelectorAll("[data-mode]")) {
    button.addEventListener("click", () => (button.dataset.mode === "flip" && state.mode === "flip" ? flip() : mode(button.dataset.mode)));
    button.addEventListener("keydown", chosen);
  }
  const clicks = { side: flip, previous: () => jump(-1), next: () => jump(1), home, one: ACTIONS[1], link: copy, full, theme: dark,
    help: () => keys(), close: () => { keys(false); $("help").focus(); } };
  for (const [id, action] of Object.entries(clicks)) $(id).addEventListener("click", () => action());
  $("opacity").addEventListener("input", (event) => set({ opacity: event.target.value / 100 }));
  $("gain").addEventListener("input", (event) => set({ gain: 2 ** event.target.value }));
  $("of").addEventListener("change", (event) => set({ of: event.target.value }));
  $("overlay").addEventListener("change", (event) => set({ overlay: event.target.value }));
  $("overlay-opacity").addEventListener("input", (event) => set({ strength: event.target.value / 100 }));
  const curtain = $("curtain");
  curtain.addEventListener("pointerdown", (event) => {
    curtain.setPointerCapture(event.pointerId);
    event.preventDefault();
    curtain.focus({ preventScroll: true });
  });
  curtain.addEventListener("pointermove", drag);
  document.addEventListener("keydown", pressed);
  $("full").hidden = !document.fullscreenEnabled;
  // The page around has its own.
  $("link").hidden = $("theme").hidden = embedded;
}

function describe() {
  const size = `${info.width.toLocaleString("en")} × ${info.height.toLocaleString("en")} px`;
  const mpp = info.mpp ? `, ${Number(info.mpp[0].toPrecision(4))} µm/px` : "";
  $("caption").textContent = `Research use only, derived image. ${info.name}, job ${job}: ${size}${mpp}.`;
  $("caption").title = $("caption").textContent;
  const notes = [...info.notes, ...Object.values(info.missing)];
  $("notes").textContent = notes.join(" ");
  $("notes").hidden = !notes.length;
  document.title = `${info.name} · before and after · wsi-denoise`;
  const both = layers.has("difference");
  for (const button of document.querySelectorAll("[data-mode]")) button.disabled = !both && button.dataset.mode !== "flip";
  if (!both) Object.assign(state, { mode: "flip", side: layers.has("before") ? "before" : "after" });
  for (const option of $("overlay").options) option.disabled = Boolean(option.value) && !info.maps[option.value];
  if (!info.maps[state.overlay]) state.overlay = "";
  $("overlay-box").hidden = !Object.keys(info.maps).length;
  $("places").hidden = !info.worst.length;
  $("place").textContent = `${info.worst.length} place${info.worst.length === 1 ? "" : "s"}`;
}

async function start() {
  theme(state.theme);
  const answer = await fetch(`/slides/${job}/info.json`);
  info = await answer.json();
  if (!answer.ok) return fail(info.error);
  osd = openViewer($("slide"));
  layers = new Layers(osd, job, info);
  camera = new Camera(osd, layers);
  overlay = new Overlay($("over"), job, info);
  if (!layers.has("before") && !layers.has("after")) {
    return fail([...new Set(Object.values(info.missing))].join(" "));
  }
  await layers.open();
  camera.limit();
  describe();
  overview = new Overview($("overview"), job, info, (x, y) => go(x, y, null, true));
  wire();
  if (state.placed) go(state.x, state.y, state.zoom, true);
  else osd.viewport.goHome(true);
  for (const event of ["update-viewport", "resize"]) osd.addHandler(event, draw);
  osd.addHandler("viewport-change", () => layers.cut(state));
  osd.addHandler("tile-load-failed", () => say("A part of the slide could not be loaded."));
  osd.addHandler("animation-start", () => { moving = true; ready(); });
  osd.addHandler("animation-finish", () => { moving = false; save(); });
  osd.addHandler("resize", () => { camera.limit(); layers.place(); save(); });
  osd.addHandler("update-viewport", ready);
  osd.world.addHandler("add-item", ({ item }) => item.addHandler("fully-loaded-change", ready));
  for (const item of Object.values(layers.items)) item.addHandler("fully-loaded-change", ready);
  update();
}

start().catch((error) => fail(`The viewer could not be started: ${error.message}`));
