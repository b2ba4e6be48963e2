/* Tile of a convolution with DSP instructions; its results are those of the tile in plain C. */
#ifdef DSP
enum { TILE_PIXELS = 4, TILE_DEPTH = 72, TILE_CHANNELS = 32, BLOCK = 4 };

static inline int min_int(int a, int b)
{
    return a < b ? a : b;
}

static inline int max_int(int a, int b)
{
    return a > b ? a : b;
}

static inline uint32_t load_word(const uint8_t *in)
{
    uint32_t word;
    memcpy(&word, in, sizeof word);
    return word;
}

/* Copy `count` bytes of a map that ends at `end`; up to three bytes more are written. */
static inline void copy_words(const uint8_t *in, const uint8_t *end, int count, uint8_t *to)
{
    if (in + count > end - (BLOCK - 1))
        memcpy(to, in, count);
    else
        for (int k = 0; k < count; k += BLOCK) {
            const uint32_t word = load_word(in + k);
            memcpy(to + k, &word, sizeof word);
        }
}

/*
 * Copy `count` inputs of the window whose corner is (top, left), from index `first` on, in the
 * order of the weights. Padding has the value `zero_point`. Up to three bytes more are written.
 */
static void copy_window(const uint8_t *in, struct shape src, struct window window, int zero_point,
                        int top, int left, int in_channels, int first, int count, uint8_t *to)
{
    const int tap = first / in_channels;
    int ky = tap / window.width, kx = tap % window.width, i = first % in_channels;
    while (count > 0) {
        const int y = top + ky * window.dilation_y, x = left + kx * window.dilation_x;
        const int inside = y >= 0 && y < src.height && x >= 0 && x < src.width;
        /* The remaining taps of a row are copied at once where they are contiguous in the input. */
        const int contiguous = inside && window.dilation_x == 1 && in_channels == src.channels;
        const int taps = contiguous ? min_int(window.width - kx, src.width - x) : 1;
        const int run = min_int(taps * in_channels - i, count);
        if (inside)
            memcpy(to, in + (y * src.width + x) * src.channels + i, run);
        else
            memset(to, zero_point, run);
        to += run;
        count -= run;
        i = 0;
        kx += taps;
        if (kx == window.width) {
            kx = 0;
            ky++;
        }
    }
}

/*
 * Widen the bytes from `in` to `end` to int16. Each block of four is in the order 0, 2, 1, 3, in which
 * weights are widened, too.
 */
static inline uint32_t *widen(const uint8_t *in, const uint8_t *end, uint32_t *pairs)
{
    for (; in < end; in += BLOCK, pairs += 2) {
        const uint32_t word = load_word(in);
        uint32_t odd;
        __asm__("uxtb16 %0, %1, ror #8" : "=r"(odd) : "r"(word));
        pairs[0] = word & 0x00ff00ff;
        pairs[1] = odd;
    }
    return pairs;
}

static inline uint32_t *fill(int count, int zero_point, uint32_t *pairs)
{
    for (; count > 0; count -= BLOCK, pairs += 2)
        pairs[0] = pairs[1] = (uint32_t)zero_point * 0x00010001;
    return pairs;
}

/* `im2col` of a window whose pixels are whole blocks: they are widened where they lie. */
static void im2col_blocks(const uint8_t *in, struct shape src, struct window window,
                          int zero_point, int top, int left, int first, int count,
                          uint32_t *pairs)
{
    const int row = window.width * src.channels, pitch = src.width * src.channels;
    int ky = first / row, offset = first % row;
    for (int run; count > 0; count -= run, offset = 0, ky++) {
        const int y = top + ky, x = left * src.channels + offset;
        run = min_int(row - offset, count);
        if (y < 0 || y >= src.height) {
            pairs = fill(run, zero_point, pairs);
            continue;
        }
        const int begin = min_int(max_int(-x, 0), run);
        const int end = max_int(begin, min_int(run, pitch - x));
        const uint8_t *values = in + y * pitch + x;
        pairs = fill(begin, zero_point, pairs);
        pairs = widen(values + begin, values + end, pairs);
        pairs = fill(run - end, zero_point, pairs);
    }
}

/*
 * Widen `count` inputs of the window whose corner is (top, left), from index `first` on, in the
 * order of the weights.
 */
static void im2col(const uint8_t *in, struct shape src, struct window window, int zero_point,
                   int top, int left, int in_channels, int first, int count,
                   int16_t *restrict out)
{
    const int is_contiguous =
        in_channels == src.channels && window.dilation_x == 1 && window.dilation_y == 1;
    if (is_contiguous && in_channels % BLOCK == 0) {
        im2col_blocks(in, src, window, zero_point, top, left, first, count, (uint32_t *)out);
        return;
    }
    uint32_t words[TILE_DEPTH / BLOCK + 1];
    uint8_t *const bytes = (uint8_t *)words, *to = bytes;
    if (is_contiguous && top >= 0 && left >= 0 && top + window.height <= src.height &&
        left + window.width <= src.width) {
        const int row = window.width * in_channels, pitch = src.width * in_channels;
        const uint8_t *end = in + src.height * pitch;
        int ky = first / row, offset = first % row, remaining = count;
        for (in += (top + ky) * pitch + left * in_channels; remaining > 0; in += pitch) {
            const int run = min_int(row - offset, remaining);
            copy_words(in + offset, end, run, to);
            to += run;
            remaining -= run;
            offset = 0;
        }
    } else {
        copy_window(in, src, window, zero_point, top, left, in_channels, first, count, to);
        to += count;
    }
    for (int k = count; k % BLOCK; k++)
        *to++ = 0;
    widen(bytes, to, (uint32_t *)out);
}

/*
 * Add the dot products of TILE_PIXELS windows with each channel's weights to its sums. `size` is
 * the number of weights of a channel.
 */
static void multiply_accumulate(int16_t x[TILE_PIXELS][TILE_DEPTH], int count,
                                const int8_t *weight, int size, int channels,
                                int32_t sums[TILE_PIXELS][TILE_CHANNELS])
{
    const int blocks = (count + BLOCK - 1) / BLOCK;
    for (int o = 0; o < channels; o++) {
        const int8_t *w = weight + o * size;
        const int16_t *p = x[0], *end = p + blocks * BLOCK;
        int32_t sum0 = sums[0][o], sum1 = sums[1][o], sum2 = sums[2][o], sum3 = sums[3][o];
        int32_t even, odd, x_even, x_odd;
        while (p != end)
            __asm__("ldr %[odd], [%[w]], #4\n\t"
                    "ldrd %[x_even], %[x_odd], [%[p], %[row1]]\n\t"
                    "sxtb16 %[even], %[odd]\n\t"
                    "sxtb16 %[odd], %[odd], ror #8\n\t"
                    "smlad %[sum1], %[x_even], %[even], %[sum1]\n\t"
                    "smlad %[sum1], %[x_odd], %[odd], %[sum1]\n\t"
                    "ldrd %[x_even], %[x_odd], [%[p], %[row2]]\n\t"
                    "smlad %[sum2], %[x_even], %[even], %[sum2]\n\t"
                    "smlad %[sum2], %[x_odd], %[odd], %[sum2]\n\t"
                    "ldrd %[x_even], %[x_odd], [%[p], %[row3]]\n\t"
                    "smlad %[sum3], %[x_even], %[even], %[sum3]\n\t"
                    "smlad %[sum3], %[x_odd], %[odd], %[sum3]\n\t"
                    "ldrd %[x_even], %[x_odd], [%[p]], #8\n\t"
                    "smlad %[sum0], %[x_even], %[even], %[sum0]\n\t"
                    "smlad %[sum0], %[x_odd], %[odd], %[sum0]"
                    : [p] "+r"(p), [w] "+r"(w), [sum0] "+r"(sum0), [sum1] "+r"(sum1),
                      [sum2] "+r"(sum2), [sum3] "+r"(sum3), [even] "=&r"(even), [odd] "=&r"(odd),
                      [x_even] "=&r"(x_even), [x_odd] "=&r"(x_odd)
                    : [row1] "i"(2 * TILE_DEPTH), [row2] "i"(4 * TILE_DEPTH),
                      [row3] "i"(6 * TILE_DEPTH)
                    : "memory");
        sums[0][o] = sum0;
        sums[1][o] = sum1;
        sums[2][o] = sum2;
        sums[3][o] = sum3;
    }
}
#endif
