// A ZIP archive without compression: PNG files do not get smaller.
// Source: PKWARE's APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.16.

const UTF8_NAMES = 0x0800;
const VERSION = 20; // folders need version 2.0
const FIRST_OF_1980 = 0x0021; // the earliest date: archives of equal files are equal

// Pack [{name, bytes}] into a Blob.
export function packZip(files) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { name, bytes } of files) {
    const path = new TextEncoder().encode(name);
    const facts = [
      [2, VERSION], [2, UTF8_NAMES], [2, 0], [2, 0], [2, FIRST_OF_1980],
      [4, crc32(bytes)], [4, bytes.length], [4, bytes.length], [2, path.length], [2, 0],
    ];
    const header = fields([[4, 0x04034b50], ...facts]);
    directory.push(
      fields([[4, 0x02014b50], [2, VERSION], ...facts, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]]),
      path,
    );
    parts.push(header, path, bytes);
    offset += header.length + path.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const count = files.length;
  const end = fields([
    [4, 0x06054b50], [2, 0], [2, 0], [2, count], [2, count], [4, size], [4, offset], [2, 0],
  ]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

// Write [bytes, value] pairs, little-endian.
function fields(pairs) {
  const bytes = new Uint8Array(pairs.reduce((sum, [length]) => sum + length, 0));
  let place = 0;
  for (const [length, value] of pairs)
    for (let byte = 0; byte < length; byte++) bytes[place++] = value >>> (8 * byte);
  return bytes;
}

// The checksum of ITU-T V.42, bit by bit: a saved image has only 300 bytes.
export function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
