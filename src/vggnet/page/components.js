// Connected parts of a mask, as vggnet/inference/components.py finds them.

// Pixels are connected to all eight around them. Returns the labels of the pixels, 0 outside of
// the mask, and the parts, the largest first: {label, top, left, bottom, right, area}.
export function findComponents(mask, width, height) {
  const labels = new Int32Array(mask.length);
  const parts = [];
  const stack = [];
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || labels[start]) continue;
    const label = parts.length + 1;
    const part = { label, top: height, left: width, bottom: 0, right: 0, area: 0 };
    parts.push(part);
    labels[start] = label;
    stack.push(start);
    while (stack.length) {
      const at = stack.pop();
      const x = at % width;
      const y = (at - x) / width;
      part.area++;
      part.top = Math.min(part.top, y);
      part.left = Math.min(part.left, x);
      part.bottom = Math.max(part.bottom, y + 1);
      part.right = Math.max(part.right, x + 1);
      for (let row = Math.max(0, y - 1); row <= Math.min(height - 1, y + 1); row++)
        for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column++) {
          const next = row * width + column;
          if (!mask[next] || labels[next]) continue;
          labels[next] = label;
          stack.push(next);
        }
    }
  }
  return { labels, parts: parts.sort((one, other) => other.area - one.area) };
}
