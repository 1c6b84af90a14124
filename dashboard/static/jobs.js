const COLUMNS = [
  ["slide", "Slide", "slide"],
  ["result", "Result", "state"],
  ["why", "Why", null],
  ["preset", "Preset", null],
  ["size", "Size", "size"],
  ["created", "Seen", "created"],
  ["finished", "Finished", "finished"],
];

const jobRow = (tell) => (first) => {
  const name = slideName();
  const link = element("a", { href: `/history?job=${first.id}` }, name);
  link.addEventListener("click", (event) => follow(event, () => tell({ what: "open", job: first.id })));
  const chip = element("span", { class: "chip" });
  const cells = Object.fromEntries(COLUMNS.map(([key]) => [key, element("td", { class: `c-${key}` })]));
  cells.slide.append(link);
  cells.result.append(chip);
  const row = element("tr", {}, ...Object.values(cells));
  row.update = (one) => {
    name.update(one);
    chip.className = `chip ${one.colour}`;
    say(chip, one.word);
    give(chip, "title", one.meaning);
    sayWithJob(cells.why, one.why, one.same);
    for (const key of ["preset", "size", "created", "finished"]) say(cells[key], one[key]);
    give(cells.why, "title", one.why);
  };
  return row;
};

const build = (root, tell) => {
  const heads = COLUMNS.map(([key, label, sort]) => {
    const head = element("th", { scope: "col", class: `c-${key}` });
    if (!sort) {
      head.append(label);
      head.update = () => {};
      return head;
    }
    const arrow = element("span", { class: "arrow", "aria-hidden": "true" });
    let now = "";
    const button = element("button", { type: "button" }, label, " ", arrow);
    button.addEventListener("click", () => {
      now = now === `-${sort}` ? sort : `-${sort}`; // at once: a second click may come before the answer
      tell({ what: "sort", value: now });
    });
    head.append(button);
    head.update = (given) => {
      now = given;
      const mine = given.replace("-", "") === sort;
      say(arrow, mine ? (given.startsWith("-") ? "↓" : "↑") : "");
      give(head, "aria-sort", mine ? (given.startsWith("-") ? "descending" : "ascending") : null);
    };
    return head;
  });
  const shown = element("span", { role: "status" });
  const back = element("button", { type: "button" }, element("span", { "aria-hidden": "true" }, "‹\u00a0"), "Back");
  const on = element("button", { type: "button" }, "Next", element("span", { "aria-hidden": "true" }, "\u00a0›"));
  let page = 1;
  back.addEventListener("click", () => tell({ what: "page", value: page - 1 }));
  on.addEventListener("click", () => tell({ what: "page", value: page + 1 }));
  const exports_ = element("span", { class: "export" });
  const body = element("tbody");
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body);
  const none = element("p", { class: "none" });
  root.append(
    element("div", { class: "top" }, shown, element("nav", { "aria-label": "Pages of the history" }, back, on), element("span", { class: "grow" }), exports_),
    table,
    none,
  );
  const update = (data) => {
    page = data.page;
    heads.forEach((head) => head.update(data.sort));
    say(shown, data.shown);
    give(back, "disabled", data.page <= 1 ? "" : null);
    give(on, "disabled", data.page >= data.pages ? "" : null);
    keyed(body, data.rows, jobRow(tell));
    show(table, data.rows.length > 0);
    show(none, data.rows.length === 0);
    say(none, data.none);
    show(exports_, data.rows.length > 0);
    if (exports_.dataset.query !== data.query) {
      exports_.dataset.query = data.query;
      exports_.replaceChildren(
        element("span", { class: "weak" }, "Export what is filtered:"),
        ...["csv", "json", "parquet"].map((kind) =>
          element("a", { class: "button", href: `/export/jobs.${kind}${data.query}`, download: `jobs.${kind}` }, kind === "parquet" ? "Parquet" : kind.toUpperCase()),
        ),
      );
    }
  };
  return { update };
};

export default mounted(build);
