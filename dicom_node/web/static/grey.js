// Which grey a value is shown with: windows (PS3.3 section C.11.2.1.2), the image's VOI LUT, its polarity.
import { readPng } from "./png.js";

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const SHADES = {
  LINEAR: (value, centre, width) => (width > 1 ? (value - (centre - 0.5)) / (width - 1) + 0.5 : Number(value > centre - 0.5)),
  LINEAR_EXACT: (value, centre, width) => (value - centre) / width + 0.5,
  SIGMOID: (value, centre, width) => 1 / (1 + Math.exp((-4 * (value - centre)) / width)),
};

export class GreyImage {
  // `black` and `white` are the values, after the Modality LUT, of the darkest and the brightest pixel.
  constructor({ width, height, levels, most, texts }) {
    [this.width, this.height, this.levels, this.most] = [width, height, levels, most];
    [this.black, this.white] = texts.Values.split(" ").map(Number);
    this.curve = texts.Curve ? texts.Curve.match(/../g).map((one) => parseInt(one, 16) / 255) : null;
    this.canvas = document.createElement("canvas");
    [this.canvas.width, this.canvas.height] = [width, height];
    this.pixels = new ImageData(width, height);
  }

  static async from(answer) { return new GreyImage(await readPng(await answer.arrayBuffer())); }

  get least() { return Math.min(this.black, this.white); }
  get range() { return Math.abs(this.white - this.black); }
  get full() { return { centre: this.least + this.range / 2, width: this.range, shape: "LINEAR_EXACT" }; }
  // Values are told and set in whole numbers, unless there are few of these.
  get unit() { return this.range >= 100 ? 1 : 10 ** Math.floor(Math.log10(this.range / 100)); }

  shade(value, { centre, width, shape }) {
    if (shape !== "LUT") return clamp(SHADES[shape](value, centre, width), 0, 1);
    const at = ((value - this.least) / this.range) * (this.curve.length - 1), low = Math.floor(at);
    return this.curve[low] + (at - low) * ((this.curve[low + 1] ?? 1) - this.curve[low]);
  }

  // Draws the image through a window.
  draw(window, inverted) {
    const shades = new Uint32Array(this.most + 1), pixels = new Uint32Array(this.pixels.data.buffer);
    const step = (this.white - this.black) / this.most, turned = (this.black > this.white) !== inverted;
    for (let n = 0; n < shades.length; n += 1) {
      const shade = this.shade(this.black + n * step, window);
      shades[n] = (0xff000000 | (Math.round(255 * (turned ? 1 - shade : shade)) * 0x010101)) >>> 0;
    }
    for (let n = 0; n < pixels.length; n += 1) pixels[n] = shades[this.levels[n]];
    this.canvas.getContext("2d").putImageData(this.pixels, 0, 0);
  }
}
