// A canvas to draw on with mouse, finger, pen and keyboard.
// Coordinates and widths are fractions of the canvas side, so strokes survive a resize.

const INK_WIDTH = 0.06; // like a thick marker; MNIST's strokes are about a tenth of a digit wide
const STEP = 0.025; // of the pen moved by the keyboard
const MOST_SIDE = 1024; // pixels of an opened image; larger ones are scaled down

export class Pad extends EventTarget {
  #canvas;
  #strokes = [];
  #image = null; // an image that was opened instead of drawn, on a canvas
  #current = null; // the stroke being drawn
  #pointer = null; // the pointer that draws it
  #pen = { x: 0.5, y: 0.3, shown: false };

  constructor(canvas) {
    super();
    this.#canvas = canvas;
    canvas.addEventListener("pointerdown", (event) => this.#start(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
      canvas.addEventListener(end, (event) => this.#end(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("focus", () => this.#showPen(canvas.matches(":focus-visible")));
    canvas.addEventListener("blur", () => {
      this.#lift();
      this.#showPen(false);
    });
    new ResizeObserver(() => this.#redraw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#redraw());
  }

  get empty() {
    return this.#strokes.length === 0 && this.#image === null;
  }

  get drawing() {
    return this.#current !== null;
  }

  undo() {
    this.#lift();
    this.#strokes.pop();
    this.#image = null;
    this.#changed();
  }

  clear() {
    this.#lift();
    this.#strokes = [];
    this.#image = null;
    this.#changed();
  }

  // Open an image file in place of the drawing.
  async open(file) {
    const image = await createImageBitmap(file);
    const by = Math.min(1, MOST_SIDE / Math.max(image.width, image.height));
    const [width, height] = [image.width, image.height].map((n) => Math.max(1, Math.round(n * by)));
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, width, height);
    layOnPaper(context, width, height);
    this.#lift();
    this.#strokes = [];
    this.#image = canvas;
    this.#changed();
  }

  // A canvas with the image, or with the drawing, black on white in any color scheme.
  toCanvas(side = 280) {
    if (this.#image) return this.#image;
    const canvas = new OffscreenCanvas(side, side);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white";
    context.fillRect(0, 0, side, side);
    this.#ink(context, side, "black");
    return canvas;
  }

  #start(event) {
    if (this.#pointer !== null || event.button !== 0) return;
    event.preventDefault(); // no selection, no scrolling
    this.#canvas.focus({ preventScroll: true });
    this.#showPen(false);
    this.#lift();
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pointer = event.pointerId;
    this.#begin(this.#point(event));
  }

  #move(event) {
    if (event.pointerId !== this.#pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) this.#current.push(this.#point(one));
    this.#changed();
  }

  #end(event) {
    if (event.pointerId !== this.#pointer) return;
    this.#pointer = null;
    this.#lift();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if (move) {
      this.#pen.x = Math.min(1, Math.max(0, this.#pen.x + STEP * move[0]));
      this.#pen.y = Math.min(1, Math.max(0, this.#pen.y + STEP * move[1]));
      this.#pen.shown = true;
      if (this.drawing) this.#current.push(this.#penPoint());
      this.#changed(this.drawing);
    } else if (event.key === " ") {
      if (this.drawing) this.#lift();
      else this.#begin(this.#penPoint());
    } else return;
    event.preventDefault();
  }

  #penPoint() {
    return { x: this.#pen.x, y: this.#pen.y, width: INK_WIDTH };
  }

  #showPen(shown) {
    this.#pen.shown = shown;
    this.#redraw();
  }

  #point(event) {
    const box = this.#canvas.getBoundingClientRect();
    // Only a pen reports its pressure; a mouse and most fingers always report 0.5.
    const pressure = event.pointerType === "pen" ? event.pressure : 0.5;
    return {
      x: (event.clientX - box.left) / box.width,
      y: (event.clientY - box.top) / box.height,
      width: INK_WIDTH * (0.6 + 0.8 * pressure),
    };
  }

  #begin(point) {
    this.#image = null;
    this.#current = [point];
    this.#strokes.push(this.#current);
    this.#changed();
  }

  #lift() {
    if (!this.drawing) return;
    this.#current = null;
    this.#pointer = null;
    this.#changed();
  }

  #changed(drawn = true) {
    this.#redraw();
    if (drawn) this.dispatchEvent(new Event("change"));
  }

  #redraw() {
    const side = Math.round(this.#canvas.clientWidth * devicePixelRatio);
    if (this.#canvas.width !== side) this.#canvas.width = this.#canvas.height = side;
    const context = this.#canvas.getContext("2d");
    const colour = getComputedStyle(this.#canvas);
    context.clearRect(0, 0, side, side);
    if (this.#image) {
      const { width, height } = this.#image;
      const by = side / Math.max(width, height);
      const place = [(side - by * width) / 2, (side - by * height) / 2, by * width, by * height];
      context.drawImage(this.#image, ...place);
    }
    this.#ink(context, side, colour.color);
    if (!this.#pen.shown) return;
    context.beginPath();
    context.arc(this.#pen.x * side, this.#pen.y * side, 0.035 * side, 0, 2 * Math.PI);
    context.lineWidth = 2 * devicePixelRatio;
    context.strokeStyle = colour.outlineColor;
    context.stroke();
  }

  #ink(context, side, colour) {
    context.strokeStyle = context.fillStyle = colour;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of this.#strokes) inkStroke(context, side, stroke);
  }
}

// Draw curves between the midpoints of neighboring points, as wide as the pen was pressed.
function inkStroke(context, side, points) {
  const [first] = points;
  context.beginPath();
  context.arc(first.x * side, first.y * side, (first.width * side) / 2, 0, 2 * Math.PI);
  context.fill();
  let start = first;
  for (let index = 1; index < points.length; index++) {
    const control = points[index - 1];
    const point = points[index];
    const end =
      index === points.length - 1
        ? point
        : { x: (control.x + point.x) / 2, y: (control.y + point.y) / 2 };
    context.beginPath();
    context.moveTo(start.x * side, start.y * side);
    context.quadraticCurveTo(control.x * side, control.y * side, end.x * side, end.y * side);
    context.lineWidth = point.width * side;
    context.stroke();
    start = end;
  }
}

// Transparent pixels become white, or black if the image has only light strokes.
function layOnPaper(context, width, height) {
  const { data } = context.getImageData(0, 0, width, height);
  let [drawn, weight] = [0, 0];
  for (let at = 0; at < data.length; at += 4) {
    drawn += data[at + 3] / 255;
    weight += ((data[at] + data[at + 1] + data[at + 2]) * data[at + 3]) / 255;
  }
  const isLight = drawn > 0 && weight / (3 * drawn) > 127.5 && drawn < (width * height) / 2;
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = isLight ? "black" : "white";
  context.fillRect(0, 0, width, height);
}
