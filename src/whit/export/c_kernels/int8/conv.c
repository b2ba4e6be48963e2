/* Outputs summed at a time: places that share each weight, and channels side by side. */
enum { PLACES = 4, LANES = 24 };

/* What the tap (ky, kx) reads for a window that begins at (top, left). */
static inline const uint8_t *tap_of(const uint8_t *in, struct map from, struct window window,
                                    const uint8_t *outside, int top, int left, int ky, int kx)
{
    const int y = top + ky * window.apart_y, x = left + kx * window.apart_x;
    const int inside = y >= 0 && y < from.height && x >= 0 && x < from.width;
    return inside ? in + (y * from.width + x) * from.channels : outside;
}

/*
 * The sums of PLACES places and LANES channels; of the places, `count` are written. Outside the
 * map lies `outside`; a group reads `reads` channels and makes `makes`; `pitch` are those made by
 * all groups.
 */
static void conv_tile(const uint8_t *in, struct map from, struct window window,
                      const uint8_t *outside, const int *top, const int *left, int reads,
                      const int8_t *weight, const int32_t *factor, const int64_t *offset,
                      int shift, int makes, uint8_t *out, int pitch, int count)
{
    int32_t sum0[LANES], sum1[LANES], sum2[LANES], sum3[LANES];
    for (int o = 0; o < LANES; o++)
        sum0[o] = sum1[o] = sum2[o] = sum3[o] = 0;
    for (int ky = 0; ky < window.height; ky++)
        for (int kx = 0; kx < window.width; kx++) {
            const uint8_t *read[PLACES];
            for (int p = 0; p < PLACES; p++)
                read[p] = tap_of(in, from, window, outside, top[p], left[p], ky, kx);
            for (int i = 0; i < reads; i++, weight += makes) {
                const int32_t x0 = read[0][i], x1 = read[1][i];
                const int32_t x2 = read[2][i], x3 = read[3][i];
                for (int o = 0; o < LANES; o++) {
                    sum0[o] += x0 * weight[o];
                    sum1[o] += x1 * weight[o];
                    sum2[o] += x2 * weight[o];
                    sum3[o] += x3 * weight[o];
                }
            }
        }
    for (int o = 0; o < LANES; o++)
        out[o] = settle((int64_t)sum0[o] * factor[o] + offset[o], shift);
    if (count > 1)
        for (int o = 0; o < LANES; o++)
            out[pitch + o] = settle((int64_t)sum1[o] * factor[o] + offset[o], shift);
    if (count > 2)
        for (int o = 0; o < LANES; o++)
            out[2 * pitch + o] = settle((int64_t)sum2[o] * factor[o] + offset[o], shift);
    if (count > 3)
        for (int o = 0; o < LANES; o++)
            out[3 * pitch + o] = settle((int64_t)sum3[o] * factor[o] + offset[o], shift);
}

/* One place of a group that makes fewer than LANES channels. */
static void conv_place(const uint8_t *in, struct map from, struct window window,
                       const uint8_t *outside, int top, int left, int reads,
                       const int8_t *weight, const int32_t *factor, const int64_t *offset,
                       int shift, int makes, uint8_t *out)
{
    int32_t sums[LANES] = {0};
    for (int ky = 0; ky < window.height; ky++)
        for (int kx = 0; kx < window.width; kx++) {
            const uint8_t *read = tap_of(in, from, window, outside, top, left, ky, kx);
            for (int i = 0; i < reads; i++, weight += makes)
                for (int o = 0; o < makes; o++)
                    sums[o] += read[i] * weight[o];
        }
    for (int o = 0; o < makes; o++)
        out[o] = settle((int64_t)sums[o] * factor[o] + offset[o], shift);
}

/*
 * Convolution. weight[group][ky][kx][channel read][channel made]; a sum becomes an output by its
 * channel's factor and offset.
 */
static void conv(const uint8_t *in, struct map from, struct window window, int groups,
                 const uint8_t *outside, const int8_t *weight, const int32_t *factor,
                 const int64_t *offset, int shift, uint8_t *out, struct map to)
{
    const int reads = from.channels / groups, makes = to.channels / groups;
    const int places = to.height * to.width;
    for (int group = 0; group < groups; group++) {
        for (int place = 0; place < places; place += PLACES) {
            const int count = places - place < PLACES ? places - place : PLACES;
            int top[PLACES], left[PLACES];
            for (int p = 0; p < PLACES; p++) {
                const int at = p < count ? place + p : place;
                top[p] = at / to.width * window.step_y - window.around_y;
                left[p] = at % to.width * window.step_x - window.around_x;
            }
            uint8_t *made = out + place * to.channels;
            for (int p = 0; p < count && makes < LANES; p++)
                conv_place(in, from, window, outside, top[p], left[p], reads, weight, factor,
                           offset, shift, makes, made + p * to.channels);
            /* The last channels are taken once more rather than fewer than LANES of them. */
            for (int next = 0; makes >= LANES && next < makes; next += LANES) {
                const int first = next + LANES <= makes ? next : makes - LANES;
                conv_tile(in, from, window, outside, top, left, reads, weight + first,
                          factor + first, offset + first, shift, makes, made + first,
                          to.channels, count);
            }
        }
        in += reads;
        out += makes;
        factor += makes;
        offset += makes;
        weight += window.height * window.width * reads * makes;
    }
}
