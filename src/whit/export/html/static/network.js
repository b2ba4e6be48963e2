// Runs the fused graph of a trained network, operation by operation.
//
// A value is a Float64Array in CHW layout. All buffers are allocated once, by `prepare`, so that an
// image is classified within a few milliseconds.

const INPUT = "image";

/** Decode base64 of little-endian float32 values. */
function decodeFloats(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const floats = new Float64Array(bytes.length / 4);
  for (let i = 0; i < floats.length; i++) floats[i] = view.getFloat32(4 * i, true);
  return floats;
}

const size = (shape) => shape.reduce((product, length) => product * length, 1);

export class Network {
  /** `graph`: JSON made by whit.export.html.graph_json. */
  constructor(graph) {
    this.name = graph.name;
    this.data = graph.data; // name of the data set
    this.classes = graph.classes;
    this.imageShape = graph.image_shape;
    this.operations = graph.operations;
    this.shifts = graph.shifts;
    const weights = decodeFloats(graph.weights);
    this.constants = {};
    for (const [name, { offset, shape }] of Object.entries(graph.constants)) {
      this.constants[name] = weights.subarray(offset, offset + size(shape));
    }
    this.shapes = { [INPUT]: graph.image_shape };
    this.values = { [INPUT]: new Float64Array(size(graph.image_shape)) };
    this.steps = this.operations.map((operation) => this.prepare(operation, graph.constants));
    this.output = this.operations[this.operations.length - 1].name;
    this.sums = new Float64Array(size(this.shapes[this.output]));
  }

  /** The logits of one image: values from 0 to 255 in CHW layout. */
  logits(image) {
    this.sums.fill(0);
    // The unshifted image comes last, so that `valueOf` returns its values.
    for (let i = this.shifts.length - 1; i >= 0; i--) {
      shiftInto(this.values[INPUT], image, this.imageShape, this.shifts[i]);
      for (const step of this.steps) step();
      const logits = this.values[this.output];
      for (let k = 0; k < logits.length; k++) this.sums[k] += logits[k];
    }
    for (let k = 0; k < this.sums.length; k++) this.sums[k] /= this.shifts.length;
    return this.sums;
  }

  /** The output of an operation for the last image, by name. */
  valueOf(name) {
    return { shape: this.shapes[name], values: this.values[name] };
  }

  prepare(operation, stored) {
    const output = new Float64Array(size(operation.shape));
    this.values[operation.name] = output;
    this.shapes[operation.name] = operation.shape;
    const inputs = operation.inputs.map((name) => this.values[name]);
    const shapes = operation.inputs.map((name) => this.shapes[name]);
    const constants = {};
    for (const [role, name] of Object.entries(operation.constants)) {
      constants[role] = { values: this.constants[name], shape: stored[name].shape };
    }
    return OPERATORS[operation.kind](operation, inputs, shapes, constants, output);
  }
}

/** Copy an image, shifted by pixels; gaps are filled with edge pixels. */
function shiftInto(output, image, [channels, height, width], [right, down]) {
  for (let channel = 0, i = 0; channel < channels; channel++) {
    for (let y = 0; y < height; y++) {
      const row = (channel * height + clip(y - down, 0, height - 1)) * width;
      for (let x = 0; x < width; x++, i++) output[i] = image[row + clip(x - right, 0, width - 1)];
    }
  }
}

/** Probabilities from logits or log-probabilities. */
export function softmax(logits) {
  const maximum = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - maximum));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

const OPERATORS = {
  conv(operation, [input], [shape], { weight, bias }, output) {
    const [channels, height, width] = shape;
    const [outputs, rows, columns] = operation.shape;
    const [, inputs, kernelHeight, kernelWidth] = weight.shape;
    const [top, left] = operation.padding;
    const [strideY, strideX] = operation.stride;
    const [dilationY, dilationX] = operation.dilation;
    const padded = padMap(shape, [left, left, top, top], 0);
        const full = padded ? padded.width : width;
    const plane = padded ? padded.width * padded.height : width * height;
    const source = padded ? padded.values : input;
    const taps = tapOffsets(inputs, kernelHeight, kernelWidth, plane, full, dilationY, dilationX);
    const each = outputs / operation.groups;
    const blocks = [];
    for (let group = 0; group < operation.groups; group++) {
      for (let first = group * each; first < (group + 1) * each; first += 4) {
        const count = Math.min(4, (group + 1) * each - first);
        blocks.push(packWeights(weight.values, bias.values, taps.length, first, count, group * inputs * plane));
      }
    }
    return () => {
      if (padded) padded.fill(input);
      for (const block of blocks) {
        const { first, count, start } = block;
        const pixels = rows * columns;
        if (taps.length === 9 && count === 1) {
          convolveNine(source, start, output, first * pixels, block, taps, rows, columns, full * strideY, strideX);
        } else if (count === 1) {
          convolveOne(source, start, output, first * pixels, block, taps, rows, columns, full * strideY, strideX);
        } else {
          convolveFour(source, start, output, first * pixels, block, taps, rows, columns, full * strideY, strideX);
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
    const pixels = size(shape) / shape[0];
    return () => {
      for (let channel = 0, i = 0; channel < shape[0]; channel++) {
        const factor = scale.values[channel];
        const term = offset.values[channel];
        for (let pixel = 0; pixel < pixels; pixel++, i++) output[i] = input[i] * factor + term;
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
      const pixels = size(shape) / shape[0];
      return () => {
        for (let i = 0; i < output.length; i++) {
          const x = input[i];
          output[i] = x > 0 ? x : x * slope.values[Math.floor(i / pixels)];
        }
      };
    }
    const apply = FUNCTIONS[operation.function](operation);
    return () => {
      for (let i = 0; i < output.length; i++) output[i] = apply(input[i]);
    };
  },

  maxpool(operation, [input], [shape], constants, output) {
    return pooling(operation, input, shape, output, -Infinity, (source, start, taps) => {
      let largest = -Infinity;
      for (let k = 0; k < taps.length; k++) {
        const x = source[start + taps[k]];
        if (x > largest) largest = x;
      }
      return largest;
    });
  },

  avgpool(operation, [input], [shape], constants, output) {
    const sum = (source, start, taps) => {
      let total = 0;
      for (let k = 0; k < taps.length; k++) total += source[start + taps[k]];
      return total / taps.length;
    };
    const run = pooling(operation, input, shape, output, 0, sum);
    if (operation.count_include_pad) return run;
    // The fraction of each window inside the map: average pooling of ones.
    const fractions = new Float64Array(output.length);
    pooling(operation, new Float64Array(input.length).fill(1), shape, fractions, 0, sum)();
    return () => {
      run();
      for (let i = 0; i < output.length; i++) output[i] /= fractions[i];
    };
  },

  mean(operation, [input], [shape], constants, output) {
    const pixels = shape[1] * shape[2];
    return () => {
      for (let channel = 0, i = 0; channel < shape[0]; channel++) {
        let total = 0;
        for (let pixel = 0; pixel < pixels; pixel++, i++) total += input[i];
        output[channel] = total / pixels;
      }
    };
  },

  add: elementwise((a, b) => a + b),
  subtract: elementwise((a, b) => a - b),
  multiply: elementwise((a, b) => a * b),

  concat(operation, inputs, shapes, constants, output) {
    return () => {
      let start = 0;
      for (const input of inputs) {
        output.set(input, start);
        start += input.length;
      }
    };
  },

  slice(operation, [input], [shape], constants, output) {
    const pixels = size(shape) / shape[0];
    const part = input.subarray(operation.start * pixels, operation.stop * pixels);
    return () => output.set(part);
  },

  // Moment-based deskewing, as whit.models.layers.Deskew.
  deskew(operation, [input], [[channels, height, width]], constants, output) {
    const plane = height * width;
    const mass = new Float64Array(plane);
    return () => {
      mass.fill(0);
      for (let channel = 0; channel < channels; channel++) {
        const map = input.subarray(channel * plane, (channel + 1) * plane);
        let minimum = Infinity;
        for (let i = 0; i < plane; i++) if (map[i] < minimum) minimum = map[i];
        for (let i = 0; i < plane; i++) mass[i] += map[i] - minimum;
      }
      let total = 0;
      let sumX = 0;
      let sumY = 0;
      for (let i = 0; i < plane; i++) {
        total += mass[i];
        sumX += mass[i] * (i % width);
        sumY += mass[i] * Math.floor(i / width);
      }
      const centerX = sumX / Math.max(total, 1e-6);
      const centerY = sumY / Math.max(total, 1e-6);
      let mu11 = 0;
      let mu02 = 0;
      for (let i = 0; i < plane; i++) {
        const dy = Math.floor(i / width) - centerY;
        mu11 += mass[i] * ((i % width) - centerX) * dy;
        mu02 += mass[i] * dy * dy;
      }
      const slope = mu11 / Math.max(mu02, 1e-6);
      for (let channel = 0, i = 0; channel < channels; channel++) {
        for (let y = 0; y < height; y++) {
          const row = (channel * height + y) * width;
          for (let x = 0; x < width; x++, i++) {
            const source = clip(x + slope * (y - centerY), 0, width - 1);
            const left = Math.floor(source);
            const fraction = source - left;
            output[i] = input[row + left] * (1 - fraction) + input[row + Math.min(left + 1, width - 1)] * fraction;
          }
        }
      }
    };
  },

  pad(operation, [input], [shape], constants, output) {
    const padded = padMap(shape, operation.pads, 0, output);
    return () => padded.fill(input);
  },

  constant(operation, inputs, shapes, { value }, output) {
    output.set(value.values);
    return () => {};
  },

  flatten: (operation, [input], shapes, constants, output) => () => output.set(input),
  softmax: (operation, [input], shapes, constants, output) => () => output.set(softmax(input)),

  log_softmax(operation, [input], shapes, constants, output) {
    return () => {
      const maximum = Math.max(...input);
      let sum = 0;
      for (let i = 0; i < input.length; i++) sum += Math.exp(input[i] - maximum);
      const logSum = maximum + Math.log(sum);
      for (let i = 0; i < input.length; i++) output[i] = input[i] - logSum;
    };
  },
};

const clip = (x, low, high) => Math.min(high, Math.max(low, x));
const sigmoid = (x) => 1 / (1 + Math.exp(-x));

const FUNCTIONS = {
  relu6: () => (x) => clip(x, 0, 6),
  clamp: ({ low, high }) => (x) => clip(x, low, high),
  leaky_relu: ({ slope }) => (x) => (x > 0 ? x : x * slope),
  elu: ({ slope }) => (x) => (x > 0 ? x : slope * Math.expm1(x)),
  gelu: () => (x) => (x / 2) * (1 + errorFunction(x / Math.SQRT2)),
  gelu_tanh: () => (x) =>
    (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
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
  return (operation, [a, b], [shape, other], constants, output) => {
    const pixels = other.length === shape.length ? 1 : size(shape) / shape[0];
    return () => {
      for (let i = 0; i < output.length; i++) output[i] = apply(a[i], b[Math.floor(i / pixels)]);
    };
  };
}

/**
 * A buffer for a map padded with `value`, cropped where the padding is negative, and the function
 * `fill`, which copies the map into it. null if there is no padding.
 */
function padMap([channels, height, width], [left, right, top, bottom], value, output = null) {
  if (!output && !left && !right && !top && !bottom) return null;
  const full = { width: width + left + right, height: height + top + bottom };
  const values = output || new Float64Array(channels * full.width * full.height);
  values.fill(value);
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

/** The offsets of the inputs of a window from the first of them. */
function tapOffsets(channels, kernelHeight, kernelWidth, plane, width, dilationY, dilationX) {
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

function pooling(operation, input, shape, output, padding, reduce) {
  const [channels, rows, columns] = operation.shape;
  const [top, left] = operation.padding;
  const [strideY, strideX] = operation.stride;
  const [kernelHeight, kernelWidth] = operation.kernel;
  const [dilationY, dilationX] = operation.dilation || [1, 1];
  const padded = padMap(shape, [left, left, top, top], padding);
  const width = padded ? padded.width : shape[2];
  const plane = width * (padded ? padded.height : shape[1]);
  const source = padded ? padded.values : input;
  const taps = tapOffsets(1, kernelHeight, kernelWidth, plane, width, dilationY, dilationX);
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

/** The weights of up to four output channels, interleaved by tap. */
function packWeights(weight, bias, taps, first, count, start) {
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

/** convolveOne unrolled for nine taps: the depthwise layers of most small networks. */
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

/** Four channels at two pixels at a time, so that each value that is read is used several times. */
function convolveFour(source, start, output, to, block, taps, rows, columns, stepY, stepX) {
  const { weights, biases, count } = block;
  const pixels = rows * columns;
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x += 2) {
      const from = start + y * stepY + x * stepX;
      // The last pixel of an odd row is computed twice.
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
      const pixel = to + y * columns + x;
      const last = x + 1 < columns ? pixel + 1 : pixel;
      output[last] = b0; output[pixel] = a0;
      output[last + pixels] = b1; output[pixel + pixels] = a1;
      if (count > 2) { output[last + 2 * pixels] = b2; output[pixel + 2 * pixels] = a2; }
      if (count > 3) { output[last + 3 * pixels] = b3; output[pixel + 3 * pixels] = a3; }
    }
  }
}
