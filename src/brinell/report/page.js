"use strict";
// Draws the figures in the colours of the current theme, turns tables into CSV files, and marks the section in view.
// The page is readable without it.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const charts = [...document.querySelectorAll(".chart")];

  // A colour written "--name" stands for the variable of that name in the style sheet.
  const painted = (value, key, style) => {
    if (Array.isArray(value)) return value.map((item) => painted(item, key, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, painted(item, name, style)]));
    }
    return typeof value === "string" && value.startsWith("--") && key.endsWith("color") ? style.getPropertyValue(value).trim() : value;
  };

  const draw = (chart) => {
    const figure = painted(figures[Number(chart.dataset.figure)], "", getComputedStyle(document.documentElement));
    if (chart.clientWidth < 420) {
      figure.layout.font.size = 11;
      if (figure.layout.meta === "matrix") figure.layout.xaxis.showticklabels = false; // the columns are in the order of the rows
    }
    chart.querySelector("noscript")?.remove();
    Plotly.react(chart, figure.data, figure.layout, { responsive: true, displayModeBar: false, showTips: false });
  };
  const drawAll = () => charts.forEach(draw);
  if (charts.length) {
    drawAll();
    for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", drawAll);
  }

  // A text that a spreadsheet would run as a formula gets an apostrophe in front.
  const quoted = (text) => {
    const safe = /^[=+\-@\t\r]/.test(text) && !Number.isFinite(Number(text)) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const csv = (table) =>
    [...table.rows].map((row) => [...row.cells].map((cell) => quoted(cell.dataset.value ?? cell.textContent)).join(",")).join("\r\n") + "\r\n";

  for (const button of document.querySelectorAll(".download")) {
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([csv(button.parentElement.querySelector("table"))], { type: "text/csv;charset=utf-8" }));
      link.download = `brinell-${button.dataset.name}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  // The entry of the section that crosses the upper third of the window is the current one.
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    },
    { rootMargin: "-30% 0px -69% 0px" },
  );
  for (const section of document.querySelectorAll("main > section")) watch.observe(section);
})();
