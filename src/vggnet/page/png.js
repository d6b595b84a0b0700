// PNG files without compression: an image of the network's size has a few hundred bytes anyway.
// Source: the PNG specification, https://www.w3.org/TR/png-3/, and RFC 1950 and 1951.

import { crc32 } from "./zip.js";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const MOST_STORED = 65535; // bytes of an uncompressed block

// Bytes (C, H, W), of one or three channels, become a file in base64.
export function encodePng(pixels, [channels, height, width]) {
  const color = channels === 3 ? 2 : 0;
  const shown = color ? 3 : 1;
  const rows = new Uint8Array(height * (1 + shown * width)); // each starts with its filter, 0
  for (let channel = 0; channel < shown; channel++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        rows[y * (1 + shown * width) + 1 + x * shown + channel] =
          pixels[(channel * height + y) * width + x];
  const bytes = [
    ...SIGNATURE,
    ...chunk("IHDR", [...number(width), ...number(height), 8, color, 0, 0, 0]),
    ...chunk("IDAT", store(rows)),
    ...chunk("IEND", []),
  ];
  return btoa(bytes.map((byte) => String.fromCharCode(byte)).join(""));
}

// Big-endian.
function number(value) {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255);
}

function chunk(name, content) {
  const body = [...[...name].map((letter) => letter.charCodeAt(0)), ...content];
  return [...number(content.length), ...body, ...number(crc32(body))];
}

// A zlib stream of stored blocks.
function store(bytes) {
  const stream = [0x78, 0x01];
  let [low, high] = [1, 0]; // Adler-32
  for (let start = 0; start < bytes.length; start += MOST_STORED) {
    const block = bytes.subarray(start, start + MOST_STORED);
    const last = start + MOST_STORED >= bytes.length;
    const length = [block.length & 255, block.length >>> 8];
    stream.push(Number(last), ...length, ...length.map((byte) => byte ^ 255));
    for (const byte of block) {
      stream.push(byte);
      low = (low + byte) % 65521;
      high = (high + low) % 65521;
    }
  }
  return [...stream, ...number(high * 65536 + low)];
}
