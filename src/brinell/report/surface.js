"use strict";
// Draws surfaces in 3-D and as maps, and composes the image at a chosen point of a plane. All words are set as text.
(() => {
  const { scales, names, planes } = JSON.parse(document.getElementById("surfaces-data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (mark) => mark.charCodeAt(0));
  const decoded = new Map();
  const array = (text, Kind) => {
    if (!decoded.has(text)) decoded.set(text, new Kind(bytes(text).buffer));
    return decoded.get(text);
  };
  const heightsOf = ([low, high, text]) => Float64Array.from(array(text, Uint16Array), (step) => low + ((high - low) * step) / 65535);
  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const shown = (value) => (value && Math.abs(value) < 1e-3 ? value.toExponential(1) : value.toFixed(3));

  const [planeSelect, itemSelect, heightSelect] = ["plane", "item", "height"].map((name) => document.getElementById(`surface-${name}`));
  const status = document.getElementById("surface-status");
  const views = document.getElementById("surface-views");
  const bar = document.getElementById("surface-bar");
  document.getElementById("surfaces").classList.add("live");

  const stops = new Map();
  const scaleOf = (height) => (height === "margin" || height === "dlr" ? "diverging" : "sequential");
  const colour = (height, share) => {
    const name = scaleOf(height);
    if (!stops.has(name)) stops.set(name, scales[name].map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16))));
    const list = stops.get(name);
    const place = Math.min(Math.max(share, 0), 1) * (list.length - 1);
    const at = Math.min(Math.floor(place), list.length - 2);
    return list[at].map((low, channel) => low + (list[at + 1][channel] - low) * (place - at));
  };
  const css = (rgb) => `rgb(${rgb.map(Math.round).join(",")})`;
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  let plane, item, height, turn, tilt, chosen, panels;
  const share = (value) => (value - plane.limits[height][0]) / (plane.limits[height][1] - plane.limits[height][0]);
  const place = (index) => plane.low + ((plane.high - plane.low) * index) / (plane.points - 1);
  const unit = (value) => (value - plane.low) / (plane.high - plane.low);

  const drawMap = ({ map, values, line }) => {
    const [side, g] = [map.width, plane.points];
    const small = new OffscreenCanvas(g, g);
    const pixels = small.getContext("2d").createImageData(g, g);
    for (let row = 0; row < g; row += 1) {
      for (let column = 0; column < g; column += 1) {
        pixels.data.set([...colour(height, share(values[row * g + column])), 255], 4 * ((g - 1 - row) * g + column));
      }
    }
    small.getContext("2d").putImageData(pixels, 0, 0);
    const context = map.getContext("2d");
    context.drawImage(small, 0.5, 0.5, g - 1, g - 1, 0, 0, side, side);
    context.strokeStyle = "#d7263d";
    context.lineWidth = 2.5;
    context.beginPath();
    for (let at = 0; at < line.length; at += 4) {
      context.moveTo(unit(line[at]) * side, (1 - unit(line[at + 1])) * side);
      context.lineTo(unit(line[at + 2]) * side, (1 - unit(line[at + 3])) * side);
    }
    context.stroke();
    const mark = (x, y, draw) => {
      context.strokeStyle = "#000";
      context.lineWidth = 2;
      context.beginPath();
      draw(unit(x) * side, (1 - unit(y)) * side);
      context.stroke();
    };
    mark(0, 0, (x, y) => {
      context.moveTo(x - 7, y);
      context.lineTo(x + 7, y);
      context.moveTo(x, y - 7);
      context.lineTo(x, y + 7);
    });
    mark(place(chosen[0]), place(chosen[1]), (x, y) => context.arc(x, y, 8, 0, 7));
  };

  // Cells are painted from the back to the front; the boundary is drawn on top.
  const drawRelief = ({ relief, values, line }) => {
    const [g, wide, high] = [plane.points, relief.width, relief.height];
    const [sin, cos, up, flat] = [Math.sin(turn), Math.cos(turn), Math.cos(tilt), Math.sin(tilt)];
    const context = relief.getContext("2d");
    const size = 0.6 * wide;
    const project = (x, y, level) => {
      const [a, b, c] = [x - 0.5, y - 0.5, 0.55 * (Math.min(Math.max(level, 0), 1) - 0.5)];
      const depth = a * sin + b * cos;
      return [wide / 2 + size * (a * cos - b * sin), high / 2 - size * (c * up + depth * flat), depth];
    };
    context.clearRect(0, 0, wide, high);
    const points = Array.from(values, (value, at) => project((at % g) / (g - 1), Math.floor(at / g) / (g - 1), share(value)));
    const cells = [];
    for (let row = 0; row + 1 < g; row += 1) {
      for (let column = 0; column + 1 < g; column += 1) {
        const at = row * g + column;
        const corners = [at, at + 1, at + g + 1, at + g];
        cells.push([corners.reduce((sum, corner) => sum + points[corner][2], 0), corners]);
      }
    }
    cells.sort((a, b) => b[0] - a[0]);
    for (const [, corners] of cells) {
      const level = corners.reduce((sum, corner) => sum + share(values[corner]), 0) / 4;
      const slope = Math.min(Math.max(4 * (share(values[corners[0]]) - share(values[corners[2]])), -1), 1);
      context.beginPath();
      corners.forEach((corner, at) => context[at ? "lineTo" : "moveTo"](points[corner][0], points[corner][1]));
      context.closePath();
      context.fillStyle = context.strokeStyle = css(colour(height, level).map((channel) => channel * (0.92 + 0.08 * slope)));
      context.fill();
      context.stroke();
    }
    const zero = height === "margin" || height === "dlr" ? share(0) : null;
    const near = (x, y) => share(values[Math.round(unit(y) * (g - 1)) * g + Math.round(unit(x) * (g - 1))]);
    context.strokeStyle = "#d7263d";
    context.lineWidth = 2.5;
    context.beginPath();
    for (let at = 0; at < line.length; at += 4) {
      const ends = [0, 2].map((k) => project(unit(line[at + k]), unit(line[at + k + 1]), zero ?? near(line[at + k], line[at + k + 1])));
      context.moveTo(ends[0][0], ends[0][1]);
      context.lineTo(ends[1][0], ends[1][1]);
    }
    context.stroke();
    const here = project(chosen[0] / (g - 1), chosen[1] / (g - 1), share(values[chosen[1] * g + chosen[0]]));
    context.strokeStyle = ink("--ink");
    context.lineWidth = 2;
    context.beginPath();
    context.arc(here[0], here[1], 7, 0, 7);
    context.stroke();
  };

  const compose = ({ land, picture, said, values }) => {
    const [x, y] = chosen.map(place);
    const words = [`${shown(values[chosen[1] * plane.points + chosen[0]])}`];
    if (land.classes) {
      const found = array(land.classes[item], Uint16Array)[chosen[1] * plane.points + chosen[0]];
      words.push(`says ${land.said[found]}`);
      said.className = found === land.labels[item] ? "said right" : "said wrong";
    }
    said.textContent = words.join(", ");
    if (!land.images) return;
    const [width, high, channels] = land.size;
    const [start, [first, second]] = [array(land.images[item], Uint8Array), land.directions[item]];
    const [u, v] = [array(first[1], Int8Array), array(second[1], Int8Array)];
    const image = new ImageData(width, high);
    for (let at = 0; at < width * high; at += 1) {
      for (let channel = 0; channel < 3; channel += 1) {
        const from = channels === 3 ? 3 * at + channel : at;
        image.data[4 * at + channel] = start[from] + (x * first[0] * u[from] + y * second[0] * v[from]) / 127; // clamped and rounded
      }
      image.data[4 * at + 3] = 255;
    }
    [picture.width, picture.height] = [width, high];
    picture.getContext("2d").putImageData(image, 0, 0);
    picture.setAttribute("aria-label", `${land.net}: the image at ${shown(x)}, ${shown(y)}`);
  };

  const drawAll = () => {
    for (const panel of panels) {
      drawRelief(panel);
      drawMap(panel);
      compose(panel);
    }
    const [x, y] = chosen.map(place);
    status.textContent = `${plane.title}. Chosen: ${shown(x)} along ${plane.axes[0]} (to the right), ${shown(y)} along ${plane.axes[1]} (upwards); ${names[height]}.`;
  };

  const choose = (column, row) => {
    chosen = [column, row].map((at) => Math.min(Math.max(at, 0), plane.points - 1));
    drawAll();
  };

  const steered = (canvas, move) =>
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!step) return;
      event.preventDefault();
      move(...step);
    });

  const canvasOf = (className, side, high, alternative) => {
    const canvas = element("canvas", className);
    [canvas.width, canvas.height, canvas.tabIndex] = [side, high, 0];
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", alternative);
    return canvas;
  };

  const build = (land) => {
    const figure = element("figure", "card surface");
    figure.append(element("figcaption", "", land.net));
    const relief = canvasOf("relief", 640, 440, `${land.net}: ${names[height]} as a surface; arrow keys turn it`);
    const map = canvasOf("map", 440, 440, `${land.net}: ${names[height]} as a map; arrow keys move the chosen point`);
    const picture = element("canvas", "point");
    picture.setAttribute("role", "img");
    const [both, beside, said] = [element("div", "pair"), element("div"), element("span", "said")];
    beside.append(...(land.images ? [picture, said] : [said]));
    both.append(map, beside);
    figure.append(relief, both);
    map.addEventListener("click", (event) => {
      const box = map.getBoundingClientRect();
      const at = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
      choose(...at.map((part) => Math.round(part * (plane.points - 1))));
    });
    steered(map, (right, up) => choose(chosen[0] + right, chosen[1] + up));
    const rotate = (right, up) => {
      turn += 0.12 * right;
      tilt = Math.min(Math.max(tilt + 0.08 * up, 0.1), 1.5);
      panels.forEach(drawRelief);
    };
    steered(relief, rotate);
    relief.addEventListener("pointerdown", (event) => relief.setPointerCapture(event.pointerId));
    relief.addEventListener("pointermove", (event) => {
      if (event.buttons) rotate(event.movementX / 12, event.movementY / 12);
    });
    return { land, figure, relief, map, picture, said, values: heightsOf(land.heights[height][item]), line: array(land.lines[item], Float32Array) };
  };

  const drawBar = () => {
    const [low, high] = plane.limits[height];
    const context = bar.querySelector("canvas").getContext("2d");
    for (let x = 0; x < 160; x += 1) {
      context.fillStyle = css(colour(height, x / 159));
      context.fillRect(x, 0, 1, 10);
    }
    bar.querySelector("span").textContent = shown(low);
    bar.querySelector("span:last-child").textContent = shown(high);
  };

  const rebuild = () => {
    [item, height] = [Number(itemSelect.value), plane.heights[Number(heightSelect.value)]];
    panels = plane.lands.map(build);
    views.replaceChildren(...panels.map((panel) => panel.figure));
    drawBar();
    drawAll();
  };
  const options = (select, texts) => select.replaceChildren(...texts.map((text, at) => new Option(text, at)));
  const enter = () => {
    plane = planes[Number(planeSelect.value)];
    options(itemSelect, plane.items);
    options(heightSelect, plane.heights.map((name) => names[name]));
    [turn, tilt] = [0.6, 0.6];
    chosen = [0, 0].map(() => Math.round(-plane.low / ((plane.high - plane.low) / (plane.points - 1))));
    rebuild();
  };
  options(planeSelect, planes.map((view) => view.title));
  planeSelect.addEventListener("change", enter);
  for (const select of [itemSelect, heightSelect]) select.addEventListener("change", rebuild);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", drawAll);
  for (const button of document.querySelectorAll(".take")) {
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      const text = new XMLSerializer().serializeToString(button.parentElement.querySelector("svg"));
      link.href = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
      link.download = `brinell-surface-${Number(button.dataset.at) + 1}.svg`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
  enter();
})();
