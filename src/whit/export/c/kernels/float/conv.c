/*
 * Outputs summed at a time: places that share each weight, and channels side by side. gcc keeps
 * the sums of 24 channels in vectors, and clang those of 8.
 */
#ifdef __clang__
enum { PLACES = 4, LANES = 8 };
#else
enum { PLACES = 4, LANES = 24 };
#endif

/* What the tap (ky, kx) reads for a window that begins at (top, left). */
static inline const float *tap_of(const float *in, struct map from, struct window window,
                                  const float *outside, int top, int left, int ky, int kx)
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
static void conv_tile(const float *in, struct map from, struct window window,
                      const float *outside, const int *top, const int *left, int reads,
                      const float *weight, const float *bias, int makes, float *out, int pitch,
                      int count)
{
    float sum0[LANES], sum1[LANES], sum2[LANES], sum3[LANES];
    for (int o = 0; o < LANES; o++)
        sum0[o] = sum1[o] = sum2[o] = sum3[o] = bias[o];
    for (int ky = 0; ky < window.height; ky++)
        for (int kx = 0; kx < window.width; kx++) {
            const float *read[PLACES];
            for (int p = 0; p < PLACES; p++)
                read[p] = tap_of(in, from, window, outside, top[p], left[p], ky, kx);
            for (int i = 0; i < reads; i++, weight += makes) {
                const float x0 = read[0][i], x1 = read[1][i], x2 = read[2][i], x3 = read[3][i];
                for (int o = 0; o < LANES; o++) {
                    sum0[o] += x0 * weight[o];
                    sum1[o] += x1 * weight[o];
                    sum2[o] += x2 * weight[o];
                    sum3[o] += x3 * weight[o];
                }
            }
        }
    for (int o = 0; o < LANES; o++)
        out[o] = sum0[o];
    if (count > 1)
        for (int o = 0; o < LANES; o++)
            out[pitch + o] = sum1[o];
    if (count > 2)
        for (int o = 0; o < LANES; o++)
            out[2 * pitch + o] = sum2[o];
    if (count > 3)
        for (int o = 0; o < LANES; o++)
            out[3 * pitch + o] = sum3[o];
}

/* One place of a group that makes fewer than LANES channels. */
static void conv_place(const float *in, struct map from, struct window window,
                       const float *outside, int top, int left, int reads, const float *weight,
                       const float *bias, int makes, float *out)
{
    for (int o = 0; o < makes; o++)
        out[o] = bias[o];
    for (int ky = 0; ky < window.height; ky++)
        for (int kx = 0; kx < window.width; kx++) {
            const float *read = tap_of(in, from, window, outside, top, left, ky, kx);
            for (int i = 0; i < reads; i++, weight += makes)
                for (int o = 0; o < makes; o++)
                    out[o] += read[i] * weight[o];
        }
}

/* Convolution. weight[group][ky][kx][channel read][channel made], bias[channel made]. */
static void conv(const float *in, struct map from, struct window window, int groups,
                 const float *outside, const float *weight, const float *bias, float *out,
                 struct map to)
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
            float *made = out + place * to.channels;
            for (int p = 0; p < count && makes < LANES; p++)
                conv_place(in, from, window, outside, top[p], left[p], reads, weight, bias, makes,
                           made + p * to.channels);
            /* The last channels are taken once more rather than fewer than LANES of them. */
            for (int next = 0; makes >= LANES && next < makes; next += LANES) {
                const int first = next + LANES <= makes ? next : makes - LANES;
                conv_tile(in, from, window, outside, top, left, reads, weight + first,
                          bias + first, makes, made + first, to.channels, count);
            }
        }
        in += reads;
        out += makes;
        bias += makes;
        weight += window.height * window.width * reads * makes;
    }
}
