"use strict";

// Tables: a click on a head sorts by it, largest first; another turns it round; a third restores the order.
const value = (cell) => {
  const text = cell.textContent.trim();
  const found = text.replace(/,(?=\d{3})/g, "").replace("−", "-").match(/^[[(]?([+-]?\d*\.?\d+)/);
  return { text, number: found ? Number(found[1]) : NaN };
};
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.classList.contains("plotted")) return;
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { descending: "ascending", ascending: "none" }[head.ariaSort] ?? "descending";
      heads.forEach((other) => (other.ariaSort = other === head ? next : "none"));
      const sign = next === "ascending" ? 1 : -1;
      const keyed = original.map((row) => ({ row, ...value(row.cells[column]) }));
      const numeric = keyed.some((key) => !Number.isNaN(key.number));
      if (next !== "none")
        keyed.sort((a, b) => {
          if (!numeric) return -sign * a.text.localeCompare(b.text); // words: A to Z first
          if (Number.isNaN(a.number) || Number.isNaN(b.number)) // no value: last either way
            return Number.isNaN(a.number) - Number.isNaN(b.number);
          return sign * (a.number - b.number);
        });
      body.append(...keyed.map((key) => key.row));
    });
  });
}

// Figures: enlarged in a dialog, by buttons, wheel or keys; the stage scrolls, or is dragged.
const dialog = document.getElementById("zoom");
const stage = dialog.querySelector(".stage");
const picture = stage.querySelector("img");
let scale = 1;
const zoom = (factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) => {
  const before = scale;
  scale = Math.min(16, Math.max(1, factor));
  const [left, top] = [(stage.scrollLeft + x) / before, (stage.scrollTop + y) / before];
  picture.style.width = `${100 * scale}%`;
  stage.scrollTo(left * scale - x, top * scale - y);
  dialog.querySelector("output").textContent = `${Math.round(100 * scale)} %`;
};
for (const button of document.querySelectorAll(".enlarge"))
  button.addEventListener("click", () => {
    const image = button.querySelector("img");
    [picture.src, picture.alt] = [image.src, image.alt];
    dialog.showModal();
    zoom(1);
  });
const steps = { in: () => zoom(scale * 1.5), out: () => zoom(scale / 1.5), fit: () => zoom(1) };
for (const button of dialog.querySelectorAll("[data-zoom]"))
  button.addEventListener("click", steps[button.dataset.zoom]);
dialog.addEventListener("keydown", (event) => ({ "+": steps.in, "-": steps.out, 0: steps.fit })[event.key]?.());
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = stage.getBoundingClientRect();
  zoom(scale * 1.0015 ** -event.deltaY, event.clientX - box.left, event.clientY - box.top);
}, { passive: false });
stage.addEventListener("pointermove", (event) => {
  if (event.buttons & 1 && event.pointerType === "mouse") stage.scrollBy(-event.movementX, -event.movementY);
});
picture.draggable = false;

// A phone starts with the contents closed; paper has everything open.
if (matchMedia("(max-width: 60rem)").matches) document.querySelector("nav details").open = false;
addEventListener("beforeprint", () => document.querySelectorAll("main details").forEach((one) => (one.open = true)));
