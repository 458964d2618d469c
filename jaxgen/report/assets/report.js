"use strict";
// What a script adds to the page: curves that can be zoomed, and a slider over previews. Without it the page is whole.
(() => {
  const COLOURS = 8, HEIGHT = 250;
  const held = (figure, name) => JSON.parse(figure.querySelector(`script.${name}`).textContent);
  const style = () => getComputedStyle(document.documentElement);
  const colour = (name) => () => style().getPropertyValue(name).trim();
  const plots = [];

  function number(x) {
    if (x === null || x === undefined) return "–";
    return Math.abs(x) >= 1e6 || (x !== 0 && Math.abs(x) < 1e-4) ? x.toExponential(2) : String(+x.toPrecision(4));
  }

  function draw(figure) {
    const { unit, series } = held(figure, "curve");
    const place = figure.querySelector(".plot");
    const font = `12px ${style().getPropertyValue("--sans")}`;
    const axis = (more) => ({
      stroke: colour("--faint"), font, labelFont: font, labelSize: 20,
      grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1, size: 4 }, ...more,
    });
    const values = (u, ticks) => ticks.map(number);
    const width = (u, texts) => 14 + 7 * Math.max(...(texts ?? [""]).map((text) => text.length));
    const plot = new uPlot({
      width: Math.max(place.clientWidth, 100), height: HEIGHT,
      scales: { x: { time: false } },
      cursor: { drag: { x: true, y: true, uni: 20 }, points: { size: 7 } },
      axes: [
        axis({ label: "step", size: 28, values: (u, ticks) => ticks.map((x) => (Number.isInteger(x) ? x.toLocaleString("en") : "")) }),
        axis({ label: unit, values, size: width }),
      ],
      series: [
        { label: "step", value: (u, x) => (x === null ? "–" : x.toLocaleString("en")) },
        ...series.map(({ label, colour: place }) => ({
          label, stroke: colour(`--s${place % COLOURS}`), width: 2, value: (u, y) => number(y),
          dash: place < COLOURS ? undefined : [6, 3], points: { size: 5, fill: colour(`--s${place % COLOURS}`) },
        })),
      ],
    }, uPlot.join(series.map(({ x, y }) => [x, y])), (made, init) => { place.replaceChildren(made.root); init(); });
    plots.push(plot);
    new ResizeObserver(() => {
      const now = place.clientWidth;
      if (now && now !== plot.width) plot.setSize({ width: now, height: HEIGHT });
    }).observe(place);
  }

  function slide(figure) {
    const { name, last, earlier } = held(figure, "frames");
    const image = figure.querySelector("img"), when = figure.querySelector("output");
    const frames = [...earlier, { step: last, src: image.src }];
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0, max: frames.length - 1, value: frames.length - 1 });
    slider.setAttribute("aria-label", `step of the preview ${name}`);
    slider.addEventListener("input", () => {
      const { step, src } = frames[slider.value];
      image.src = src;
      when.textContent = `step ${step.toLocaleString("en")}`;
      image.alt = `${name} at ${when.textContent}`;
      slider.setAttribute("aria-valuetext", when.textContent);
    });
    figure.querySelector("figcaption").append(slider);
  }

  document.documentElement.classList.add("scripts");
  document.querySelectorAll("figure.chart").forEach(draw);
  for (const figure of document.querySelectorAll("figure.preview")) if (figure.querySelector("script.frames")) slide(figure);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((plot) => plot.redraw()));
})();
