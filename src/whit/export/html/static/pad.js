// The sheet to draw on: mouse, pen, touch and keyboard.

const SIDE = 280; // dots of the sheet, ten for each of the 28 pixels of an MNIST image
const MOST_UNDO = 30;

export class Pad {
  /** `canvas` becomes the sheet; `changed` is called after every change of the drawing. */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    canvas.width = SIDE;
    canvas.height = SIDE;
    canvas.tabIndex = 0;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.thickness = 22;
    this.erasing = false;
    this.strokes = new Map(); // pointers that are down, and where each was last
    this.past = [];
    this.cursor = { x: SIDE / 2, y: SIDE / 2, down: false };
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.go(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => this.strokes.delete(event.pointerId));
    }
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.showCursor(false));
    canvas.addEventListener("focus", () => this.showCursor(canvas.matches(":focus-visible")));
  }

  /** The ink of each dot, 0..255, line by line. */
  get ink() {
    const dots = this.context.getImageData(0, 0, SIDE, SIDE).data;
    const ink = new Uint8Array(SIDE * SIDE);
    for (let i = 0; i < ink.length; i++) ink[i] = dots[4 * i + 3];
    return { ink, width: SIDE, height: SIDE };
  }

  clear() {
    this.remember();
    this.context.clearRect(0, 0, SIDE, SIDE);
    this.changed();
  }

  undo() {
    if (!this.past.length) return;
    this.context.putImageData(this.past.pop(), 0, 0);
    this.changed();
  }

  /** Put an image of `rows` x `columns` on the sheet; `pixels` are 0..255, line by line. */
  show(pixels, rows, columns) {
    this.remember();
    const small = new OffscreenCanvas(columns, rows);
    const context = small.getContext("2d");
    const image = context.createImageData(columns, rows);
    for (let i = 0; i < rows * columns; i++) image.data[4 * i + 3] = pixels[i];
    context.putImageData(image, 0, 0);
    this.context.clearRect(0, 0, SIDE, SIDE);
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(small, 0, 0, SIDE, SIDE);
    this.changed();
  }

  remember() {
    this.past.push(this.context.getImageData(0, 0, SIDE, SIDE));
    if (this.past.length > MOST_UNDO) this.past.shift();
  }

  begin(event) {
    if (event.button > 0) return;
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus({ preventScroll: true });
    this.showCursor(false);
    this.remember();
    const place = this.placeOf(event);
    this.strokes.set(event.pointerId, place);
    this.line(place, place, event);
    this.changed();
  }

  go(event) {
    if (!this.strokes.has(event.pointerId)) return;
    const passed = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const each of passed.length ? passed : [event]) {
      const place = this.placeOf(each);
      this.line(this.strokes.get(event.pointerId), place, each);
      this.strokes.set(event.pointerId, place);
    }
    this.changed();
  }

  placeOf(event) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) * SIDE) / box.width,
      y: ((event.clientY - box.top) * SIDE) / box.height,
    };
  }

  line(from, to, { pointerType, pressure } = {}) {
    const context = this.context;
    context.globalCompositeOperation = this.erasing ? "destination-out" : "source-over";
    context.lineCap = "round";
    context.lineJoin = "round";
    // A pen draws thicker where it is pressed.
    context.lineWidth = this.thickness * (pointerType === "pen" ? 0.5 + (pressure || 0.5) : 1);
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x + (from.x === to.x && from.y === to.y ? 0.01 : 0), to.y);
    context.stroke();
    context.globalCompositeOperation = "source-over";
  }

  /** Arrows move the pen, the space bar sets it down and lifts it. */
  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = steps[event.key];
    if (event.ctrlKey || event.metaKey) {
      if (event.key === "z") {
        event.preventDefault();
        this.undo();
      }
      return;
    }
    if (step) {
      const stride = event.shiftKey ? 3 : 10;
      const from = { x: this.cursor.x, y: this.cursor.y };
      this.cursor.x = Math.min(SIDE, Math.max(0, from.x + stride * step[0]));
      this.cursor.y = Math.min(SIDE, Math.max(0, from.y + stride * step[1]));
      if (this.cursor.down) this.line(from, this.cursor);
    } else if (event.key === " ") {
      this.cursor.down = !this.cursor.down;
      if (this.cursor.down) {
        this.remember();
        this.line(this.cursor, this.cursor);
      }
    } else if (event.key === "Backspace") {
      this.undo();
    } else if (event.key === "Delete") {
      this.clear();
    } else {
      return;
    }
    event.preventDefault();
    this.showCursor(true);
    if (this.cursor.down) this.changed();
  }

  showCursor(visible) {
    const style = this.canvas.parentElement.style;
    this.canvas.parentElement.classList.toggle("cursor", visible);
    this.canvas.parentElement.classList.toggle("down", this.cursor.down);
    if (!visible) this.cursor.down = false;
    style.setProperty("--x", `${(100 * this.cursor.x) / SIDE}%`);
    style.setProperty("--y", `${(100 * this.cursor.y) / SIDE}%`);
  }
}
