// Reads a grey PNG as this node draws it: 8 or 16 bits, not interlaced (ISO/IEC 15948). A canvas would keep 8 bits of 16.
const latin = (bytes) => String.fromCharCode(...bytes);

function chunks(buffer) {
  const view = new DataView(buffer), data = [], texts = {};
  let header = null;
  for (let at = 8; at + 12 <= buffer.byteLength;) {
    const length = view.getUint32(at), content = new Uint8Array(buffer, at + 8, length);
    const kind = latin(new Uint8Array(buffer, at + 4, 4));
    if (kind === "IHDR") header = { width: view.getUint32(at + 8), height: view.getUint32(at + 12), bits: content[8], colour: content[9], interlaced: content[12] };
    if (kind === "IDAT") data.push(content);
    if (kind === "tEXt") { const [name, text] = latin(content).split("\0"); texts[name] = text; }
    at += length + 12;
  }
  if (!header || header.colour !== 0 || header.interlaced || ![8, 16].includes(header.bits)) throw new Error("no grey PNG of 8 or 16 bits");
  return { header, data, texts };
}

async function inflated(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function nearest(left, above, corner) {
  const guess = left + above - corner, a = Math.abs(guess - left), b = Math.abs(guess - above), c = Math.abs(guess - corner);
  return a <= b && a <= c ? left : b <= c ? above : corner;
}

// Takes the filters of the lines away.
function unfiltered(raw, height, row, step) {
  const out = new Uint8Array(row * height);
  for (let y = 0, from = 1, to = 0; y < height; y += 1, from += row + 1, to += row) {
    const filter = raw[from - 1];
    for (let x = 0; x < row; x += 1) {
      const left = x < step ? 0 : out[to + x - step], above = y ? out[to + x - row] : 0;
      let guess = 0;
      if (filter === 1) guess = left;
      else if (filter === 2) guess = above;
      else if (filter === 3) guess = (left + above) >> 1;
      else if (filter === 4) guess = nearest(left, above, y && x >= step ? out[to + x - row - step] : 0);
      out[to + x] = raw[from + x] + guess;
    }
  }
  return out;
}

// Returns width, height, levels (one for each pixel, from 0 to most) and texts (of the text chunks, by keyword).
export async function readPng(buffer) {
  const { header: { width, height, bits }, data, texts } = chunks(buffer), step = bits / 8;
  const bytes = unfiltered(await inflated(data), height, width * step, step);
  const levels = new Uint16Array(width * height);
  for (let n = 0; n < levels.length; n += 1) levels[n] = step === 1 ? bytes[n] : (bytes[2 * n] << 8) | bytes[2 * n + 1];
  return { width, height, levels, most: 2 ** bits - 1, texts };
}
