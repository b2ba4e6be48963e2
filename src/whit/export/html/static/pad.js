// The canvas to draw on with mouse, pen, touch or keyboard.

const SIDE = 280; // dots of the longer side, ten for each of the 28 pixels of an MNIST image
const MAX_UNDO = 30;

export class Pad {
  /** `canvas` becomes the sheet; `changed` is called after every change of the drawing. */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.width = SIDE;
    this.height = SIDE;
    canvas.width = SIDE;
    canvas.height = SIDE;
    canvas.tabIndex = 0;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.thickness = 22;
    this.erasing = false;
    this.strokes = new Map(); // last position of each pointer that is down
    this.picture = null; // a colour image that is shown in position of a drawing
    this.history = [];
    this.cursor = { x: SIDE / 2, y: SIDE / 2, down: false };
    canvas.addEventListener("pointerdown", (event) => this.startStroke(event));
    canvas.addEventListener("pointermove", (event) => this.continueStroke(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => this.strokes.delete(event.pointerId));
    }
    canvas.addEventListener("keydown", (event) => this.onKey(event));
    canvas.addEventListener("blur", () => this.showCursor(false));
    canvas.addEventListener("focus", () => this.showCursor(canvas.matches(":focus-visible")));
  }

  /** The ink of each dot, 0..255, line by line. */
  get ink() {
    const { width, height } = this;
    const dots = this.context.getImageData(0, 0, width, height).data;
    const ink = new Uint8Array(width * height);
    for (let i = 0; i < ink.length; i++) ink[i] = dots[4 * i + 3];
    return { ink, width, height };
  }

  /** Give the sheet the proportions of an image; other proportions than before clear it. */
  resize(rows, columns) {
    const scale = SIDE / Math.max(rows, columns);
    const [width, height] = [Math.max(1, Math.round(columns * scale)), Math.max(1, Math.round(rows * scale))];
    if (width === this.width && height === this.height) return;
    Object.assign(this, { width, height, picture: null, history: [], cursor: { x: width / 2, y: height / 2, down: false } });
    this.canvas.width = width;
    this.canvas.height = height;
    this.canvas.style.aspectRatio = `${width} / ${height}`;
    this.changed();
  }

  clear() {
    this.saveState();
    this.erase();
    this.changed();
  }

  erase() {
    this.picture = null;
    this.context.clearRect(0, 0, this.width, this.height);
  }

  undo() {
    if (!this.history.length) return;
    const { dots, picture } = this.history.pop();
    this.context.putImageData(dots, 0, 0);
    this.picture = picture;
    this.changed();
  }

  /** Put an image on the sheet; `pixels` are 0..255, channel by channel and line by line.
   *
   * One channel becomes ink, to be drawn on. Three are shown in colour until the next stroke.
   */
  show(pixels, channels, rows, columns) {
    this.saveState();
    this.erase();
    const small = new OffscreenCanvas(columns, rows);
    const context = small.getContext("2d");
    const image = context.createImageData(columns, rows);
    const plane = rows * columns;
    for (let i = 0; i < plane; i++) {
      if (channels === 1) image.data[4 * i + 3] = pixels[i];
      else image.data.set([pixels[i], pixels[plane + i], pixels[2 * plane + i], 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(small, 0, 0, this.width, this.height);
    if (channels > 1) this.picture = { pixels, rows, columns };
    this.changed();
  }

  saveState() {
    const dots = this.context.getImageData(0, 0, this.width, this.height);
    this.history.push({ dots, picture: this.picture });
    if (this.history.length > MAX_UNDO) this.history.shift();
  }

  startStroke(event) {
    if (event.button > 0) return;
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus({ preventScroll: true });
    this.showCursor(false);
    this.saveState();
    if (this.picture) this.erase();
    const position = this.positionOf(event);
    this.strokes.set(event.pointerId, position);
    this.line(position, position, event);
    this.changed();
  }

  continueStroke(event) {
    if (!this.strokes.has(event.pointerId)) return;
    const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const each of events.length ? events : [event]) {
      const position = this.positionOf(each);
      this.line(this.strokes.get(event.pointerId), position, each);
      this.strokes.set(event.pointerId, position);
    }
    this.changed();
  }

  positionOf(event) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) * this.width) / box.width,
      y: ((event.clientY - box.top) * this.height) / box.height,
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

  /** Arrow keys move the pen, the space bar lowers or lifts it. */
  onKey(event) {
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
      this.cursor.x = Math.min(this.width, Math.max(0, from.x + stride * step[0]));
      this.cursor.y = Math.min(this.height, Math.max(0, from.y + stride * step[1]));
      if (this.cursor.down) this.line(from, this.cursor);
    } else if (event.key === " ") {
      this.cursor.down = !this.cursor.down;
      if (this.cursor.down) {
        this.saveState();
        if (this.picture) this.erase();
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
    style.setProperty("--x", `${(100 * this.cursor.x) / this.width}%`);
    style.setProperty("--y", `${(100 * this.cursor.y) / this.height}%`);
  }
}
