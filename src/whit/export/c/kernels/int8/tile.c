/*
 * What is worked on at a time: the windows of PLACES, SPAN of the numbers that each of them reads,
 * and LANES of the channels made. Numbers come in whole BLOCKs, the last filled up with zeros, so
 * that vectors leave no rest; weights are read as far, and end with BLOCK - 1 zeros. Processors of
 * 32 bits have no vectors, and little memory; SMALL_TILES gives others what those have.
 */
#if UINTPTR_MAX > UINT32_MAX && !defined(SMALL_TILES)
enum { PLACES = 4, SPAN = 256, LANES = 32, BLOCK = 32 };
#else
enum { PLACES = 4, SPAN = 32, LANES = 24, BLOCK = 1 };
#endif

static inline int least(int a, int b)
{
    return a < b ? a : b;
}

/*
 * What a window that begins at (top, left) reads, side by side as its weights lie: `count` numbers
 * from the `first` on. Outside the map lies `zero`.
 */
static void gather(const uint8_t *in, struct map from, struct window window, int zero, int top,
                   int left, int reads, int first, int count, int16_t *restrict out)
{
    int ky = first / reads / window.width, kx = first / reads % window.width, i = first % reads;
    for (int k = count; k % BLOCK; k++)
        out[k] = 0;
    while (count > 0) {
        const int y = top + ky * window.apart_y, x = left + kx * window.apart_x;
        const int inside = y >= 0 && y < from.height && x >= 0 && x < from.width;
        /* The rest of a line of taps is read at once where it lies side by side in the map, too. */
        const int joined = inside && window.apart_x == 1 && reads == from.channels;
        const int taps = joined ? least(window.width - kx, from.width - x) : 1;
        const int run = least(taps * reads - i, count);
        if (inside) {
            const uint8_t *read = in + (y * from.width + x) * from.channels + i;
            for (int k = 0; k < run; k++)
                out[k] = read[k];
        } else {
            for (int k = 0; k < run; k++)
                out[k] = (int16_t)zero;
        }
        out += run;
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
 * Add to each lane's sums the products of its weights with what the windows read; two lanes'
 * weights are `size` apart. Of int16, as vectors add products of these in pairs.
 */
static void multiply_add(int16_t read[PLACES][SPAN], int count, const int8_t *weight, int size,
                         int lanes, int32_t sums[PLACES][LANES])
{
    const unsigned blocks = ((unsigned)count + BLOCK - 1) / BLOCK;
    for (int o = 0; o < lanes; o++) {
        const int8_t *by = weight + o * size;
        int32_t sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
        for (unsigned k = 0; k < blocks * BLOCK; k++) {
            sum0 += read[0][k] * by[k];
            sum1 += read[1][k] * by[k];
            sum2 += read[2][k] * by[k];
            sum3 += read[3][k] * by[k];
        }
        sums[0][o] += sum0;
        sums[1][o] += sum1;
        sums[2][o] += sum2;
        sums[3][o] += sum3;
    }
}
