/* Weights of $bits bits, side by side from the lowest bits on, as bytes with 31 zeros behind. */
static void unpack(const uint8_t *packed, int count, int8_t *out)
{
    unsigned held = 0;
    int bits = 0;
    for (int i = 0; i < count; i++) {
        for (; bits < $bits; bits += 8)
            held |= (unsigned)*packed++ << bits;
        out[i] = (int8_t)((int)(held & $mask) - $qmax);
        held >>= $bits;
        bits -= $bits;
    }
    for (int i = 0; i < 31; i++)
        out[count + i] = 0;
}
