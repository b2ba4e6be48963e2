// A trained network at work: the folded graph of a run, operation by operation.
//
// A value is a Float64Array in the order channel, line, column. Nothing is allocated while it
// runs but what `prepare` made once, so that a drawing is read within a few milliseconds.

const INPUT = "image";

/** Read the base64 text of little-endian float32 numbers. */
export function numbersOf(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const numbers = new Float64Array(bytes.length / 4);
  for (let i = 0; i < numbers.length; i++) numbers[i] = view.getFloat32(4 * i, true);
  return numbers;
}

const size = (shape) => shape.reduce((product, number) => product * number, 1);

export class Network {
  /** `given` is what `whit export --format html` and the page's server send of a run. */
  constructor(given) {
    this.name = given.name;
    this.classes = given.classes;
    this.imageShape = given.image_shape;
    this.operations = given.operations;
    this.shifts = given.shifts;
    const numbers = numbersOf(given.weights);
    this.constants = {};
    for (const [name, place] of Object.entries(given.constants)) {
      this.constants[name] = numbers.subarray(place.offset, place.offset + size(place.shape));
    }
    this.shapes = { [INPUT]: given.image_shape };
    this.values = { [INPUT]: new Float64Array(size(given.image_shape)) };
    this.steps = this.operations.map((operation) => this.prepare(operation, given.constants));
    this.output = this.operations[this.operations.length - 1].name;
    this.sums = new Float64Array(size(this.shapes[this.output]));
  }

  /** The logits of one image: numbers from 0 to 255, channel by channel and line by line. */
  logits(image) {
    this.sums.fill(0);
    // The image as it is comes last, so that `valueOf` shows what the network makes of that.
    for (let i = this.shifts.length - 1; i >= 0; i--) {
      moveInto(this.values[INPUT], image, this.imageShape, this.shifts[i]);
      for (const step of this.steps) step();
      const looked = this.values[this.output];
      for (let k = 0; k < looked.length; k++) this.sums[k] += looked[k];
    }
    for (let k = 0; k < this.sums.length; k++) this.sums[k] /= this.shifts.length;
    return this.sums;
  }

  /** What an operation gave for the last image, by its name. */
  valueOf(name) {
    return { shape: this.shapes[name], values: this.values[name] };
  }

  prepare(operation, constants) {
    const output = new Float64Array(size(operation.shape));
    this.values[operation.name] = output;
    this.shapes[operation.name] = operation.shape;
    const inputs = operation.inputs.map((name) => this.values[name]);
    const shapes = operation.inputs.map((name) => this.shapes[name]);
    const held = {};
    for (const [role, name] of Object.entries(operation.constants)) {
      held[role] = { values: this.constants[name], shape: constants[name].shape };
    }
    return KINDS[operation.kind](operation, inputs, shapes, held, output);
  }
}

/** Copy an image to where it is moved; what comes in at a side is the edge that was there. */
function moveInto(into, image, [channels, height, width], [right, down]) {
  for (let channel = 0, i = 0; channel < channels; channel++) {
    for (let y = 0; y < height; y++) {
      const row = (channel * height + clip(y - down, 0, height - 1)) * width;
      for (let x = 0; x < width; x++, i++) into[i] = image[row + clip(x - right, 0, width - 1)];
    }
  }
}

/** Probabilities from logits; a network that ends in log-probabilities gives the same. */
export function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

const KINDS = {
  conv(operation, [input], [shape], { weight, bias }, output) {
    const [channels, height, width] = shape;
    const [outputs, rows, columns] = operation.shape;
    const [, read, kernelHeight, kernelWidth] = weight.shape;
    const [top, left] = operation.padding;
    const [strideY, strideX] = operation.stride;
    const [dilationY, dilationX] = operation.dilation;
    const padded = paddedMap(shape, [left, left, top, top], 0);
    // The last place that a kernel touches may lie behind the map where strides do not divide it.
    const full = padded ? padded.width : width;
    const plane = padded ? padded.width * padded.height : width * height;
    const source = padded ? padded.values : input;
    const taps = tapsOf(read, kernelHeight, kernelWidth, plane, full, dilationY, dilationX);
    const each = outputs / operation.groups;
    const blocks = [];
    for (let group = 0; group < operation.groups; group++) {
      for (let first = group * each; first < (group + 1) * each; first += 4) {
        const count = Math.min(4, (group + 1) * each - first);
        blocks.push(packed(weight.values, bias.values, taps.length, first, count, group * read * plane));
      }
    }
    return () => {
      if (padded) padded.fill(input);
      for (const block of blocks) {
        const { first, count, start } = block;
        const places = rows * columns;
        if (taps.length === 9 && count === 1) {
          convolveNine(source, start, output, first * places, block, taps, rows, columns, full * strideY, strideX);
        } else if (count === 1) {
          convolveOne(source, start, output, first * places, block, taps, rows, columns, full * strideY, strideX);
        } else {
          convolveFour(source, start, output, first * places, block, taps, rows, columns, full * strideY, strideX);
        }
      }
    };
  },

  linear(operation, [input], shapes, { weight, bias }, output) {
    return () => {
      for (let row = 0; row < output.length; row++) {
        let sum = bias.values[row];
        const start = row * input.length;
        for (let i = 0; i < input.length; i++) sum += weight.values[start + i] * input[i];
        output[row] = sum;
      }
    };
  },

  scale(operation, [input], [shape], { scale, offset }, output) {
    const places = size(shape) / shape[0];
    return () => {
      for (let channel = 0, i = 0; channel < shape[0]; channel++) {
        const factor = scale.values[channel];
        const term = offset.values[channel];
        for (let place = 0; place < places; place++, i++) output[i] = input[i] * factor + term;
      }
    };
  },

  activation(operation, [input], [shape], { slope }, output) {
    if (operation.function === "relu") {
      return () => {
        for (let i = 0; i < output.length; i++) output[i] = input[i] > 0 ? input[i] : 0;
      };
    }
    if (operation.function === "silu") {
      return () => {
        for (let i = 0; i < output.length; i++) output[i] = input[i] / (1 + Math.exp(-input[i]));
      };
    }
    if (operation.function === "prelu") {
      const places = size(shape) / shape[0];
      return () => {
        for (let i = 0; i < output.length; i++) {
          const x = input[i];
          output[i] = x > 0 ? x : x * slope.values[Math.floor(i / places)];
        }
      };
    }
    const apply = FUNCTIONS[operation.function](operation.slope);
    return () => {
      for (let i = 0; i < output.length; i++) output[i] = apply(input[i]);
    };
  },

  maxpool(operation, [input], [shape], held, output) {
    return pooling(operation, input, shape, output, -Infinity, (source, start, taps) => {
      let largest = -Infinity;
      for (let k = 0; k < taps.length; k++) {
        const x = source[start + taps[k]];
        if (x > largest) largest = x;
      }
      return largest;
    });
  },

  avgpool(operation, [input], [shape], held, output) {
    const sum = (source, start, taps) => {
      let total = 0;
      for (let k = 0; k < taps.length; k++) total += source[start + taps[k]];
      return total / taps.length;
    };
    const run = pooling(operation, input, shape, output, 0, sum);
    if (operation.counts_padding) return run;
    // How many of a window's places lie inside the map: the mean of a map of ones.
    const shares = new Float64Array(output.length);
    pooling(operation, new Float64Array(input.length).fill(1), shape, shares, 0, sum)();
    return () => {
      run();
      for (let i = 0; i < output.length; i++) output[i] /= shares[i];
    };
  },

  mean(operation, [input], [shape], held, output) {
    const places = shape[1] * shape[2];
    return () => {
      for (let channel = 0, i = 0; channel < shape[0]; channel++) {
        let total = 0;
        for (let place = 0; place < places; place++, i++) total += input[i];
        output[channel] = total / places;
      }
    };
  },

  add: elementwise((a, b) => a + b),
  subtract: elementwise((a, b) => a - b),
  multiply: elementwise((a, b) => a * b),

  concat(operation, inputs, shapes, held, output) {
    return () => {
      let start = 0;
      for (const input of inputs) {
        output.set(input, start);
        start += input.length;
      }
    };
  },

  slice(operation, [input], [shape], held, output) {
    const places = size(shape) / shape[0];
    const part = input.subarray(operation.start * places, operation.stop * places);
    return () => output.set(part);
  },

  // Rows moved so that the mixed second moment is zero; mass is what lies above the smallest number.
  deskew(operation, [input], [[channels, height, width]], held, output) {
    const plane = height * width;
    const mass = new Float64Array(plane);
    return () => {
      mass.fill(0);
      for (let channel = 0; channel < channels; channel++) {
        const map = input.subarray(channel * plane, (channel + 1) * plane);
        let smallest = Infinity;
        for (let i = 0; i < plane; i++) if (map[i] < smallest) smallest = map[i];
        for (let i = 0; i < plane; i++) mass[i] += map[i] - smallest;
      }
      let total = 0;
      let sumX = 0;
      let sumY = 0;
      for (let i = 0; i < plane; i++) {
        total += mass[i];
        sumX += mass[i] * (i % width);
        sumY += mass[i] * Math.floor(i / width);
      }
      const centreX = sumX / Math.max(total, 1e-6);
      const centreY = sumY / Math.max(total, 1e-6);
      let mixed = 0;
      let spread = 0;
      for (let i = 0; i < plane; i++) {
        const fromY = Math.floor(i / width) - centreY;
        mixed += mass[i] * ((i % width) - centreX) * fromY;
        spread += mass[i] * fromY * fromY;
      }
      const slope = mixed / Math.max(spread, 1e-6);
      for (let channel = 0, i = 0; channel < channels; channel++) {
        for (let y = 0; y < height; y++) {
          const row = (channel * height + y) * width;
          for (let x = 0; x < width; x++, i++) {
            const source = clip(x + slope * (y - centreY), 0, width - 1);
            const left = Math.floor(source);
            const share = source - left;
            output[i] = input[row + left] * (1 - share) + input[row + Math.min(left + 1, width - 1)] * share;
          }
        }
      }
    };
  },

  pad(operation, [input], [shape], held, output) {
    const padded = paddedMap(shape, operation.around, 0, output);
    return () => padded.fill(input);
  },

  flatten: (operation, [input], shapes, held, output) => () => output.set(input),
  softmax: (operation, [input], shapes, held, output) => () => output.set(softmax(input)),

  log_softmax(operation, [input], shapes, held, output) {
    return () => {
      const largest = Math.max(...input);
      let sum = 0;
      for (let i = 0; i < input.length; i++) sum += Math.exp(input[i] - largest);
      const whole = largest + Math.log(sum);
      for (let i = 0; i < input.length; i++) output[i] = input[i] - whole;
    };
  },
};

const clip = (x, low, high) => Math.min(high, Math.max(low, x));
const sigmoid = (x) => 1 / (1 + Math.exp(-x));

const FUNCTIONS = {
  relu6: () => (x) => clip(x, 0, 6),
  leaky_relu: (slope) => (x) => (x > 0 ? x : x * slope),
  elu: (slope) => (x) => (x > 0 ? x : slope * Math.expm1(x)),
  gelu: () => (x) => (x / 2) * (1 + errorFunction(x / Math.SQRT2)),
  hardswish: () => (x) => (x * clip(x + 3, 0, 6)) / 6,
  hardsigmoid: () => (x) => clip(x + 3, 0, 6) / 6,
  sigmoid: () => sigmoid,
  tanh: () => Math.tanh,
};

/** erf by the series 7.1.5 and the continued fraction 7.1.14 of Abramowitz and Stegun. */
export function errorFunction(x) {
  const size = Math.abs(x);
  if (size > 6) return Math.sign(x);
  if (size < 2.5) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (size + fraction);
  const rest = Math.exp(-size * size) / Math.sqrt(Math.PI) / (size + fraction);
  return Math.sign(x) * (1 - rest);
}

function elementwise(apply) {
  return (operation, [a, b], [shape, other], held, output) => {
    const places = other.length === shape.length ? 1 : size(shape) / shape[0];
    return () => {
      for (let i = 0; i < output.length; i++) output[i] = apply(a[i], b[Math.floor(i / places)]);
    };
  };
}

/**
 * A map with room around it, or with less than there is where a number is negative; `fill` copies
 * what there is room for. null where nothing changes.
 */
function paddedMap([channels, height, width], [left, right, top, bottom], filler, into = null) {
  if (!into && !left && !right && !top && !bottom) return null;
  const full = { width: width + left + right, height: height + top + bottom };
  const values = into || new Float64Array(channels * full.width * full.height);
  values.fill(filler);
  const fill = (input) => {
    for (let channel = 0; channel < channels; channel++) {
      for (let y = Math.max(0, -top); y < height + Math.min(0, bottom); y++) {
        const from = (channel * height + y) * width;
        const to = (channel * full.height + top + y) * full.width + left;
        for (let x = Math.max(0, -left); x < width + Math.min(0, right); x++) {
          values[to + x] = input[from + x];
        }
      }
    }
  };
  return { ...full, values, fill };
}

/** Where the places lie that a kernel reads, from the first of them. */
function tapsOf(channels, kernelHeight, kernelWidth, plane, width, dilationY, dilationX) {
  const taps = new Int32Array(channels * kernelHeight * kernelWidth);
  for (let channel = 0, k = 0; channel < channels; channel++) {
    for (let y = 0; y < kernelHeight; y++) {
      for (let x = 0; x < kernelWidth; x++, k++) {
        taps[k] = channel * plane + y * dilationY * width + x * dilationX;
      }
    }
  }
  return taps;
}

function pooling(operation, input, shape, output, filler, reduce) {
  const [channels, rows, columns] = operation.shape;
  const [top, left] = operation.padding;
  const [strideY, strideX] = operation.stride;
  const [kernelHeight, kernelWidth] = operation.kernel;
  const [dilationY, dilationX] = operation.dilation || [1, 1];
  const padded = paddedMap(shape, [left, left, top, top], filler);
  const width = padded ? padded.width : shape[2];
  const plane = width * (padded ? padded.height : shape[1]);
  const source = padded ? padded.values : input;
  const taps = tapsOf(1, kernelHeight, kernelWidth, plane, width, dilationY, dilationX);
  return () => {
    if (padded) padded.fill(input);
    for (let channel = 0, i = 0; channel < channels; channel++) {
      for (let y = 0; y < rows; y++) {
        let start = channel * plane + y * strideY * width;
        for (let x = 0; x < columns; x++, i++, start += strideX) output[i] = reduce(source, start, taps);
      }
    }
  };
}

/** The weights of up to four output channels, side by side for each tap. */
function packed(weight, bias, taps, first, count, start) {
  const lanes = count === 1 ? 1 : 4;
  const weights = new Float64Array(taps * lanes);
  const biases = new Float64Array(lanes);
  for (let lane = 0; lane < count; lane++) {
    biases[lane] = bias[first + lane];
    for (let k = 0; k < taps; k++) weights[k * lanes + lane] = weight[(first + lane) * taps + k];
  }
  return { first, count, start, weights, biases };
}

function convolveOne(source, start, output, to, block, taps, rows, columns, stepY, stepX) {
  const { weights, biases } = block;
  for (let y = 0; y < rows; y++) {
    let from = start + y * stepY;
    for (let x = 0; x < columns; x++, from += stepX) {
      let sum = biases[0];
      for (let k = 0; k < taps.length; k++) sum += weights[k] * source[from + taps[k]];
      output[to++] = sum;
    }
  }
}

/** As convolveOne, with nine taps written out: the depthwise layers of most small networks. */
function convolveNine(source, start, output, to, block, taps, rows, columns, stepY, stepX) {
  const [w0, w1, w2, w3, w4, w5, w6, w7, w8] = block.weights;
  const [t0, t1, t2, t3, t4, t5, t6, t7, t8] = taps;
  const bias = block.biases[0];
  for (let y = 0; y < rows; y++) {
    let from = start + y * stepY;
    for (let x = 0; x < columns; x++, from += stepX) {
      output[to++] = bias
        + w0 * source[from + t0] + w1 * source[from + t1] + w2 * source[from + t2]
        + w3 * source[from + t3] + w4 * source[from + t4] + w5 * source[from + t5]
        + w6 * source[from + t6] + w7 * source[from + t7] + w8 * source[from + t8];
    }
  }
}

/** Four channels at two places at a time: each number that is read counts several times. */
function convolveFour(source, start, output, to, block, taps, rows, columns, stepY, stepX) {
  const { weights, biases, count } = block;
  const places = rows * columns;
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x += 2) {
      const from = start + y * stepY + x * stepX;
      // The odd place at a line's end is reckoned twice.
      const next = x + 1 < columns ? from + stepX : from;
      let a0 = biases[0], a1 = biases[1], a2 = biases[2], a3 = biases[3];
      let b0 = a0, b1 = a1, b2 = a2, b3 = a3;
      for (let k = 0, w = 0; k < taps.length; k++, w += 4) {
        const tap = taps[k];
        const a = source[from + tap], b = source[next + tap];
        const w0 = weights[w], w1 = weights[w + 1], w2 = weights[w + 2], w3 = weights[w + 3];
        a0 += w0 * a; a1 += w1 * a; a2 += w2 * a; a3 += w3 * a;
        b0 += w0 * b; b1 += w1 * b; b2 += w2 * b; b3 += w3 * b;
      }
      const place = to + y * columns + x;
      const last = x + 1 < columns ? place + 1 : place;
      output[last] = b0; output[place] = a0;
      output[last + places] = b1; output[place + places] = a1;
      if (count > 2) { output[last + 2 * places] = b2; output[place + 2 * places] = a2; }
      if (count > 3) { output[last + 3 * places] = b3; output[place + 3 * places] = a3; }
    }
  }
}
