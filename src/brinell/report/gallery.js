"use strict";
// Paints the pictures of the album onto canvases, and builds the gallery. All words are set as text.
(() => {
  const { strips, tile, gallery } = JSON.parse(document.getElementById("pictures").textContent);
  const [width, height] = tile;
  const loaded = new Map();

  const strip = (number) => {
    if (!loaded.has(number)) {
      const image = new Image();
      image.src = `data:image/png;base64,${strips[number]}`;
      loaded.set(number, image.decode().then(() => image));
    }
    return loaded.get(number);
  };

  const pixels = async (number, at) => {
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(await strip(number), at * width, 0, width, height, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  };

  const show = (canvas, image) => {
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d").putImageData(image, 0, 0);
  };

  const paint = async (canvas, number, at) => show(canvas, await pixels(number, at));

  // Grey is no change; the largest change of a picture is full black or white. Returns that change in grey levels.
  const paintDifference = async (canvas, before, after, at) => {
    const [a, b] = await Promise.all([pixels(before, at), pixels(after, at)]);
    let most = 0;
    for (let i = 0; i < a.data.length; i += 1) most = Math.max(most, Math.abs(b.data[i] - a.data[i]));
    for (let i = 0; i < a.data.length; i += 1) {
      if (i % 4 !== 3) a.data[i] = 127.5 + (most ? (127.5 * (b.data[i] - a.data[i])) / most : 0);
    }
    show(canvas, a);
    return most;
  };

  for (const canvas of document.querySelectorAll("canvas[data-strip]")) paint(canvas, Number(canvas.dataset.strip), Number(canvas.dataset.at));
  if (!gallery) return;

  const [network, cell, order] = ["network", "cell", "order"].map((name) => document.getElementById(`gallery-${name}`));
  const fallen = document.getElementById("gallery-fallen");
  const status = document.getElementById("gallery-status");
  const cards = document.getElementById("gallery-cards");

  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const options = (select, names) => names.forEach((name, at) => select.append(new Option(name, at)));

  options(network, gallery.networks);
  network.parentElement.hidden = gallery.networks.length < 2;
  for (const kind of new Set(gallery.cells.map((item) => item.kind))) {
    const group = document.createElement("optgroup");
    group.label = kind;
    gallery.cells.forEach((item, at) => item.kind === kind && group.append(new Option(item.title, at)));
    cell.append(group);
  }
  options(order, [...gallery.orders.map((item) => item.title), "Sample number"]);

  const answer = (said, label) => {
    if (said === undefined || label === undefined) return element("span", "said", "answer not kept");
    const right = said === label;
    const made = element("span", `said ${right ? "right" : "wrong"}`);
    const mark = element("span", "", right ? "✓ " : "✕ ");
    mark.ariaHidden = "true";
    made.append(mark, `${right ? "right: " : "says "}${gallery.classes[said]}`);
    return made;
  };

  const view = (alternative, caption) => {
    const box = element("div"), canvas = element("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", alternative);
    box.append(canvas, caption);
    return [box, canvas];
  };

  const card = (net, which, at) => {
    const title = gallery.cells[which].title;
    const label = gallery.labels[at];
    const clean = gallery.clean === null ? undefined : gallery.said[net][gallery.clean]?.[at];
    const said = gallery.said[net][which]?.[at];
    const made = element("article", clean === label && said !== label && label !== undefined ? "card shot fell" : "card shot");
    const head = element("h3", "", label === undefined ? `sample ${gallery.ids[at]}` : gallery.classes[label]);
    head.append(element("small", "", `sample ${gallery.ids[at]}`));
    const views = element("div", "views");
    const before = gallery.clean === null ? null : gallery.strips[net][gallery.clean];
    const after = gallery.strips[net][which];
    const name = `sample ${gallery.ids[at]}`;
    if (before !== null) {
      const [box, canvas] = view(`${name}, clean`, answer(clean, label));
      paint(canvas, before, at);
      views.append(box);
    }
    const [box, canvas] = view(`${name}, ${title}`, answer(said, label));
    paint(canvas, after, at);
    views.append(box);
    if (before !== null) {
      const caption = element("span", "said", "difference");
      const [difference, where] = view(`${name}, difference between ${title} and clean`, caption);
      paintDifference(where, before, after, at).then((most) => (caption.textContent = most ? `difference × ${(127.5 / most).toPrecision(2)}` : "no difference"));
      views.append(difference);
    }
    made.append(head, views);
    const words = gallery.orders.map((item) => item.values[net]?.[at]?.[1]).filter(Boolean);
    if (words.length) made.append(element("span", "said", words.join("; ")));
    return made;
  };

  const build = () => {
    const [net, which] = [Number(network.value), Number(cell.value)];
    const values = gallery.orders[Number(order.value)]?.values[net];
    const shown = gallery.ids.map((_, at) => at);
    if (values) shown.sort((a, b) => values[a][0] - values[b][0] || a - b);
    const fell = (at) => gallery.said[net][which]?.[at] !== gallery.labels[at] && gallery.said[net][gallery.clean]?.[at] === gallery.labels[at];
    const kept = fallen.checked ? shown.filter(fell) : shown;
    if (gallery.strips[net][which] === null) {
      status.textContent = `${gallery.cells[which].title}: this cell kept no pictures.`;
      cards.replaceChildren();
      return;
    }
    const count = gallery.labels.length ? `; ${shown.filter(fell).length} of these ${shown.length} fall` : "";
    status.textContent = `${gallery.cells[which].title}: accuracy ${gallery.shares[net][which]} on all samples${count}.`;
    cards.replaceChildren(...kept.map((at) => card(net, which, at)));
  };

  const start = () => {
    cell.value = String(gallery.start[Number(network.value)]);
    build();
  };
  for (const chart of document.querySelectorAll(".chart")) {
    chart.on?.("plotly_click", ({ points: [point] }) => {
      const at = gallery.cells.findIndex((item) => item.title === point.customdata);
      if (at < 0) return;
      network.value = String(chart.layout.meta);
      cell.value = String(at);
      build();
      document.getElementById("gallery").scrollIntoView();
    });
  }
  network.addEventListener("change", start);
  for (const control of [cell, order, fallen]) control.addEventListener("change", build);
  start();
})();
