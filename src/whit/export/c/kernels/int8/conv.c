/*
 * Convolution. weight[channel made][ky][kx][channel read in its group]; a sum becomes an output by
 * its channel's factor and offset, which counts `step` each.
 */
static void conv$suffix(const uint8_t *in, struct map from, struct window window, int groups, int zero,
                 const int8_t *weight, const $factor *factor, const $offset *offset, int32_t step,
                 int shift, uint8_t *out, struct map to)
{
    const int reads = from.channels / groups, makes = to.channels / groups;
    const int size = window.height * window.width * reads, places = to.height * to.width;
    for (int place = 0; place < places; place += PLACES)
        for (int channel = 0, lanes; channel < to.channels; channel += lanes) {
            const int group = channel / makes;
            lanes = least(LANES, (group + 1) * makes - channel);
            int16_t read[PLACES][SPAN];
            int32_t sums[PLACES][LANES] = {{0}};
            for (int first = 0; first < size; first += SPAN) {
                const int count = least(SPAN, size - first);
                for (int p = 0; p < PLACES; p++) {
                    /* Behind the last place, it is read again rather than none. */
                    const int at = least(place + p, places - 1);
                    gather(in + group * reads, from, window, zero,
                           at / to.width * window.step_y - window.around_y,
                           at % to.width * window.step_x - window.around_x, reads, first, count,
                           read[p]);
                }
                multiply_add(read, count, weight + channel * size + first, size, lanes, sums);
            }
            for (int p = 0; p < PLACES && place + p < places; p++)
                settle_each$suffix(sums[p], lanes, factor + channel, offset + channel, step, shift,
                            out + (place + p) * to.channels + channel);
        }
}
