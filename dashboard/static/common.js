// What the page's own components share. Text enters the document as text only (textContent), never as markup.

const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
};

// Changing nothing where nothing changed keeps selections, focus and screen readers undisturbed.
const say = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};
// Text in which "job 12" is a link to that job.
const sayWithJob = (node, text, job) => {
  if (!job || !text.includes(`job ${job}`)) return say(node, text);
  if (node.textContent === text && node.querySelector("a")) return;
  const [before, after] = text.split(`job ${job}`);
  node.replaceChildren(before, element("a", { href: `/history?job=${job}`, target: "_self" }, `job ${job}`), after);
};
const give = (node, name, value) => {
  if (value === null || value === false || value === undefined) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
};
const show = (node, wanted) => {
  if (node.hidden === wanted) node.hidden = !wanted;
};

const icon = (path) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", "path");
  drawn.setAttribute("d", path);
  svg.append(drawn);
  return svg;
};
const UP = "M8 3 3 8.5l1.2 1.1L7.2 6.5V13h1.6V6.5l3 3.1L13 8.5z";
const DOWN = "M8 13l5-5.5-1.2-1.1-3 3.1V3H7.2v6.5l-3-3.1L3 7.500z";
const CROSS = "M4.2 3 3 4.2 6.8 8 3 11.8 4.2 13 8 9.2l3.8 3.8 1.2-1.2L9.2 8 13 4.2 11.8 3 8 6.8z";

// A slide's name, its folder before it in a weaker colour; a name of any direction of writing stays in its place.
const slideName = () => {
  const folder = element("bdi", { class: "folder" });
  const name = element("bdi", { class: "name" });
  const made = element("span", { class: "slide" }, folder, name);
  made.update = (one) => {
    say(folder, one.folder);
    say(name, one.name);
    give(made, "title", one.folder + one.name);
  };
  return made;
};

// Rows that keep their identity: the row of job 7 is the same node as long as job 7 is listed.
const keyed = (list, items, make) => {
  list.byId ??= new Map();
  const wanted = new Set(items.map((item) => item.id));
  for (const [id, row] of list.byId) {
    if (!wanted.has(id)) {
      row.remove();
      list.byId.delete(id);
    }
  }
  let before = list.firstElementChild;
  for (const item of items) {
    let row = list.byId.get(item.id);
    if (!row) {
      row = make(item);
      list.byId.set(item.id, row);
    }
    if (row === before) before = before.nextElementSibling;
    else list.insertBefore(row, before);
    row.update(item);
  }
};

// A click in the page's own links stays in this session; with a modifier key the browser does what it always does.
const follow = (event, go) => {
  if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go();
};

// What Streamlit calls at the first look and whenever the data changes, with the element to draw into. `build(root, tell)`
// draws once and returns what takes new data; and, where there is something to be undone at the end, `close`.
const mounted = (build) => {
  const places = new WeakMap();
  return ({ data, parentElement, setTriggerValue }) => {
    let place = places.get(parentElement);
    if (!place) {
      const root = element("div", { class: "wd" });
      parentElement.append(root);
      place = { root };
      // Through the place: the function to call may be another one after a rerun. The time makes each event a new one.
      Object.assign(place, build(root, (event) => place.tell("act", { ...event, nonce: Date.now() })));
      places.set(parentElement, place);
    }
    place.tell = setTriggerValue;
    place.update(data);
    return () => {
      place.close?.();
      place.root.remove();
      places.delete(parentElement);
    };
  };
};
