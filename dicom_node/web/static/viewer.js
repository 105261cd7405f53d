// Shows an image: window and level in its own values, zoom, the heat map over it, the outline of the most unusual area.
import { GreyImage } from "./grey.js";

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const middle = (points) => [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
const apart = ([one, other]) => Math.hypot(one[0] - other[0], one[1] - other[1]);
const NEAREST = 16, FARTHEST = 0.5, STEP = 40;

class Viewer {
  constructor(box) {
    this.box = box;
    this.canvas = this.part("canvas");
    [this.level, this.width, this.opacity, this.preset] = [".level", ".width", ".heat", ".preset"].map((name) => this.part(name));
    [this.image, this.heat, this.window] = [null, null, null];
    [this.inverted, this.moving, this.due] = [false, false, false];
    this.fingers = new Map();
    this.fit();
    this.load();
    this.listen();
  }

  part(name) { return this.box.querySelector(name); }

  async fetch(source) {
    const answer = await fetch(source);
    if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.detail ?? `status ${answer.status}`);
    return answer;
  }

  async load() {
    try {
      this.image = await GreyImage.from(await this.fetch(this.box.dataset.source));
      this.offer();
      this.reset();
    } catch (error) {
      this.part(".fault").hidden = false;
      this.part(".why").textContent = error.message;
    }
    if (this.box.dataset.heat) {
      this.heat = await this.fetch(this.box.dataset.heat).then((answer) => answer.blob()).then(createImageBitmap).catch(() => null);
      this.draw();
    }
  }

  // Windows to choose, and how far the sliders go: as far as the image's values and windows.
  offer() {
    if (this.image.curve) this.preset.prepend(new Option("own VOI LUT", "LUT"));
    const { full, unit, least, range } = this.image;
    const asked = [...this.preset.options].map((option) => this.named(option.value));
    const centres = asked.map((one) => one.centre), widths = asked.map((one) => one.width);
    const reach = (slider, low, high) => Object.assign(slider, { step: unit, min: low, max: high, disabled: false });
    reach(this.level, Math.min(least, ...centres), Math.max(least + range, ...centres));
    reach(this.width, unit, Math.max(full.width, ...widths) * 1.5);
    this.preset.append(this.byHand = Object.assign(new Option("by hand"), { hidden: true }));
    this.preset.disabled = false;
  }

  named(value) {
    if (value === "LUT" || value === "full") return { ...this.image.full, ...(value === "LUT" && { shape: "LUT" }) };
    const [centre, width, shape] = value.split(" ");
    return { centre: Number(centre), width: Number(width), shape };
  }

  choose() { this.window = this.named(this.preset.value); this.render(); }

  // A window by hand goes on from the one before.
  set(centre, width) {
    if (!this.image) return;
    const { shape } = this.window, held = (slider, value) => clamp(value, Number(slider.min), Number(slider.max));
    this.window = { centre: held(this.level, centre), width: held(this.width, width), shape: shape === "LUT" ? "LINEAR_EXACT" : shape };
    this.byHand.selected = true;
    if (this.due) return;
    this.due = true; // one picture a frame is enough while a hand drags
    requestAnimationFrame(() => { this.due = false; this.render(); });
  }

  // Both in hundredths of the image's range: brighter, wider.
  change(brighter, wider) {
    if (!this.image) return;
    const hundredth = this.image.range / 100, sign = this.image.black > this.image.white === this.inverted ? -1 : 1;
    this.set(this.window.centre + sign * brighter * hundredth, this.window.width + wider * hundredth);
  }

  render() {
    if (!this.image) return;
    this.image.draw(this.window, this.inverted);
    this.level.value = this.window.centre;
    this.width.value = this.window.width;
    this.draw();
  }

  tell() {
    const { unit } = this.image, places = Math.max(0, -Math.log10(unit));
    const told = (value) => (Math.round(value / unit) * unit).toFixed(places);
    const shown = this.window.shape === "LUT" ? "VOI LUT" : `level ${told(this.window.centre)}, width ${told(this.window.width)}`;
    this.part(".reading").textContent = `${shown}${this.zoom === 1 ? "" : `, zoom ${this.zoom.toFixed(1)}`}`;
    clearTimeout(this.telling); // spoken when the hand rests
    this.telling = setTimeout(() => { this.part(".spoken").textContent = this.part(".reading").textContent; }, 700);
  }

  fit() { this.zoom = 1; this.x = 0; this.y = 0; }

  draw() {
    if (!this.image) return;
    const ratio = devicePixelRatio || 1, box = this.canvas.getBoundingClientRect();
    this.canvas.classList.toggle("near", this.zoom > 1);
    this.canvas.classList.toggle("moving", this.moving);
    this.part(".shifts").hidden = this.zoom <= 1;
    [this.canvas.width, this.canvas.height] = [box.width * ratio, box.height * ratio];
    const { width, height, canvas } = this.image, pen = this.canvas.getContext("2d");
    const scale = Math.min(this.canvas.width / width, this.canvas.height / height) * this.zoom;
    const [half, tall] = [(width * scale) / 2 / ratio, (height * scale) / 2 / ratio];
    [this.x, this.y] = [clamp(this.x, -half, half), clamp(this.y, -tall, tall)]; // some of it stays in sight
    const left = this.canvas.width / 2 + (this.x - half) * ratio, top = this.canvas.height / 2 + (this.y - tall) * ratio;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(canvas, left, top, width * scale, height * scale);
    if (this.heat && this.opacity.value > 0) {
      pen.globalAlpha = this.opacity.value / 100;
      pen.drawImage(this.heat, left, top, width * scale, height * scale);
      pen.globalAlpha = 1;
    }
    if (this.part(".outline")?.checked) this.outline(pen, left, top, (width * scale) / this.box.dataset.columns, (height * scale) / this.box.dataset.rows, ratio);
    this.tell();
  }

  outline(pen, left, top, across, down, ratio) {
    pen.beginPath();
    for (const corner of this.box.dataset.outline.split(" ")) {
      const [column, row] = corner.split(",").map(Number);
      pen.lineTo(left + column * across, top + row * down);
    }
    pen.closePath();
    pen.lineWidth = 3 * ratio; pen.strokeStyle = "#000"; pen.stroke();
    pen.lineWidth = 1.5 * ratio; pen.strokeStyle = "#ff9f5a"; pen.stroke();
  }

  magnify(by, x = 0, y = 0) {
    const zoom = clamp(this.zoom * by, FARTHEST, NEAREST), real = zoom / this.zoom;
    this.zoom = zoom;
    this.shift((x - this.x) * (1 - real), (y - this.y) * (1 - real));
  }

  shift(dx, dy) { this.x += dx; this.y += dy; this.draw(); }

  reset() {
    if (!this.image) return;
    if (this.inverted) this.invert();
    this.preset.selectedIndex = 0;
    this.fit();
    this.choose();
  }

  invert() {
    this.inverted = !this.inverted;
    this.part(".invert").setAttribute("aria-pressed", this.inverted);
    this.render();
  }

  // Where a pointer is, from the middle of the canvas.
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
  }

  listen() {
    for (const range of [this.level, this.width]) range.addEventListener("input", () => this.set(Number(this.level.value), Number(this.width.value)));
    this.opacity?.addEventListener("input", () => this.draw());
    this.part(".outline")?.addEventListener("change", () => this.draw());
    this.preset.addEventListener("change", () => this.choose());
    const press = (name, does) => this.part(name).addEventListener("click", does);
    press(".invert", () => this.invert());
    press(".fit", () => this.reset());
    press(".in", () => this.magnify(1.25));
    press(".out", () => this.magnify(0.8));
    press(".move", (event) => { this.moving = !this.moving; event.target.setAttribute("aria-pressed", this.moving); this.draw(); });
    for (const button of this.box.querySelectorAll(".shifts button")) button.addEventListener("click", () => this.shift(button.dataset.x * STEP, button.dataset.y * STEP));
    this.canvas.addEventListener("dblclick", (event) => this.magnify(2, ...this.place(event)));
    this.canvas.addEventListener("pointerdown", (event) => { this.fingers.set(event.pointerId, this.place(event)); this.canvas.setPointerCapture(event.pointerId); });
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, (event) => this.fingers.delete(event.pointerId));
    this.canvas.addEventListener("pointermove", (event) => this.drag(event));
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.magnify(clamp(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), 0.5, 2), ...this.place(event));
    }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  // Two fingers zoom and move; one moves, as does a mouse that was told to; else a mouse changes the window.
  drag(event) {
    if (!this.fingers.has(event.pointerId)) return;
    const before = [...this.fingers.values()];
    this.fingers.set(event.pointerId, this.place(event));
    const after = [...this.fingers.values()], [from, to] = [middle(before), middle(after)];
    const [dx, dy] = [to[0] - from[0], to[1] - from[1]], touch = event.pointerType === "touch";
    if (after.length === 2 && apart(before) > 0) {
      [this.x, this.y] = [this.x + dx, this.y + dy];
      this.magnify(apart(after) / apart(before), ...to);
    } else if (touch || this.moving || event.shiftKey || event.buttons === 4) {
      if (!touch || this.zoom > 1) this.shift(dx, dy);
    } else this.change(-dy / 4, dx / 4);
  }

  key(event) {
    const arrow = { ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowLeft: [1, 0], ArrowRight: [-1, 0] }[event.key];
    const does = {
      "+": () => this.magnify(1.25), "=": () => this.magnify(1.25), "-": () => this.magnify(0.8),
      0: () => this.reset(), i: () => this.invert(),
      w: () => { const { selectedIndex: now } = this.preset, { index: hand } = this.byHand; this.preset.selectedIndex = now >= hand ? 0 : (now + 1) % hand; this.choose(); },
      h: () => { if (this.opacity) { this.opacity.value = this.opacity.value > 0 ? 0 : 60; this.draw(); } },
    }[event.key];
    if (!this.image || event.ctrlKey || event.metaKey || event.altKey || !(arrow || does)) return;
    event.preventDefault();
    if (does) does();
    else if (event.shiftKey) this.shift(arrow[0] * STEP, arrow[1] * STEP);
    else this.change(3 * arrow[1], -3 * arrow[0]);
  }
}

const viewers = new Map();
const shownNow = (article) => { const box = article.querySelector(".viewer"); if (box && !viewers.has(box)) viewers.set(box, new Viewer(box)); };
document.querySelectorAll("article.image:not([hidden])").forEach(shownNow);
document.querySelectorAll(".pick").forEach((button) => button.addEventListener("click", () => {
  document.querySelectorAll(".pick").forEach((one) => one.setAttribute("aria-pressed", one === button));
  document.querySelectorAll("article.image").forEach((article) => { article.hidden = article.dataset.image !== button.dataset.image; });
  document.querySelectorAll("article.image:not([hidden])").forEach(shownNow);
}));

const study = document.getElementById("study");
const events = new EventSource(`${document.body.dataset.root}/api/v1/events?after=${study.dataset.after}`);
events.addEventListener("changes", (event) => {
  const told = JSON.parse(event.data);
  if (told.all || told.studies.includes(study.dataset.study)) document.getElementById("changed").hidden = false;
});
addEventListener("pagehide", () => events.close());
