// Uploads live beside the page's components: another page of the dashboard may be open.
const uploads = (globalThis[Symbol.for("wsi-denoise uploads")] ??= { files: [], number: 0, listeners: new Set(), busy: false });

const changed = () => uploads.listeners.forEach((listener) => listener());

const bytes = (count) => {
  for (const unit of ["bytes", "kB", "MB", "GB"]) {
    if (count < 1000) return unit === "bytes" ? `${count} byte${count === 1 ? "" : "s"}` : `${count.toPrecision(3)} ${unit}`;
    count /= 1000;
  }
  return `${count.toPrecision(3)} TB`;
};

const next = () => {
  if (uploads.busy) return;
  const one = uploads.files.find((file) => file.state === "waits");
  if (!one) return;
  uploads.busy = true;
  one.state = "runs";
  const request = new XMLHttpRequest();
  one.request = request;
  const end = (state, text) => {
    if (one.state !== "runs") return;
    one.state = state;
    one.text = text;
    one.file = null;
    uploads.busy = false;
    changed();
    next();
  };
  request.upload.onprogress = (event) => {
    one.sent = event.loaded;
    changed();
  };
  request.onload = () => {
    if (request.status >= 200 && request.status < 300) {
      one.sent = one.size;
      return end("done", "in the inbox");
    }
    let said = "";
    try {
      said = JSON.parse(request.responseText).error;
    } catch {
      said = "";
    }
    return end("failed", said || `The upload was refused (${request.status}).`);
  };
  request.onerror = () => end("failed", "The connection broke off. Nothing was kept; upload the file again.");
  request.onabort = () => end("failed", "Cancelled; nothing was kept.");
  request.open("PUT", `/upload/${encodeURIComponent(one.name)}`);
  request.send(one.file);
  changed();
};

const add = (files, limit) => {
  for (const file of files) {
    uploads.number += 1;
    const one = { id: uploads.number, name: file.name, size: file.size, sent: 0, state: "waits", file, text: "" };
    if (limit && file.size > limit * 1e6) {
      one.state = "failed";
      one.file = null;
      one.text = `Too large: ${bytes(file.size)}, and the limit is ${bytes(limit * 1e6)} (dashboard.upload_megabytes). Copy it into the folder instead.`;
    }
    uploads.files.push(one);
  }
  changed();
  next();
};

const build = (root) => {
  let limit = 0;
  const input = element("input", { type: "file", multiple: true, class: "unseen", tabindex: -1, "aria-hidden": "true" });
  const choose = element("button", { type: "button", onclick: () => input.click() }, "Choose files");
  const text = element("span");
  const drop = element(
    "div",
    { class: "drop" },
    element("p", {}, element("strong", {}, "Upload slides: "), "drop them anywhere on this page, or choose them. ", text),
    choose,
    input,
  );
  const list = element("ul", { class: "files", "aria-label": "Uploads" });
  const cover = element("div", { class: "cover", hidden: true }, "Drop slides to put them into the inbox");
  root.append(drop, list, cover);
  input.addEventListener("change", () => {
    add(input.files, limit);
    input.value = "";
  });
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const over = (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    show(cover, true);
  };
  const leave = (event) => {
    if (event.relatedTarget === null) show(cover, false);
  };
  const dropped = (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    show(cover, false);
    const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
    const folders = items.filter((item) => item.webkitGetAsEntry?.()?.isDirectory).length;
    const files = items.filter((item) => !item.webkitGetAsEntry?.()?.isDirectory).map((item) => item.getAsFile());
    if (folders) {
      uploads.number += 1;
      uploads.files.push({ id: uploads.number, name: "Folder", size: 0, sent: 0, state: "failed", text: "Folders cannot be uploaded here: a slide of several files is copied into the inbox." });
    }
    add(files.filter(Boolean), limit);
  };
  document.addEventListener("dragover", over);
  document.addEventListener("dragleave", leave);
  document.addEventListener("drop", dropped);
  const leaving = (event) => {
    if (uploads.busy) event.preventDefault();
  };
  addEventListener("beforeunload", leaving);
  const draw = () => {
    keyed(list, uploads.files, (first) => {
      const bar = element("div");
      const meter = element("div", { class: "bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": `Upload of ${first.name}` }, bar);
      const note = element("span", { class: "weak number" });
      const bad = element("p", { class: "bad", role: "alert" });
      const stop = element("button", { type: "button" });
      stop.addEventListener("click", () => {
        if (first.state === "runs") return first.request.abort();
        uploads.files = uploads.files.filter((file) => file !== first);
        return changed();
      });
      const row = element("li", {}, element("bdi", { class: "clip" }, first.name), meter, note, stop, bad);
      row.update = (one) => {
        const part = one.size ? one.sent / one.size : one.state === "done" ? 1 : 0;
        bar.style.width = `${100 * part}%`;
        give(meter, "aria-valuenow", Math.round(100 * part));
        say(note, one.state === "done" ? one.text : one.state === "waits" ? "waits" : `${bytes(one.sent)} of ${bytes(one.size)}`);
        say(stop, one.state === "runs" ? "Stop" : "Remove");
        give(stop, "aria-label", `${one.state === "runs" ? "Stop the upload of" : "Remove from this list:"} ${one.name}`);
        show(bad, one.state === "failed");
        say(bad, one.state === "failed" ? one.text : "");
      };
      return row;
    });
  };
  uploads.listeners.add(draw);
  draw();
  return {
    update: (data) => {
      limit = data.limit;
      say(text, `${limit ? `At most ${bytes(limit * 1e6)} each; l` : "L"}arger slides, and those of several files, are copied into the folder.`);
    },
    close: () => {
      uploads.listeners.delete(draw);
      document.removeEventListener("dragover", over);
      document.removeEventListener("dragleave", leave);
      document.removeEventListener("drop", dropped);
      removeEventListener("beforeunload", leaving);
    },
  };
};

export default mounted(build);
