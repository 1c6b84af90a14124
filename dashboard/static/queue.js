const cancelButton = (what, act) => {
  // Asked twice, so that a slip of the hand stops nothing; the question disappears automatically.
  const button = element("button", { type: "button" });
  let sure = 0;
  let named = "";
  const rest = () => {
    sure = 0;
    button.classList.remove("sure");
    say(button, "Cancel");
    button.name_it?.(named);
  };
  rest();
  button.addEventListener("click", () => {
    if (sure) {
      clearTimeout(sure);
      rest();
      act();
    } else {
      button.classList.add("sure");
      say(button, "Really?");
      button.name_it(named);
      sure = setTimeout(rest, 4000);
    }
  });
  button.name_it = (name) => {
    named = name;
    give(button, "aria-label", `${sure ? "Really? " : ""}Cancel ${what} ${named}`);
  };
  return button;
};

// The slide's picture, with what is not done yet in the dark.
const picture = () => {
  const image = element("img", { alt: "" });
  const canvas = element("canvas", { "aria-hidden": "true" });
  const none = element("span", { class: "none" }, "The picture comes once the slide is open.");
  const made = element("div", { class: "picture" }, element("div", { class: "frame" }, image, canvas), none);
  let job = null;
  let drawn = -1;
  let tries = 0;
  image.addEventListener("load", () => {
    // As large as the place allows, whatever the thumbnail's own size; the map over it is in percent of this.
    const scale = Math.min(made.clientWidth / image.naturalWidth, made.clientHeight / image.naturalHeight);
    image.style.width = `${Math.floor(image.naturalWidth * scale)}px`;
    made.classList.add("seen");
  });
  image.addEventListener("error", () => {
    made.classList.remove("seen");
    image.removeAttribute("src");
  });
  const draw = (map) => {
    canvas.width = map.columns;
    canvas.height = map.rows;
    const brush = canvas.getContext("2d");
    brush.fillStyle = "rgb(20 25 35 / 62%)";
    brush.fillRect(0, 0, map.columns, map.rows);
    for (const [row, column] of map.finished) brush.clearRect(column, row, 1, 1);
    // Blocks are squares of the slide: those at the right and the lower edge stick out of it.
    if (map.width && map.height && map.block) {
      canvas.style.width = `${(100 * map.columns * map.block) / map.width}%`;
      canvas.style.height = `${(100 * map.rows * map.block) / map.height}%`;
    }
  };
  made.update = async (one) => {
    if (job !== one.id) {
      job = one.id;
      drawn = -1;
      tries = 0;
      made.classList.remove("seen");
      image.removeAttribute("src");
      canvas.width = canvas.height = 0;
    }
    // Before it is planned there is neither picture nor map; asking would only be an error on the console.
    if (!one.opened) return;
    if (!image.getAttribute("src") && tries < 60) {
      tries += 1;
      image.setAttribute("src", `/slides/${job}/thumbnail.jpeg?side=512${tries > 1 ? `&try=${tries}` : ""}`);
    }
    give(image, "alt", `${one.name}, ${one.blocks} done`);
    if (drawn === one.blocks_done) return;
    const asked = one.blocks_done;
    drawn = asked;
    try {
      const answer = await fetch(`/slides/${one.id}/blocks.json`);
      if (!answer.ok) throw new Error(answer.status);
      const map = await answer.json();
      if (job === one.id && asked === drawn && map.rows && map.columns) draw(map);
    } catch {
      drawn = -1; // tried again with the next refresh
    }
  };
  return made;
};

const runRow = (act) => (first) => {
  const name = slideName();
  const step = element("span", { class: "chip blue" });
  const cancel = cancelButton("the running job of", () => act("cancel", first.id));
  const bar = element("div");
  const meter = element("div", { class: "bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 }, bar);
  const figures = {};
  const figure = (key, label) => {
    figures[key] = element("dd");
    return element("div", {}, element("dt", {}, label), figures[key]);
  };
  const facts = element("p", { class: "weak" });
  const shown = picture();
  const made = element(
    "div",
    { class: "run" },
    shown,
    element(
      "div",
      { class: "about" },
      element("div", { class: "head" }, name, step, cancel),
      meter,
      element(
        "dl",
        { class: "figures", style: "margin:0" },
        figure("percent", "done"),
        figure("blocks", "blocks of 1536 px"),
        figure("rate", "speed"),
        figure("left", "time left"),
      ),
      facts,
      element(
        "p",
        { class: "legend" },
        element("span", {}, element("span", { class: "swatch" }), "clear: blocks that are done"),
        element("span", {}, element("span", { class: "swatch todo" }), "dark: still to do"),
      ),
    ),
  );
  made.update = (one) => {
    name.update(one);
    say(step, one.step);
    cancel.name_it(one.name);
    give(cancel, "disabled", one.cancelling ? "" : null);
    bar.style.width = `${100 * one.progress}%`;
    give(meter, "aria-valuenow", Math.round(100 * one.progress));
    give(meter, "aria-label", `Progress of ${one.name}`);
    say(figures.percent, one.percent);
    say(figures.blocks, one.blocks.replace(/ blocks?$/, ""));
    say(figures.rate, one.rate || "–");
    say(figures.left, one.left || "–");
    say(facts, [...one.facts, one.attempt].filter(Boolean).join(" · "));
    shown.update(one);
  };
  return made;
};

const waitRow = (act) => (first) => {
  const name = slideName();
  const note = element("p", { class: "note clip" });
  const rank = element("span", { class: "rank", title: "priority: higher goes first" });
  const button = (path, what) => {
    const made = element("button", { type: "button", class: "icon" }, icon(path));
    made.name_it = (slide) => give(made, "aria-label", `${what} ${slide}`);
    return made;
  };
  const up = button(UP, "Higher priority for");
  const down = button(DOWN, "Lower priority for");
  const now = element("button", { type: "button" }, "Try now");
  const cancel = cancelButton("the waiting job of", () => act("cancel", first.id));
  let priority = 0;
  up.addEventListener("click", () => act("priority", first.id, priority + 1));
  down.addEventListener("click", () => act("priority", first.id, priority - 1));
  now.addEventListener("click", () => act("retry", first.id));
  const made = element(
    "li",
    {},
    element("div", { style: "min-width:0" }, name, note),
    element("div", { class: "acts" }, now, rank, up, down, cancel),
  );
  made.update = (one) => {
    priority = one.priority;
    name.update(one);
    say(note, one.note);
    give(note, "title", one.note);
    made.classList.toggle("again", one.again);
    show(now, one.again);
    say(rank, one.priority ? (one.priority > 0 ? `+${one.priority}` : `${one.priority}`) : "");
    up.name_it(one.name);
    down.name_it(one.name);
    cancel.name_it(one.name);
    give(now, "aria-label", `Try now: ${one.name}`);
  };
  return made;
};

const endRow = (go) => (first) => {
  const name = slideName();
  const note = element("p", { class: "note clip" });
  const chip = element("span", { class: "chip" });
  const time = element("span", { class: "number weak", style: "font-size:.82rem;text-align:right" });
  const link = element("a", {}, name);
  const made = element("li", {}, element("div", { style: "min-width:0" }, link, note), chip, time);
  let page = "";
  link.addEventListener("click", (event) => follow(event, () => go(page, first.id)));
  made.update = (one) => {
    page = one.done ? "compare" : "history";
    give(link, "href", `/${page}?job=${one.id}`);
    give(link, "title", one.done ? "Compare before and after" : "What happened");
    name.update(one);
    sayWithJob(note, one.why, one.same);
    give(note, "title", one.why);
    chip.className = `chip ${one.colour}`;
    say(chip, one.word);
    give(chip, "title", one.meaning);
    say(time, one.when);
  };
  return made;
};

const build = (root, tell) => {
  const act = (what, job, value) => tell({ what, job, value });
  const go = (page, job) => tell({ what: "open", page, job });
  const daemons = element("div", { class: "daemons" });
  const silent = element(
    "div",
    { class: "daemon none" },
    element("span", { class: "dot" }),
    element("span", {}, "No daemon is running, so nothing moves. Start one: ", element("code", {}, "wsi-denoise up")),
  );
  const counts = element("div", { class: "counts" });
  const reason = element("input", { type: "text", placeholder: "reason, if you like", "aria-label": "Why the queue is paused", maxlength: 200 });
  const pause = element("button", { type: "submit", class: "pausing" }, "Pause the queue");
  const form = element("form", { class: "pause" }, reason, pause);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    tell({ what: "pause", value: reason.value });
    reason.value = "";
  });
  const said = element("bdi");
  const resume = element("button", { type: "button", onclick: () => tell({ what: "resume" }) }, "Resume");
  const paused = element(
    "div",
    { class: "notice", role: "status" },
    element("span", { style: "flex:1;min-width:0;overflow-wrap:anywhere" }, element("strong", {}, "The queue is paused. "), said, " Running jobs continue; no new job is started."),
    resume,
  );
  const message = element("div", { class: "notice red", role: "alert" });
  const runs = element("div", { class: "runs" });
  const runTail = element("p", { class: "tail" });
  const idleHead = element("p", { style: "font-weight:600;font-size:1.1rem" });
  const inboxes = element("ul");
  const settle = element("span");
  const output = element("code");
  const idle = element(
    "div",
    { class: "idle" },
    idleHead,
    element("p", {}, "To denoise a slide, copy it into this folder, or drop it anywhere on this page:"),
    inboxes,
    element("p", { class: "weak" }, "It is taken up once its size and time have stood still for ", settle, ". The original is never touched; the result is written to ", output, "."),
  );
  const waits = element("ul", { class: "rows waits", tabindex: 0, "aria-label": "Waiting jobs" });
  const waitCount = element("span", { class: "count" });
  const waitTail = element("p", { class: "tail" });
  const noWait = element("p", { class: "empty" }, "Nothing waits.");
  const ended = element("ul", { class: "rows ended", tabindex: 0, "aria-label": "Last finished jobs" });
  const noEnd = element("p", { class: "empty" }, "Nothing has been finished yet.");
  const all = element("a", { href: "/history" }, "All jobs in the history");
  all.addEventListener("click", (event) => follow(event, () => tell({ what: "open", page: "history" })));
  root.append(
    element("div", { class: "strip" }, daemons, silent, element("span", { class: "grow" }), counts, form),
    message,
    paused,
    element("section", { class: "panel now", "aria-label": "Running" }, runs, runTail, idle),
    element(
      "div",
      { class: "lists" },
      element("section", { class: "panel" }, element("h2", {}, "Waiting", waitCount), element("div", { class: "box" }, noWait, waits), waitTail),
      element("section", { class: "panel" }, element("h2", {}, "Last finished"), element("div", { class: "box" }, noEnd, ended), element("p", { class: "tail" }, all)),
    ),
  );
  const held = (list) => list.matches(":hover") || list.contains(list.getRootNode().activeElement);

  const update = (data) => {
    keyed(daemons, data.daemons, () => {
      const text = element("span", { class: "clip" });
      const row = element("div", { class: "daemon" }, element("span", { class: "dot" }), text);
      row.update = (one) => {
        row.className = `daemon ${one.state}`;
        say(text, `${one.device}, ${one.host}: ${one.heartbeat}`);
        give(row, "title", `daemon ${one.id}`);
      };
      return row;
    });
    show(silent, !data.alive);
    keyed(counts, data.counts.map((one) => ({ ...one, id: one.state })), () => {
      const row = element("span", { class: "chip" });
      row.update = (one) => {
        row.className = `chip ${one.colour}`;
        say(row, `${one.count} ${one.word}`);
      };
      return row;
    });
    show(form, data.paused === null);
    show(paused, data.paused !== null);
    if (data.paused !== null) say(said, data.paused);
    show(message, Boolean(data.message));
    say(message, data.message);
    show(idle, !data.running.length);
    say(idleHead, data.ever ? "Nothing is running." : "No slide has been here yet.");
    keyed(inboxes, data.inboxes.map((path) => ({ id: path })), (one) => {
      const row = element("li", {}, element("code", {}, one.id));
      row.update = () => {};
      return row;
    });
    say(settle, data.settle);
    say(output, data.output);
    keyed(runs, data.running, runRow(act));
    const moreRun = data.running_total - data.running.length;
    show(runTail, moreRun > 0);
    say(runTail, `and ${moreRun.toLocaleString("en")} more`);
    // While the pointer is over the list it holds still, so that a target does not move away.
    const order = data.waiting;
    if (!held(waits) || order.length === 0) keyed(waits, order, waitRow(act));
    else for (const one of order) waits.byId?.get(one.id)?.update(one);
    say(waitCount, data.waiting_total ? `${data.waiting_total.toLocaleString("en")}` : "");
    const more = data.waiting_total - data.waiting.length;
    say(waitTail, more > 0 ? `and ${more.toLocaleString("en")} more` : data.waiting_total ? "Higher priority goes first; equal ones in the order in which they came." : "");
    show(noWait, !data.waiting.length);
    show(waits, data.waiting.length > 0);
    keyed(ended, data.finished, endRow(go));
    show(noEnd, !data.finished.length);
    show(ended, data.finished.length > 0);
  };
  return { update };
};

export default mounted(build);
