const places = new WeakMap();

const linkRow = (tell) => (first) => {
  const name = element("bdi", { class: "name" });
  const link = element("a", { class: "clip", href: `/compare?job=${first.id}` }, name);
  link.addEventListener("click", (event) => follow(event, () => tell("act", { what: "open", job: first.id, nonce: Date.now() })));
  const [text, more, side] = [element("span"), element("span", { class: "weak clip" }), element("span", { class: "weak number" })];
  const row = element("li", {}, link, text, more, side);
  row.update = (one) => {
    say(name, one.name);
    give(link, "title", one.name);
    say(text, one.text);
    say(more, one.more);
    say(side, one.side);
  };
  return row;
};

export default ({ data, parentElement, setTriggerValue }) => {
  let place = places.get(parentElement);
  if (!place) {
    const list = element("ul");
    const root = element("div", { class: "wd" }, list);
    parentElement.append(root);
    place = { root, list };
    places.set(parentElement, place);
  }
  give(place.list, "aria-label", data.label);
  keyed(place.list, data.rows, linkRow(setTriggerValue));
  return () => {
    place.root.remove();
    places.delete(parentElement);
  };
};
