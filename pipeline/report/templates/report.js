"use strict";
// The search, and the points of the map. All texts enter the page as text, never as HTML.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const data = read("data");
  const byId = (id) => document.getElementById(id);
  const lower = data.keys.map((key) => key.toLowerCase());
  const EMPTY = "data:image/svg+xml," + encodeURIComponent(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><rect width="8" height="8" fill="#888" opacity=".25"/></svg>');
  const thumbnail = (index) => data.thumbnails[index] ? "data:image/webp;base64," + data.thumbnails[index] : "";
  const PALETTE = ["#4477dd", "#e07b1a", "#1f9e77", "#d64a8c", "#8c6bd8", "#b59a00", "#2aa5c4", "#c0504d", "#7a9a3a"];
  const REST = "#8a8d96";
  const SCALE = ["#5a3fc0", "#3f6fd8", "#1f9fb8", "#3fb87a", "#a9c437", "#f2c832"];

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function picture(index, alt) {
    const source = thumbnail(index);
    return source ? element("img", { src: source, alt, width: 128, height: 128 })
      : element("span", { class: "missing", ...(alt ? { role: "img", "aria-label": alt + ", no thumbnail" } : {}) });
  }

  // The search.
  const field = byId("key"), result = byId("result"), suggestions = byId("suggestions");
  let onFound = () => {};

  function matches(text, count) {
    const wanted = text.toLowerCase(), found = [];
    for (let index = 0; index < lower.length && found.length < count; index += 1) {
      if (lower[index].includes(wanted)) found.push(index);
    }
    return found;
  }

  function show(index) {
    field.value = data.keys[index];
    const neighbours = data.neighbours[index];
    const heading = element("p", {}, element("strong", {}, data.keys[index]),
      neighbours.length ? `and its ${neighbours.length} nearest neighbours, by cosine similarity` : "has no neighbours");
    const cards = neighbours.map((other, rank) => {
      const button = element("button", { type: "button", title: data.keys[other] }, picture(other, ""),
        element("span", { class: "name" }, data.keys[other]),
        element("span", { class: "note" }, data.cosines[index][rank].toFixed(3)));
      button.addEventListener("click", () => { show(other); field.focus(); });
      return element("li", { class: "card" }, button);
    });
    result.replaceChildren(element("div", { class: "query" }, picture(index, data.keys[index]), heading),
      element("ol", { class: "cards", "aria-label": "Nearest neighbours" }, ...cards));
    onFound(index, neighbours);
  }

  field.addEventListener("input", () => {
    const found = field.value ? matches(field.value, 20) : [];
    suggestions.replaceChildren(...found.map((index) => element("option", { value: data.keys[index] })));
  });
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const exact = data.keys.indexOf(field.value);
    const index = exact >= 0 ? exact : matches(field.value, 1)[0];
    if (index === undefined) {
      result.replaceChildren(element("p", { role: "status" }, `No key on this page contains “${field.value}”.`));
    } else {
      show(index);
    }
  });
  show(data.start);
  field.value = "";
  const ready = (part) => { document.documentElement.dataset.ready = part; performance.mark(part + "-ready"); };
  ready("search");

  // The map.
  const projection = byId("projection"), colouring = byId("colouring"), legend = byId("legend");

  function mix(share) {
    const position = share * (SCALE.length - 1), start = Math.min(Math.floor(position), SCALE.length - 2);
    const channel = (colour, at) => parseInt(colour.slice(at, at + 2), 16);
    const parts = [1, 3, 5].map((at) => Math.round(channel(SCALE[start], at) +
      (position - start) * (channel(SCALE[start + 1], at) - channel(SCALE[start], at))));
    return `rgb(${parts.join(",")})`;
  }

  function coloured(column) {
    if (column.labels) {
      const colour = (code) => PALETTE[code] || REST;
      const items = column.labels.map((label, code) => {
        const dot = element("i", { "aria-hidden": "true" });
        dot.style.background = colour(code);
        return element("li", {}, dot, label);
      });
      return { colours: column.codes.map(colour), labels: column.codes.map((code) => column.labels[code]), items };
    }
    const known = column.values.filter((value) => value !== null).sort((a, b) => a - b);
    // A few extreme values would make all others look alike.
    const low = known[Math.floor(0.02 * (known.length - 1))], high = known[Math.ceil(0.98 * (known.length - 1))];
    const share = (value) => high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 0.5;
    const bar = element("i", { class: "scale", "aria-hidden": "true" });
    bar.style.background = `linear-gradient(90deg, ${SCALE.join(",")})`;
    return {
      colours: column.values.map((value) => value === null ? REST : mix(share(value))),
      labels: column.values.map((value) => value === null ? "no value" : String(value)),
      items: [element("li", {}, String(Number(low.toPrecision(4))), bar, String(Number(high.toPrecision(4))))],
    };
  }

  window.addEventListener("load", async () => {
    await Bokeh.embed.embed_item(read("map-item"), "map");
    const source = Bokeh.documents[0].get_model_by_name("points");
    const thumbnails = data.keys.map((_, index) => thumbnail(index) || EMPTY);
    const draw = () => {
      const { x, y } = data.maps[projection.value];
      const column = data.columns[colouring.value];
      const { colours, labels, items } = coloured(column);
      source.data = { x, y, key: data.keys, colour: colours, thumbnail: thumbnails,
        label: labels.map((label) => `${column.name}: ${label}`) };
      legend.replaceChildren(...items);
    };
    projection.addEventListener("change", draw);
    colouring.addEventListener("change", draw);
    draw();
    let isOwn = false;
    onFound = (index, neighbours) => {
      isOwn = true;
      source.selected.indices = [index, ...neighbours];
      isOwn = false;
    };
    source.selected.properties.indices.change.connect(() => {
      if (!isOwn && source.selected.indices.length) show(source.selected.indices[0]);
    });
    ready("map");
  });
})();
