const linkRow = (tell) => (first) => {
  const name = element("bdi", { class: "name" });
  const link = element("a", { class: "clip", href: `/compare?job=${first.id}` }, name);
  link.addEventListener("click", (event) => follow(event, () => tell({ what: "open", job: first.id })));
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

const build = (root, tell) => {
  const list = element("ul");
  root.append(list);
  return {
    update: (data) => {
      give(list, "aria-label", data.label);
      keyed(list, data.rows, linkRow(tell));
    },
  };
};

export default mounted(build);
