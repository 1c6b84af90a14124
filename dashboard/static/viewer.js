const KEPT = ["x", "y", "zoom", "mode", "k", "of", "opacity", "overlay", "position", "side", "strength"];

const isDark = (root) => {
  const back = getComputedStyle(root).getPropertyValue("--st-background-color").trim();
  const parts = back.startsWith("#") ? back.slice(1).match(/../g).map((part) => parseInt(part, 16)) : back.match(/[\d.]+/g)?.map(Number);
  return parts ? 0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2] < 128 : false;
};

const build = (root) => {
  const frame = element("iframe", { title: "Before and after, deep zoom", allow: "fullscreen; clipboard-write" });
  const said = element("p", { class: "weak" }, "The address of this page leads back to this place and this view.");
  const copy = element("button", { type: "button" }, "Copy link to this view");
  root.append(element("div", { class: "frame" }, frame), element("div", { class: "foot" }, said, copy));
  let job = null;
  let theme = null;
  copy.addEventListener("click", async () => {
    try {
      const address = new URL(location.href);
      address.searchParams.set("job", String(job));
      await navigator.clipboard.writeText(address.href);
      say(copy, "Copied");
    } catch {
      say(copy, "Copy it from the address line");
    }
    setTimeout(() => say(copy, "Copy link to this view"), 3000);
  });
  const heard = (event) => {
    if (event.origin !== location.origin || event.source !== frame.contentWindow) return;
    const view = event.data?.wsiDenoise;
    if (!view || typeof view !== "object") return;
    const address = new URL(location.href);
    address.searchParams.set("job", String(job));
    for (const name of KEPT) {
      if (view[name] === null || view[name] === undefined) address.searchParams.delete(name);
      else address.searchParams.set(name, String(view[name]));
    }
    if (address.href !== location.href) history.replaceState(history.state, "", address);
  };
  addEventListener("message", heard);
  return {
    update: (data) => {
      const now = isDark(root) ? "dark" : "light";
      if (job === data.job && theme === now) return;
      // A theme that changes, or the first look: the place is in the address. Another slide: from its start.
      const address = new URL(location.href);
      const query = new URLSearchParams();
      if (job === null || job === data.job) for (const name of KEPT) if (address.searchParams.has(name)) query.set(name, address.searchParams.get(name));
      query.set("theme", now);
      job = data.job;
      theme = now;
      frame.src = `/viewer/${job}?${query}`;
    },
    close: () => removeEventListener("message", heard),
  };
};

export default mounted(build);
