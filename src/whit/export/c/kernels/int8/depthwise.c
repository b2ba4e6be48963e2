/* Convolution of each channel with a kernel of its own. weight[ky][kx][channel]. */
static void depthwise$suffix(const uint8_t *in, struct map from, struct window window, int zero,
                      const int8_t *weight, const $factor *factor, const $offset *offset,
                      int32_t step, int shift, uint8_t *out, struct map to)
{
    enum { SUMS = 16 }; /* of channels side by side */
    for (int place = 0; place < to.height * to.width; place++)
        for (int first = 0; first < to.channels; first += SUMS) {
            const int count = to.channels - first < SUMS ? to.channels - first : SUMS;
            int32_t sums[SUMS] = {0};
            for (int ky = 0; ky < window.height; ky++)
                for (int kx = 0; kx < window.width; kx++) {
                    const int8_t *by = weight + (ky * window.width + kx) * to.channels + first;
                    const int y = place / to.width * window.step_y - window.around_y +
                                  ky * window.apart_y;
                    const int x = place % to.width * window.step_x - window.around_x +
                                  kx * window.apart_x;
                    if (y >= 0 && y < from.height && x >= 0 && x < from.width) {
                        const uint8_t *read = in + (y * from.width + x) * from.channels + first;
                        for (int c = 0; c < count; c++)
                            sums[c] += read[c] * by[c];
                    } else {
                        for (int c = 0; c < count; c++)
                            sums[c] += zero * by[c];
                    }
                }
            settle_each$suffix(sums, count, factor + first, offset + first, step, shift,
                        out + place * to.channels + first);
        }
}
